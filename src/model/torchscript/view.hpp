#pragma once

#include <cstdint>
#include <vector>

#include "draft.hpp"

namespace thalweg::model::torchscript {

using Ids = std::vector<int>;

/// A traced tensor as a rearrangement of a value of the graph, whose own axis 0 is always the batch. The value's other
/// elements are counted by `factors` in row-major order (a refinement of its shape; all above 1), and each traced axis
/// runs over some of them, outermost first. So transposes and views only change this mapping, and the batch may be any
/// traced axis or be merged with others.
struct View {
    /// The batch as an id.
    static constexpr int batch = -1;

    int value = 0;
    Sizes factors;  ///< of ids 0, 1, …
    Sizes repeats;  ///< of ids −2, −3, …: axes along which the value is repeated
    std::vector<Ids> axes;

    std::int64_t size(int id) const;
    /// Product over ids, the batch left out.
    std::int64_t size(const Ids& ids) const;
    Extents extents() const;
    bool has_batch() const;
    int add_repeat(std::int64_t count);
    /// Divides factor `id` into `outer` and the rest.
    void split(int id, std::int64_t outer);
};

/// The value with its axes in the order it has: sample axis i is traced axis i + 1, the batch traced axis 0.
View plain(const Draft& draft, int value);
/// A value without the batch (a parameter or constant), all of whose axes are traced ones.
View without_batch(const Draft& draft, int value);

/// Same tensor, with a value whose sample axes are exactly `groups`, which hold every factor and repeat once.
View arrange(Draft& draft, const View& view, const std::vector<Ids>& groups);
/// Same tensor without repeats.
View solid(Draft& draft, const View& view);
/// The value's own axes as groups of ids, those in `without` left out; axes that held nothing else are dropped.
std::vector<Ids> storage_groups(const Draft& draft, const View& view, const Ids& without = {});
/// Same tensor with traced axis `axis` (no batch in it) as one axis of the value; `place` becomes its number there,
/// counted with the batch.
View isolate(Draft& draft, const View& view, std::size_t axis, std::int64_t& place);
/// The traced axes in their order as the value's, the first being the batch alone; false when it is not.
bool in_order(Draft& draft, const View& view, View& result);

/// The same elements seen with other extents, as torch.Tensor.reshape. False when the batch would have to be torn apart.
bool reshape(Draft& draft, const View& view, const Extents& extents, View& result);
/// Divides factors until axis `a` of `first` and axis `b` of `second` run over factors of the same sizes. False when
/// they cannot.
bool refine(View& first, std::size_t a, View& second, std::size_t b);

}  // namespace thalweg::model::torchscript
