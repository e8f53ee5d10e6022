// Pools, upsampling and padding: what looks at the neighbours of a position.
#include <algorithm>
#include <cmath>

#include "translator.hpp"

namespace thalweg::model::torchscript {

namespace {

View image(Call& call, std::size_t rank) {
    View view;
    const auto given = call.tensor(0);
    if (given.axes.size() != rank + 2)
        call.refuse("it needs [batch, channels] and " + std::to_string(rank) + " spatial axes");
    if (!in_order(call.draft(), given, view))
        call.refuse("the batch is not its first axis, or is merged with another one");
    return view;
}

void finish(Call& call, OperationKind kind, const View& view) {
    call.write(plain(call.draft(), call.draft().emit(std::move(kind), {view.value})));
}

template <std::size_t rank>
void max_pool(Call& call) {
    MaxPool pool;
    pool.kernel = call.integers(1, rank);
    pool.stride = call.is_none(2) || call.integers(2).empty() ? pool.kernel : call.integers(2, rank);
    pool.padding = call.is_none(3) ? Sizes(rank, 0) : call.integers(3, rank);
    pool.dilation = call.is_none(4) ? Sizes(rank, 1) : call.integers(4, rank);
    pool.ceil = !call.is_none(5) && call.flag(5);
    finish(call, pool, image(call, rank));
}

template <std::size_t rank>
void avg_pool(Call& call) {
    AvgPool pool;
    pool.kernel = call.integers(1, rank);
    pool.stride = call.is_none(2) || call.integers(2).empty() ? pool.kernel : call.integers(2, rank);
    pool.padding = call.is_none(3) ? Sizes(rank, 0) : call.integers(3, rank);
    pool.ceil = !call.is_none(4) && call.flag(4);
    pool.count_padding = call.is_none(5) || call.flag(5);
    if (!call.is_none(6)) call.refuse("a divisor_override is not supported");
    finish(call, pool, image(call, rank));
}

template <std::size_t rank, bool max>
void adaptive_pool(Call& call) {
    AdaptivePool pool;
    pool.max = max;
    const auto& extents = call.extents();
    for (auto axis = extents.size() - rank; axis < extents.size(); ++axis)
        pool.output.push_back(extents[axis].count);
    finish(call, pool, image(call, rank));
}

/// `scales`: the input in which a factor or a list of factors may stand.
void upsample(Call& call, bool bilinear, std::size_t scales) {
    const auto view = image(call, 2);
    const auto& before = call.draft().shape(view.value);
    const auto& extents = call.extents();
    Upsample operation;
    operation.bilinear = bilinear;
    operation.align_corners = bilinear && call.flag(2);
    for (std::size_t i = 0; i < 2; ++i) {
        operation.size.push_back(extents[i + 2].count);
        // A given factor is used as it is to find positions, not the ratio of the sizes.
        if (call.is_none(scales)) continue;
        const auto ratio = static_cast<double>(operation.size[i]) / static_cast<double>(before[i + 1]);
        const auto factors = call.numbers(scales);
        const auto factor = factors.size() == 2        ? factors[i]
                            : call.is_none(scales + i) ? ratio
                                                       : call.number(scales + i);
        if (std::abs(factor - ratio) > 1e-9)
            call.refuse("its scale_factor does not give a whole number of positions; give the size instead");
    }
    finish(call, operation, view);
}

void upsample_nearest(Call& call) {
    upsample(call, false, 2);
}
void upsample_bilinear(Call& call) {
    upsample(call, true, 3);
}

void pad(Call& call, double value) {
    auto& draft = call.draft();
    auto view = solid(draft, call.tensor(0));
    const auto amounts = call.integers(1);
    const auto rank = view.axes.size();
    if (amounts.size() % 2 != 0 || amounts.size() / 2 > rank) call.refuse("it pads more axes than there are");
    // Where a padded axis is one of the value's own nothing has to be moved.
    auto stored = storage_groups(draft, view);
    bool fits = true;
    for (std::size_t i = 0; i < amounts.size(); ++i) {
        const auto axis = rank - 1 - i / 2;
        if (amounts[i] == 0) continue;
        if (view.extents()[axis].batch) call.refuse_batch();
        const auto& ids = view.axes[axis];
        fits = fits && !ids.empty() && std::find(stored.begin(), stored.end(), ids) != stored.end();
    }
    if (!fits) {
        View ordered;
        if (!in_order(draft, view, ordered))
            call.refuse("the batch is not its first axis, or is merged with another one");
        view = plain(draft, ordered.value);
        stored.clear();
        for (std::size_t axis = 1; axis < rank; ++axis) stored.push_back(view.axes[axis]);
    }
    Pad operation{Sizes(2 * stored.size(), 0), value};
    View result;
    result.axes = view.axes;
    std::vector<std::int64_t> sizes;
    for (const auto& group : stored) sizes.push_back(view.size(group));
    std::vector<bool> padded(stored.size(), false);
    for (std::size_t i = 0; i < amounts.size(); ++i) {
        if (amounts[i] == 0) continue;
        const auto axis = rank - 1 - i / 2;
        // in_order's axes stand one for one, so that an axis of size 1 is found too
        const auto place =
            fits ? static_cast<std::size_t>(std::find(stored.begin(), stored.end(), view.axes[axis]) -
                                            stored.begin())
                 : axis - 1;
        operation.amounts[2 * (stored.size() - 1 - place) + i % 2] = amounts[i];
        padded[place] = true;
        sizes[place] += amounts[i];
    }
    while (operation.amounts.size() > 2 && operation.amounts.back() == 0 &&
           operation.amounts[operation.amounts.size() - 2] == 0)
        operation.amounts.resize(operation.amounts.size() - 2);
    result.value = draft.emit(operation, {view.value});
    if (!fits) return call.write(plain(draft, result.value));
    // A padded axis is one factor now.
    std::vector<int> renamed(view.factors.size(), -1);
    for (std::size_t g = 0; g < stored.size(); ++g) {
        for (std::size_t i = 0; i < stored[g].size(); ++i) {
            if (padded[g] && (i > 0 || sizes[g] == 1)) continue;
            renamed[static_cast<std::size_t>(stored[g][i])] = static_cast<int>(result.factors.size());
            result.factors.push_back(padded[g] ? sizes[g] : view.size(stored[g][i]));
        }
    }
    for (auto& ids : result.axes) {
        Ids kept;
        for (const int id : ids) {
            const int now = id == View::batch ? id : renamed[static_cast<std::size_t>(id)];
            if (id == View::batch || now >= 0) kept.push_back(now);
        }
        ids = std::move(kept);
    }
    call.write(std::move(result));
}

void constant_pad(Call& call) {
    pad(call, call.is_none(2) ? 0.0 : call.number(2));
}

void any_pad(Call& call) {
    if (call.maybe_text(2).value_or("constant") != "constant")
        call.refuse("only padding with a constant is supported, not by " + *call.maybe_text(2));
    pad(call, call.is_none(3) ? 0.0 : call.number(3));
}

}  // namespace

void add_pools(Table& table) {
    table["max_pool1d"] = table["max_pool1d_with_indices"] = max_pool<1>;
    table["max_pool2d"] = table["max_pool2d_with_indices"] = max_pool<2>;
    table["max_pool3d"] = table["max_pool3d_with_indices"] = max_pool<3>;
    table["avg_pool1d"] = avg_pool<1>;
    table["avg_pool2d"] = avg_pool<2>;
    table["avg_pool3d"] = avg_pool<3>;
    table["adaptive_avg_pool1d"] = adaptive_pool<1, false>;
    table["adaptive_avg_pool2d"] = adaptive_pool<2, false>;
    table["adaptive_avg_pool3d"] = adaptive_pool<3, false>;
    table["adaptive_max_pool1d"] = adaptive_pool<1, true>;
    table["adaptive_max_pool2d"] = adaptive_pool<2, true>;
    table["adaptive_max_pool3d"] = adaptive_pool<3, true>;
    table["upsample_nearest2d"] = upsample_nearest;
    table["upsample_bilinear2d"] = upsample_bilinear;
    table["constant_pad_nd"] = constant_pad;
    table["pad"] = any_pad;
}

}  // namespace thalweg::model::torchscript
