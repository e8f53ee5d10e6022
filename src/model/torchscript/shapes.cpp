// Views, and what takes tensors apart or puts them together.
#include <algorithm>
#include <numeric>

#include "translator.hpp"

namespace thalweg::model::torchscript {

namespace {

/// The result's extents say all: view, reshape, flatten, unflatten, squeeze, unsqueeze.
void reshape_call(Call& call) {
    View result;
    if (!reshape(call.draft(), call.tensor(0), call.extents(), result)) call.refuse_batch();
    call.write(std::move(result));
}

void transpose(Call& call) {
    auto view = call.tensor(0);
    std::swap(view.axes[call.axis(1, view.axes.size())], view.axes[call.axis(2, view.axes.size())]);
    call.write(std::move(view));
}

void matrix_transpose(Call& call) {
    auto view = call.tensor(0);
    if (view.axes.size() > 1) std::swap(view.axes[view.axes.size() - 2], view.axes.back());
    call.write(std::move(view));
}

void reverse(Call& call) {
    auto view = call.tensor(0);
    std::reverse(view.axes.begin(), view.axes.end());
    call.write(std::move(view));
}

void permute(Call& call) {
    auto view = call.tensor(0);
    const auto axes = view.axes;
    const auto order = call.integers(1);
    const auto rank = static_cast<std::int64_t>(axes.size());
    for (std::size_t i = 0; i < axes.size(); ++i)
        view.axes[i] = axes.at(static_cast<std::size_t>(order[i] < 0 ? order[i] + rank : order[i]));
    call.write(std::move(view));
}

void movedim(Call& call) {
    auto view = call.tensor(0);
    const auto axes = view.axes;
    const auto rank = static_cast<std::int64_t>(axes.size());
    const auto from = call.integers(1), to = call.integers(2);
    std::vector<bool> moved(axes.size(), false), filled(axes.size(), false);
    for (std::size_t i = 0; i < from.size(); ++i) {
        const auto source = static_cast<std::size_t>((from[i] + rank) % rank);
        const auto target = static_cast<std::size_t>((to[i] + rank) % rank);
        view.axes[target] = axes[source];
        moved[source] = filled[target] = true;
    }
    std::size_t next = 0;
    for (std::size_t source = 0; source < axes.size(); ++source) {
        if (moved[source]) continue;
        while (filled[next]) ++next;
        view.axes[next++] = axes[source];
    }
    call.write(std::move(view));
}

/// expand, expand_as, repeat: axes of size 1 that the result has more of.
void expand(Call& call) {
    auto view = call.tensor(0);
    const auto& extents = call.extents();
    view.axes.insert(view.axes.begin(), extents.size() - std::min(extents.size(), view.axes.size()), Ids{});
    const auto before = view.extents();
    for (std::size_t i = 0; i < extents.size(); ++i) {
        if (before[i] == extents[i]) continue;
        if (before[i] != Extent{}) call.refuse("it repeats an axis that has more than one element");
        if (extents[i].batch) {
            if (view.has_batch()) call.refuse_batch();
            view.axes[i].push_back(View::batch);
        }
        if (extents[i].count > 1) view.axes[i].push_back(view.add_repeat(extents[i].count));
    }
    call.write(std::move(view));
}

/// Elements start, start + step, … of a traced axis.
View sliced(Call& call, const View& given, std::size_t axis, std::int64_t start, std::int64_t count,
            std::int64_t step = 1) {
    auto& draft = call.draft();
    auto view = solid(draft, given);
    const auto extent = view.extents().at(axis);
    if (start == 0 && count == extent.count && step == 1) return view;
    if (extent.batch) call.refuse_batch();
    if (count < 1) call.refuse("nothing would be left");
    const Ids ids = view.axes[axis];
    // The outer part of an axis of the value's: neighbouring elements, whatever lies within.
    Slice slice{0, start, start + (count - 1) * step + 1, step};
    std::int64_t place = 0;
    bool found = false;
    for (const auto& group : storage_groups(draft, view)) {
        ++place;
        if (step != 1 || ids.empty() || group.size() < ids.size() ||
            !std::equal(ids.begin(), ids.end(), group.begin()))
            continue;
        const auto inner = view.size(group) / view.size(ids);
        slice = {place, start * inner, (start + count) * inner, 1};
        found = true;
        break;
    }
    if (!found) view = isolate(draft, view, axis, slice.axis);
    view.value = draft.slice(view.value, slice);
    // The axis' factors are one now, or none.
    const Ids now = view.axes[axis];
    if (now.empty()) return view;
    const int begin = now.front(), removed = static_cast<int>(now.size()) - (count > 1 ? 1 : 0);
    auto& factors = view.factors;
    factors.erase(factors.begin() + begin, factors.begin() + begin + static_cast<std::ptrdiff_t>(now.size()));
    if (count > 1) factors.insert(factors.begin() + begin, count);
    for (auto& other : view.axes) {
        for (auto& id : other) id -= id > begin ? removed : 0;
    }
    view.axes[axis].clear();
    if (count > 1) view.axes[axis].push_back(begin);
    return view;
}

View selected(Call& call, const View& view, std::size_t axis, std::int64_t index) {
    const auto extent = view.extents().at(axis);
    if (extent.batch) call.refuse_batch();
    auto result = sliced(call, view, axis, index < 0 ? index + extent.count : index, 1);
    result.axes.erase(result.axes.begin() + static_cast<std::ptrdiff_t>(axis));
    return result;
}

void slice(Call& call) {
    const auto view = call.tensor(0);
    const auto axis = call.axis(1, view.axes.size());
    const auto before = view.extents()[axis], after = call.extents().at(axis);
    if (before == after && call.integer_or(4, 1) == 1) return call.write(view);
    auto start = call.integer_or(2, 0);
    if (start < 0) start = std::max<std::int64_t>(start + before.count, 0);
    call.write(sliced(call, view, axis, start, after.count, call.integer_or(4, 1)));
}

void select(Call& call) {
    const auto view = call.tensor(0);
    call.write(selected(call, view, call.axis(1, view.axes.size()), call.integer(2)));
}

void narrow(Call& call) {
    const auto view = call.tensor(0);
    const auto axis = call.axis(1, view.axes.size());
    const auto start = call.integer(2);
    call.write(
        sliced(call, view, axis, start < 0 ? start + view.extents()[axis].count : start, call.integer(3)));
}

void parts(Call& call, std::size_t axis, const Sizes& sizes) {
    const auto view = call.tensor(0);
    std::vector<View> all;
    std::int64_t start = 0;
    for (const auto size : sizes) {
        all.push_back(sliced(call, view, axis, start, size));
        start += size;
    }
    call.write_list(std::move(all));
}

Sizes equal_parts(std::int64_t total, std::int64_t size) {
    Sizes sizes;
    for (std::int64_t start = 0; start < total; start += size) sizes.push_back(std::min(size, total - start));
    return sizes;
}

void chunk(Call& call) {
    const auto view = call.tensor(0);
    const auto axis = call.axis(2, view.axes.size());
    const auto total = view.extents()[axis].count, count = call.integer(1);
    parts(call, axis, equal_parts(total, (total + count - 1) / count));
}

/// split(x, size or sizes, axis).
void split(Call& call) {
    const auto view = call.tensor(0);
    const auto axis = call.is_none(2) ? 0 : call.axis(2, view.axes.size());
    const auto sizes = call.integers(1);
    const auto total = view.extents()[axis].count;
    const bool listed = std::accumulate(sizes.begin(), sizes.end(), std::int64_t{0}) == total;
    if (!listed && sizes.size() != 1) call.refuse("its sizes do not add up");
    parts(call, axis, listed ? sizes : equal_parts(total, sizes[0]));
}

void unbind(Call& call) {
    const auto view = call.tensor(0);
    const auto axis = call.is_none(1) ? 0 : call.axis(1, view.axes.size());
    std::vector<View> all;
    for (std::int64_t i = 0; i < view.extents()[axis].count; ++i)
        all.push_back(selected(call, view, axis, i));
    call.write_list(std::move(all));
}

/// Every view with axis `axis` as one of the value's axes and the others as the first has them.
void put_together(Call& call, std::vector<View> views, std::size_t axis) {
    auto& draft = call.draft();
    std::int64_t total = 0;
    for (auto& view : views) {
        view = solid(draft, view);
        if (view.axes.size() != views[0].axes.size())
            call.refuse("its tensors have different numbers of axes");
        if (view.extents().at(axis).batch) call.refuse_batch();
        total += view.extents()[axis].count;
    }
    const auto rank = views[0].axes.size();
    // Twice, since a later one may divide what an earlier one has whole.
    for (int round = 0; round < 2; ++round) {
        for (std::size_t k = 1; k < views.size(); ++k) {
            for (std::size_t i = 0; i < rank; ++i) {
                if (i != axis && !refine(views[0], i, views[k], i)) call.refuse_batch();
            }
        }
    }
    // The one that is most of a tensor leads: a parameter has no order of its own to keep.
    const auto lead =
        static_cast<std::size_t>(std::find_if(views.begin(), views.end(),
                                              [&](const View& view) {
                                                  const auto* writer = draft.writer(view.value);
                                                  return writer == nullptr || !writer->inputs.empty();
                                              }) -
                                 views.begin()) %
        views.size();
    std::int64_t place = 0;
    views[lead] = isolate(draft, views[lead], axis, place);
    const View leader = views[lead];
    const auto groups = storage_groups(draft, leader);
    std::vector<int> values;
    for (const auto& view : views) {
        std::vector<Ids> like;
        for (std::size_t g = 0; g < groups.size(); ++g) {
            like.emplace_back();
            if (static_cast<std::int64_t>(g) + 1 == place) {
                like.back() = view.axes[axis];
                continue;
            }
            for (const int id : groups[g]) {
                for (std::size_t i = 0; i < rank; ++i) {
                    const auto found = std::find(leader.axes[i].begin(), leader.axes[i].end(), id);
                    if (found != leader.axes[i].end())
                        like.back().push_back(
                            view.axes[i][static_cast<std::size_t>(found - leader.axes[i].begin())]);
                }
            }
        }
        values.push_back(arrange(draft, view, like).value);
    }
    View result;
    result.value = values.size() == 1 ? values[0] : draft.emit(Cat{place}, values);
    std::vector<int> renamed(leader.factors.size(), 0);
    int along = 0;
    for (std::size_t g = 0; g < groups.size(); ++g) {
        if (static_cast<std::int64_t>(g) + 1 == place) {
            along = static_cast<int>(result.factors.size());
            if (total > 1) result.factors.push_back(total);
            continue;
        }
        for (const int id : groups[g]) {
            renamed[static_cast<std::size_t>(id)] = static_cast<int>(result.factors.size());
            result.factors.push_back(leader.size(id));
        }
    }
    for (std::size_t i = 0; i < rank; ++i) {
        result.axes.push_back(leader.axes[i]);
        for (auto& id : result.axes.back()) {
            if (id >= 0) id = renamed[static_cast<std::size_t>(id)];
        }
    }
    result.axes[axis] = total > 1 ? Ids{along} : Ids{};
    call.write(std::move(result));
}

void cat(Call& call) {
    const auto views = call.tensors(0);
    if (views.empty()) call.refuse("it has no tensors");
    const auto axis = call.is_none(1) ? 0 : call.axis(1, views[0].axes.size());
    put_together(call, views, axis);
}

void stack(Call& call) {
    auto views = call.tensors(0);
    if (views.empty()) call.refuse("it has no tensors");
    const auto axis = call.is_none(1) ? 0 : call.axis(1, views[0].axes.size() + 1);
    for (auto& view : views) view.axes.insert(view.axes.begin() + static_cast<std::ptrdiff_t>(axis), Ids{});
    put_together(call, views, axis);
}

}  // namespace

void add_shapes(Table& table) {
    for (const char* name : {"view", "reshape", "_unsafe_view", "flatten", "unflatten", "squeeze",
                             "unsqueeze", "view_as", "reshape_as"})
        table[name] = reshape_call;
    for (const char* name : {"transpose", "swapaxes", "swapdims"}) table[name] = transpose;
    table["t"] = reverse;
    table["numpy_T"] = reverse;
    table["mT"] = matrix_transpose;
    table["matrix_H"] = matrix_transpose;
    table["permute"] = permute;
    table["movedim"] = movedim;
    table["moveaxis"] = movedim;
    for (const char* name : {"expand", "expand_as", "repeat", "broadcast_to"}) table[name] = expand;
    table["slice"] = slice;
    table["select"] = select;
    table["narrow"] = narrow;
    table["chunk"] = chunk;
    for (const char* name : {"split", "split_with_sizes", "unsafe_split"}) table[name] = split;
    table["unsafe_chunk"] = chunk;
    table["unbind"] = unbind;
    table["cat"] = cat;
    table["concat"] = cat;
    table["stack"] = stack;
}

}  // namespace thalweg::model::torchscript
