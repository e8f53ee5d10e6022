#include "view.hpp"

#include <algorithm>
#include <functional>
#include <numeric>

namespace thalweg::model::torchscript {

std::int64_t View::size(int id) const {
    if (id == batch) return 1;
    return id >= 0 ? factors.at(static_cast<std::size_t>(id)) : repeats.at(static_cast<std::size_t>(-2 - id));
}

std::int64_t View::size(const Ids& ids) const {
    std::int64_t product = 1;
    for (const int id : ids) product *= size(id);
    return product;
}

Extents View::extents() const {
    Extents extents;
    for (const auto& ids : axes)
        extents.push_back({size(ids), std::find(ids.begin(), ids.end(), batch) != ids.end()});
    return extents;
}

bool View::has_batch() const {
    const auto all = extents();
    return std::any_of(all.begin(), all.end(), [](const Extent& extent) { return extent.batch; });
}

int View::add_repeat(std::int64_t count) {
    repeats.push_back(count);
    return -1 - static_cast<int>(repeats.size());
}

void View::split(int id, std::int64_t outer) {
    auto& factor = factors.at(static_cast<std::size_t>(id));
    const auto inner = factor / outer;
    factor = outer;
    factors.insert(factors.begin() + id + 1, inner);
    for (auto& ids : axes) {
        Ids changed;
        for (const int other : ids) {
            changed.push_back(other > id ? other + 1 : other);
            if (other == id) changed.push_back(id + 1);
        }
        ids = std::move(changed);
    }
}

View plain(const Draft& draft, int value) {
    View view = without_batch(draft, value);
    view.axes.insert(view.axes.begin(), Ids{View::batch});
    return view;
}

View without_batch(const Draft& draft, int value) {
    View view;
    view.value = value;
    for (const auto extent : draft.shape(value)) {
        view.axes.emplace_back();
        if (extent == 1) continue;
        view.axes.back().push_back(static_cast<int>(view.factors.size()));
        view.factors.push_back(extent);
    }
    return view;
}

namespace {

/// The ids of each of the value's axes, empty for axes of size 1.
std::vector<Ids> ranges(const Draft& draft, const View& view) {
    std::vector<Ids> all;
    int id = 0;
    for (const auto extent : draft.shape(view.value)) {
        all.emplace_back();
        for (std::int64_t covered = 1; covered < extent; ++id) {
            covered *= view.size(id);
            all.back().push_back(id);
        }
    }
    return all;
}

/// A permutation of the value's own axes that gives `groups`, if there is one.
bool direct_order(const Draft& draft, const View& view, const std::vector<Ids>& groups, Sizes& order) {
    const auto stored = ranges(draft, view);
    if (stored.size() != groups.size()) return false;
    std::vector<bool> taken(stored.size(), false);
    order = {0};
    for (const auto& group : groups) {
        std::size_t i = 0;
        while (i < stored.size() && (taken[i] || stored[i] != group)) ++i;
        if (i == stored.size()) return false;
        taken[i] = true;
        order.push_back(static_cast<std::int64_t>(i) + 1);
    }
    return true;
}

/// A value whose axes are `groups` of factors (no repeats).
int rearranged(Draft& draft, const View& view, const std::vector<Ids>& groups) {
    Ids order;
    Sizes target;
    for (const auto& group : groups) {
        order.insert(order.end(), group.begin(), group.end());
        target.push_back(view.size(group));
    }
    if (std::is_sorted(order.begin(), order.end())) return draft.reshape(view.value, target);
    Sizes direct;
    if (direct_order(draft, view, groups, direct)) return draft.permute(view.value, direct);

    // Neighbours that stay neighbours move as one axis, cut where the result's axes end.
    std::vector<Ids> blocks;
    for (const auto& group : groups) {
        for (std::size_t i = 0; i < group.size(); ++i) {
            if (i > 0 && group[i] == group[i - 1] + 1) {
                blocks.back().push_back(group[i]);
            } else {
                blocks.push_back({group[i]});
            }
        }
    }
    std::vector<std::size_t> by_place(blocks.size());
    std::iota(by_place.begin(), by_place.end(), std::size_t{0});
    std::sort(by_place.begin(), by_place.end(),
              [&](std::size_t a, std::size_t b) { return blocks[a].front() < blocks[b].front(); });
    Sizes stored, permutation(blocks.size() + 1, 0);
    for (std::size_t place = 0; place < by_place.size(); ++place) {
        stored.push_back(view.size(blocks[by_place[place]]));
        permutation[by_place[place] + 1] = static_cast<std::int64_t>(place) + 1;
    }
    return draft.reshape(draft.permute(draft.reshape(view.value, stored), permutation), target);
}

}  // namespace

View arrange(Draft& draft, const View& view, const std::vector<Ids>& groups) {
    std::vector<Ids> kept, fine;
    Sizes target;
    bool repeats = false, mixed = false;
    for (const auto& group : groups) {
        target.push_back(view.size(group));
        Ids real;
        for (const int id : group) {
            fine.push_back({id});
            if (id >= 0) real.push_back(id);
        }
        repeats = repeats || real.size() != group.size();
        mixed = mixed || (!real.empty() && real.size() != group.size());
        kept.push_back(std::move(real));
    }
    View result;
    if (mixed) {
        result = arrange(draft, view, fine);
        result.value = draft.reshape(result.value, target);
        return result;
    }
    result.value = rearranged(draft, view, kept);
    if (repeats) result.value = draft.expand(result.value, target);

    std::vector<std::pair<int, int>> renamed;
    for (const auto& ids : fine) {
        renamed.emplace_back(ids[0], static_cast<int>(result.factors.size()));
        result.factors.push_back(view.size(ids[0]));
    }
    for (const auto& axis : view.axes) {
        result.axes.emplace_back();
        for (const int id : axis) {
            const auto found = std::find_if(renamed.begin(), renamed.end(),
                                            [&](const auto& pair) { return pair.first == id; });
            result.axes.back().push_back(found == renamed.end() ? id : found->second);
        }
    }
    return result;
}

View solid(Draft& draft, const View& view) {
    if (view.repeats.empty()) return view;
    // Repeats go where the traced axes have them: behind the id that stands before them.
    std::vector<Ids> groups = storage_groups(draft, view);
    for (const auto& axis : view.axes) {
        int before = View::batch;
        for (const int id : axis) {
            if (id <= -2) {
                auto at = groups.begin();
                if (before != View::batch) {
                    at = std::find_if(groups.begin(), groups.end(), [&](const Ids& group) {
                        return std::find(group.begin(), group.end(), before) != group.end();
                    });
                    if (at != groups.end()) ++at;
                }
                groups.insert(at, Ids{id});
            }
            before = id;
        }
    }
    return arrange(draft, view, groups);
}

std::vector<Ids> storage_groups(const Draft& draft, const View& view, const Ids& without) {
    std::vector<Ids> groups;
    for (const auto& range : ranges(draft, view)) {
        Ids kept;
        for (const int id : range) {
            if (std::find(without.begin(), without.end(), id) == without.end()) kept.push_back(id);
        }
        if (!kept.empty() || range.empty()) groups.push_back(std::move(kept));
    }
    return groups;
}

View isolate(Draft& draft, const View& given, std::size_t axis, std::int64_t& place) {
    const View view = solid(draft, given);
    const auto& ids = view.axes.at(axis);
    auto groups = storage_groups(draft, view, ids);
    if (ids.empty()) {
        // where the traced axes have it: before the next one's elements, if those begin an axis of the value's
        auto at = groups.end();
        for (auto next = axis + 1; next < view.axes.size() && at == groups.end(); ++next) {
            const auto& after = view.axes[next];
            if (after.empty() || after[0] == View::batch) continue;
            at = std::find_if(groups.begin(), groups.end(),
                              [&](const Ids& group) { return !group.empty() && group[0] == after[0]; });
            break;
        }
        place = at - groups.begin() + 1;
        groups.insert(at, Ids{});
        return arrange(draft, view, groups);
    }
    bool neighbours = true;
    for (std::size_t i = 1; i < ids.size(); ++i) neighbours = neighbours && ids[i] == ids[i - 1] + 1;
    if (neighbours) {
        groups.clear();
        for (const auto& range : ranges(draft, view)) {
            Ids before, after;
            bool inside = false;
            for (const int id : range) {
                if (id < ids.front()) before.push_back(id);
                if (id > ids.back()) after.push_back(id);
                inside = inside || id == ids.front();
            }
            if (!before.empty() || range.empty()) groups.push_back(before);
            if (inside) {
                groups.push_back(ids);
                place = static_cast<std::int64_t>(groups.size());
            }
            if (!after.empty()) groups.push_back(after);
        }
    } else {
        groups.push_back(ids);
        place = static_cast<std::int64_t>(groups.size());
    }
    return arrange(draft, view, groups);
}

bool in_order(Draft& draft, const View& view, View& result) {
    if (view.axes.empty() || view.axes[0] != Ids{View::batch}) return false;
    result = arrange(draft, view, {view.axes.begin() + 1, view.axes.end()});
    return true;
}

namespace {

/// Takes ids from `rest` (from `next` on) until they make up `extent`.
bool take(View& view, Ids& rest, std::size_t& next, const Extent& extent, Ids& taken) {
    auto count = extent.count;
    bool batch = extent.batch;
    while (count > 1 || batch) {
        if (next >= rest.size()) return false;
        const int id = rest[next];
        if (id == View::batch) {
            if (!batch) return false;
            batch = false;
        } else {
            const auto size = view.size(id);
            if (count % size != 0) {
                if (count <= 1 || size % count != 0 || id < 0) return false;
                view.split(id, count);
                for (auto& other : rest) other += other > id ? 1 : 0;
                for (auto& other : taken) other += other > id ? 1 : 0;
                rest.insert(rest.begin() + static_cast<std::ptrdiff_t>(next) + 1, id + 1);
                count = 1;
            } else {
                count /= size;
            }
        }
        taken.push_back(rest[next++]);
    }
    return true;
}

}  // namespace

bool reshape(Draft& draft, const View& given, const Extents& extents, View& result) {
    const View view = solid(draft, given);
    result = view;
    Ids rest;
    for (const auto& axis : view.axes) rest.insert(rest.end(), axis.begin(), axis.end());
    std::vector<Ids> axes;
    std::size_t next = 0;
    bool fits = true;
    for (const auto& extent : extents) {
        axes.emplace_back();
        const auto factors = result.factors.size();
        fits = fits && take(result, rest, next, extent, axes.back());
        if (!fits) break;
        // ids behind a factor that was divided have moved
        if (result.factors.size() != factors) {
            std::size_t at = 0;
            for (auto& ids : axes) {
                for (auto& id : ids) id = rest[at++];
            }
        }
    }
    if (fits && next == rest.size()) {
        result.axes = std::move(axes);
        return true;
    }
    // Sizes that do not divide: the elements are put in order and counted anew.
    const bool batch_first = !extents.empty() && extents[0] == Extent{1, true};
    View ordered;
    if (!batch_first || !in_order(draft, view, ordered)) return false;
    Sizes shape;
    for (std::size_t i = 1; i < extents.size(); ++i) {
        if (extents[i].batch) return false;
        shape.push_back(extents[i].count);
    }
    result = plain(draft, draft.reshape(ordered.value, shape));
    return true;
}

bool refine(View& first, std::size_t a, View& second, std::size_t b) {
    for (std::size_t i = 0;; ++i) {
        const auto &ids_a = first.axes.at(a), &ids_b = second.axes.at(b);
        if (i == ids_a.size() || i == ids_b.size()) return ids_a.size() == ids_b.size();
        const int id_a = ids_a[i], id_b = ids_b[i];
        if (id_a == View::batch || id_b == View::batch) {
            if (id_a != id_b) return false;
            continue;
        }
        const auto size_a = first.size(id_a), size_b = second.size(id_b);
        if (size_a == size_b) continue;
        if (size_a % size_b == 0 && id_a >= 0) {
            first.split(id_a, size_b);
        } else if (size_b % size_a == 0 && id_b >= 0) {
            second.split(id_b, size_a);
        } else {
            return false;
        }
    }
}

}  // namespace thalweg::model::torchscript
