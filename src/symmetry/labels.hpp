#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "channels.hpp"
#include "thalweg/model/operations.hpp"

namespace thalweg::symmetry {

/// Which channels the axes of a value stand for. A patch is a tensor of channels of the value's rank (the batch axis
/// first), with size 1 on the axes it does not speak of: [1, C, 1, 1] labels the channels of an image, [1, 1, H, D] the
/// channels of H heads of D, whose meaning depends on both indexes. An axis of no patch holds positions: it is fixed.
/// No axis is in two patches.
class Labels {
  public:
    explicit Labels(model::Sizes sample_shape);

    const std::vector<std::int64_t>& shape() const { return shape_; }  ///< with the batch axis, as 1
    std::int64_t rank() const { return static_cast<std::int64_t>(shape_.size()); }
    const std::vector<at::Tensor>& patches() const { return patches_; }

    /// Adds a patch; axes along which it is constant are dropped, and nothing remains of one that is constant.
    void add(at::Tensor patch);
    /// Adds a label for one axis.
    void add(std::int64_t axis, const Line& line);
    /// The patch that speaks of `axis`, or nullptr.
    const at::Tensor* find(std::int64_t axis) const;
    void remove(const at::Tensor& patch);

  private:
    std::vector<std::int64_t> shape_;
    std::vector<at::Tensor> patches_;
};

/// The axes a patch speaks of.
std::vector<std::int64_t> axes_of(const at::Tensor& patch);
/// The channels of a patch in the order of its elements.
Line line_of(const at::Tensor& patch);
at::Tensor patch_of(const Line& line, std::int64_t axis, std::int64_t rank);

/// The blocks that the axes `outer` of a patch number, each owning the channels of the other axes.
Line blocks_along(const at::Tensor& patch, const std::vector<std::int64_t>& outer, Channels& channels);

/// The channels on one axis: of its patch; of a patch over more axes, the channels that the others are united to; fixed
/// ones (`reason`) where there is no patch. The labels know them afterwards.
Line line_on(Labels& labels, std::int64_t axis, Channels& channels, const std::string& name,
             const std::string& reason);

/// The labels of a value computed element by element from two that are broadcast against each other. `shape`: the
/// result's, for one sample.
Labels combined(const Labels& a, const Labels& b, const model::Sizes& shape, Channels& channels);

/// The labels after the same elements in the same order have been given another shape.
Labels reshaped(const Labels& labels, const model::Sizes& shape, Channels& channels);

}  // namespace thalweg::symmetry
