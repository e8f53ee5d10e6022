#include <algorithm>
#include <functional>
#include <numeric>
#include <optional>
#include <variant>

#include "thalweg/symmetry/symmetry.hpp"

// The groups are the classes of a union-find over channels, found in one walk over the graph. Every value carries, along
// its channel axis, a list of sections: which class, and how many neighbours each channel of it spans. Every operation
// has one rule: how its tensors and its output lie to its inputs' sections.

namespace thalweg::symmetry {
namespace {

using Class = std::size_t;

/// A stretch of a value's channel axis: the channels of a class, each `block` elements wide.
struct Section {
    Class channels;
    std::int64_t block;
};
using Sections = std::vector<Section>;

/// A set of channels that move together, with every place they show up.
struct Channels {
    std::string name;
    std::int64_t size = 0;
    std::vector<AxisUse> uses;
    std::optional<std::size_t> activation;
    std::string frozen;  ///< why, or empty
};

/// Disjoint sets of channels; the older of two united classes stands for both.
class ChannelClasses {
  public:
    Class open(std::string name, std::int64_t size, std::size_t operation) {
        parent_.push_back(channels_.size());
        channels_.push_back({std::move(name), size, {}, operation, {}});
        return parent_.back();
    }
    Class find(Class c) {
        while (parent_[c] != c) c = parent_[c] = parent_[parent_[c]];
        return c;
    }
    Channels& operator[](Class c) { return channels_[find(c)]; }
    void freeze(Class c, const std::string& reason) {
        if ((*this)[c].frozen.empty()) (*this)[c].frozen = reason;
    }
    /// All classes that stand for themselves, oldest first.
    std::vector<Class> roots() const {
        std::vector<Class> result;
        for (Class c = 0; c < parent_.size(); ++c) {
            if (parent_[c] == c) result.push_back(c);
        }
        return result;
    }

  private:
    std::vector<Class> parent_;
    std::vector<Channels> channels_;
};

/// The walk: one rule for each operation. Inside a rule `operation_` is the operation's place in the graph.
class Walk {
  public:
    explicit Walk(const model::ModelGraph& graph) : graph_(graph) {
        const Class input = classes_.open("input", graph.input_shape().front(), 0);
        classes_.freeze(input, "input");
        sections_.push_back({{input, 1}});
        for (operation_ = 0; operation_ < graph.operations.size(); ++operation_) {
            sections_.push_back(std::visit([this](const auto& kind) { return rule(kind); }, step().kind));
        }
        for (const Section& section : sections_.back()) classes_.freeze(section.channels, "output");
    }

    ChannelClasses& classes() { return classes_; }

  private:
    const model::Operation& step() const { return graph_.operations[operation_]; }
    const Sections& input() const { return sections_[static_cast<std::size_t>(step().inputs.front())]; }
    const std::vector<std::int64_t>& input_shape() const {
        return graph_.shapes[static_cast<std::size_t>(step().inputs.front())];
    }

    Sections rule(const model::Linear& linear) {
        mark(linear.weight, 1, input());
        return opened(linear.weight, linear.bias);
    }

    Sections rule(const model::Conv2d& convolution) {
        if (convolution.groups == 1) {
            mark(convolution.weight, 1, input());
            return opened(convolution.weight, convolution.bias);
        }
        if (convolution.groups == input_shape().front()) return depthwise(convolution);
        for (const Section& section : input()) classes_.freeze(section.channels, "grouped convolution");
        const Sections output = opened(convolution.weight, convolution.bias);
        classes_.freeze(output.front().channels, "grouped convolution");
        return output;
    }

    /// Every input channel makes its own `out / groups` output channels: they follow it as a block.
    Sections depthwise(const model::Conv2d& convolution) {
        const std::int64_t each = shape_of(convolution.weight).front() / convolution.groups;
        Sections output = input();
        for (Section& section : output) section.block *= each;
        mark(convolution.weight, 0, output);
        mark(convolution.bias, 0, output);
        return shown(output);
    }

    Sections rule(const model::BatchNorm& norm) {
        for (const int entry : {norm.weight, norm.bias, norm.running_mean, norm.running_var})
            mark(entry, 0, input());
        return shown(input());
    }

    /// Over all features of a sample, or over the channels at each position: its statistics do not see their order.
    Sections rule(const model::LayerNorm& norm) {
        for (const int entry : {norm.weight, norm.bias}) mark(entry, 0, input());
        return shown(input());
    }

    Sections rule(const model::Activation&) { return shown(input()); }
    Sections rule(const model::MaxPool2d&) { return input(); }
    Sections rule(const model::AvgPool2d&) { return input(); }

    /// [C, H, W] → [C·H·W]: every channel becomes a block of its H·W positions.
    Sections rule(const model::Flatten&) {
        const auto& shape = input_shape();
        const std::int64_t positions =
            std::accumulate(shape.begin() + 1, shape.end(), std::int64_t{1}, std::multiplies<>());
        Sections output = input();
        for (Section& section : output) section.block *= positions;
        return output;
    }

    const std::vector<std::int64_t>& shape_of(int entry) const {
        return graph_.layout->entries()[static_cast<std::size_t>(entry)].shape;
    }

    /// New channels, made by the operation's weight [out, …] and bias [out].
    Sections opened(int weight, int bias) {
        const Sections output{{classes_.open(step().name, shape_of(weight).front(), operation_), 1}};
        mark(weight, 0, output);
        mark(bias, 0, output);
        return output;
    }

    /// Axis `axis` of a tensor lies like `sections`. Entry -1: the operation has no such tensor.
    void mark(int entry, std::int64_t axis, const Sections& sections) {
        if (entry < 0) return;
        std::int64_t offset = 0;
        for (const auto& [channels, block] : sections) {
            classes_[channels].uses.push_back({static_cast<std::size_t>(entry), axis, offset, block});
            offset += classes_[channels].size * block;
        }
    }

    /// The operation's output shows the channels as they are on axis 1: matching on activations may look here.
    Sections shown(const Sections& sections) {
        if (sections.size() == 1 && sections.front().block == 1) {
            classes_[sections.front().channels].activation = operation_;
        }
        return sections;
    }

    const model::ModelGraph& graph_;
    std::size_t operation_ = 0;
    ChannelClasses classes_;
    std::vector<Sections> sections_;  ///< of each value
};

/// Share of the trainable elements that lie on a moved stretch of some axis.
double covered_share(const model::Layout& layout, const std::vector<Group>& groups) {
    if (layout.trainable_size() == 0) return 0.0;
    const auto& entries = layout.entries();
    // fixed[entry][axis]: elements of the axis that no group moves
    std::vector<std::vector<std::int64_t>> fixed;
    for (const model::Entry& entry : entries) fixed.push_back(entry.shape);
    for (const Group& group : groups) {
        for (const AxisUse& use : group.uses) {
            fixed[use.entry][static_cast<std::size_t>(use.axis)] -= group.size * use.block;
        }
    }
    std::int64_t covered = 0;
    for (std::size_t e = 0; e < entries.size(); ++e) {
        if (!entries[e].trainable) continue;
        covered += entries[e].size -
                   std::accumulate(fixed[e].begin(), fixed[e].end(), std::int64_t{1}, std::multiplies<>());
    }
    return static_cast<double>(covered) / static_cast<double>(layout.trainable_size());
}

}  // namespace

Symmetries derive(const model::ModelGraph& graph) {
    Walk walk(graph);
    Symmetries result;
    for (const Class c : walk.classes().roots()) {
        Channels& channels = walk.classes()[c];
        if (channels.frozen.empty() && channels.size == 1) channels.frozen = "a single channel";
        if (channels.frozen.empty()) {
            result.groups.push_back(
                {channels.name, channels.size, std::move(channels.uses), channels.activation.value_or(0)});
            continue;
        }
        for (const AxisUse& use : channels.uses)
            result.frozen.push_back({use.entry, use.axis, channels.frozen});
    }
    result.coverage = covered_share(*graph.layout, result.groups);
    return result;
}

}  // namespace thalweg::symmetry
