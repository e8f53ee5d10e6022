#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "channels.hpp"
#include "labels.hpp"
#include "thalweg/model/graph.hpp"

namespace thalweg::symmetry {

/// An axis of an entry with the channels its places stand for.
struct EntryAxis {
    std::size_t entry;
    std::int64_t axis;
    /// One line; of a grouped convolution's input axis one for each group: the slabs into which the entry's axis 0 is cut.
    std::vector<Line> slabs;
};

/// Where channels can be looked at: the operation's output shows them one by one along an axis.
struct Sight {
    std::size_t operation;
    std::int64_t axis;
    Line line;
};

/// One walk over the graph with one rule for each operation: how its tensors and its output lie to its inputs' labels.
class Walk {
  public:
    explicit Walk(const model::ModelGraph& graph);

    Channels channels;
    std::vector<EntryAxis> axes;  ///< in the order in which the walk met them
    std::vector<Sight> sights;    ///< in the graph's order
    /// What slices tell apart: for each slice that cuts labelled axes, its input's channels place by place and then the same
    /// once more with `nothing` where the slice leaves them out. What is cut out may be treated otherwise than the rest.
    std::vector<Line> passages;
    static constexpr Channel nothing = -1;

  private:
    Labels rule(const model::Linear& linear);
    Labels rule(const model::Convolution& conv);
    Labels rule(const model::BatchNorm& norm);
    Labels rule(const model::LayerNorm& norm);
    Labels rule(const model::GroupNorm& norm);
    Labels rule(const model::Activation&) { return input(0); }
    Labels rule(const model::PRelu& prelu);
    Labels rule(const model::Softmax& softmax);
    Labels rule(const model::Dropout&) { return input(0); }
    Labels rule(const model::MaxPool&) { return spatial("pooled"); }
    Labels rule(const model::AvgPool&) { return spatial("pooled"); }
    Labels rule(const model::AdaptivePool&) { return spatial("pooled"); }
    Labels rule(const model::Flatten&) { return reshaped(input(0), shape(), channels); }
    Labels rule(const model::Reshape&) { return reshaped(input(0), shape(), channels); }
    Labels rule(const model::Permute& permute);
    Labels rule(const model::Expand&);
    Labels rule(const model::Cat& cat);
    Labels rule(const model::Slice& slice);
    Labels rule(const model::Add&) { return combined(input(0), input(1), shape(), channels); }
    Labels rule(const model::Multiply&) { return combined(input(0), input(1), shape(), channels); }
    Labels rule(const model::Divide&) { return combined(input(0), input(1), shape(), channels); }
    Labels rule(const model::Affine&) { return input(0); }
    Labels rule(const model::MatMul&);
    Labels rule(const model::Attention& attention);
    Labels rule(const model::Reduce& reduce);
    Labels rule(const model::Upsample&) { return spatial("upsampled"); }
    Labels rule(const model::Pad& pad);
    Labels rule(const model::Embedding& embedding);
    Labels rule(const model::Parameter& parameter);
    Labels rule(const model::Constant&) { return Labels(shape()); }
    Labels rule(const model::Lstm& lstm);

    const model::Operation& step() const { return graph_.operations[operation_]; }
    Labels& input(std::size_t k) { return labels_[static_cast<std::size_t>(step().inputs[k])]; }
    const model::Sizes& shape() const { return graph_.shapes[static_cast<std::size_t>(step().output)]; }
    const model::Sizes& shape_of(int entry) const {
        return graph_.layout->entries()[static_cast<std::size_t>(entry)].shape;
    }
    /// The channels on an axis of an input; positions are fixed channels.
    Line line(std::size_t k, std::int64_t axis) {
        // A single channel has no label of its own.
        const bool of_model = step().inputs[k] == 0;
        return line_on(input(k), axis, channels, step().name, of_model ? "input" : "fixed positions");
    }

    EntryAxis* find(int entry, std::int64_t axis);
    /// Says that an axis of an entry (-1: none) stands for these channels.
    void mark(int entry, std::int64_t axis, const Line& line);
    void mark_slabs(int entry, std::int64_t axis, const Line& line, std::int64_t slabs);
    /// The channels of an axis that the operation makes: new ones, or what an earlier use of the entry made.
    Line opened(int entry, std::int64_t axis);
    /// The same for `count` channels that the axis shows slab by slab.
    Line opened_slabs(int entry, std::int64_t axis, std::int64_t count);

    Labels spatial(const std::string& what);
    /// What is normalised over some of the axes that tell channels apart ties those of one slice together: blocks.
    void normalised_over(std::int64_t first, std::int64_t end);
    /// The input's labels with `line` on an axis whose own label is dropped, for an output of the operation's shape.
    Labels with_axis(const Labels& labels, std::int64_t axis, const Line& line);
    /// Marks entries of [channels] with axis 1 of the input.
    Labels channelwise(std::initializer_list<int> entries);
    void look(std::size_t operation, const Labels& labels);

    const model::ModelGraph& graph_;
    std::size_t operation_ = 0;
    std::vector<Labels> labels_;  ///< of each value
};

}  // namespace thalweg::symmetry
