#pragma once

#include <ATen/core/Tensor.h>

#include <string>
#include <vector>

#include "channels.hpp"
#include "thalweg/model/graph.hpp"
#include "thalweg/symmetry/gauge.hpp"

namespace thalweg::symmetry {

/// One walk over the graph that says by which factor each element of a value is multiplied.
///
/// A value's factors are a tensor of channels (see Channels) that broadcasts to the value, batch axis first. Unlike a
/// permutation's, a factor ends at a norm or at an activation that does not let it pass. Channel 0 is the factor one.
class GaugeWalk {
  public:
    GaugeWalk(const model::ModelGraph& graph, Gauge::Kind kind);

    struct Mark {
        std::size_t operation, entry;
        at::Tensor factors;
        int exponent;
    };
    Channels channels;
    std::vector<Mark> marks;
    static constexpr Channel one = 0;

  private:
    using Factors = at::Tensor;

    Factors rule(const model::Linear& linear);
    Factors rule(const model::Convolution& conv);
    Factors rule(const model::BatchNorm& norm);
    Factors rule(const model::LayerNorm& norm);
    Factors rule(const model::GroupNorm& norm);
    Factors rule(const model::Activation& activation);
    Factors rule(const model::PRelu&) { return if_scales("prelu"); }
    Factors rule(const model::Softmax&) { return ends("softmax"); }
    Factors rule(const model::Dropout&) { return input(0); }
    Factors rule(const model::MaxPool&) { return if_scales("max pool", true); }
    Factors rule(const model::AvgPool&) { return spatial(); }
    Factors rule(const model::AdaptivePool& pool) {
        return pool.max ? if_scales("max pool", true) : spatial();
    }
    Factors rule(const model::Flatten&) { return reshaped(input(0)); }
    Factors rule(const model::Reshape&) { return reshaped(input(0)); }
    Factors rule(const model::Permute& permute) { return input(0).permute(permute.order); }
    Factors rule(const model::Expand&) { return input(0); }
    Factors rule(const model::Cat& cat);
    Factors rule(const model::Slice& slice);
    Factors rule(const model::Add&);
    Factors rule(const model::Multiply&);
    Factors rule(const model::Divide&);
    Factors rule(const model::Affine& affine) { return affine.offset == 0 ? input(0) : ends("an offset"); }
    Factors rule(const model::MatMul&);
    Factors rule(const model::Attention&);
    Factors rule(const model::Reduce& reduce);
    Factors rule(const model::Upsample&) { return spatial(); }
    Factors rule(const model::Pad& pad);
    Factors rule(const model::Embedding& embedding);
    Factors rule(const model::Parameter& parameter);
    Factors rule(const model::Constant&) { return ones(); }
    Factors rule(const model::Lstm& lstm);

    const model::Operation& step() const { return graph_.operations[operation_]; }
    const Factors& input(std::size_t k) const { return factors_[static_cast<std::size_t>(step().inputs[k])]; }
    const model::Sizes& shape() const { return graph_.shapes[static_cast<std::size_t>(step().output)]; }
    const model::Sizes& input_shape(std::size_t k) const {
        return graph_.shapes[static_cast<std::size_t>(step().inputs[k])];
    }
    const model::Sizes& entry_shape(int entry) const {
        return graph_.layout->entries()[static_cast<std::size_t>(entry)].shape;
    }
    bool signs() const { return kind_ == Gauge::Kind::sign; }

    Factors ones() const;                         ///< broadcasts to the operation's output
    Factors open(std::int64_t count);             ///< [count] new ones, named after the operation
    bool are_ones(const Factors& factors) const;  ///< as far as is known
    void freeze(const Factors& factors, const std::string& reason);
    void unite(const Factors& a, const Factors& b);  ///< as they broadcast
    /// The factors on an axis of an input, [size]; those that differ elsewhere, too, are fixed.
    Factors along(std::size_t k, std::int64_t axis);
    Factors on_axis(const Factors& line, std::int64_t axis) const;  ///< of the output, from [size]
    void mark(int entry, const Factors& factors, int exponent);

    /// The factors of all inputs are fixed, and the output has none.
    Factors ends(const std::string& reason);
    /// The input's, if scales may pass; `over_places`: and do not differ between positions.
    Factors if_scales(const std::string& name, bool over_places = false);
    Factors spatial();  ///< the input's, which may not differ past axis 1
    Factors reshaped(const Factors& factors) const;
    /// What a norm does to the factors it is given, and those its scale and shift give.
    Factors after_norm(int weight, int bias, std::int64_t axis, const Factors& before);
    void settle_shared();
    void match(std::vector<const Mark*> first, const std::vector<const Mark*>& second);

    const model::ModelGraph& graph_;
    const Gauge::Kind kind_;
    std::size_t operation_ = 0;
    std::vector<Factors> factors_;  ///< of each value
};

}  // namespace thalweg::symmetry
