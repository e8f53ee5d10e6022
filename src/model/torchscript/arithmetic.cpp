#include <torch/types.h>

#include <algorithm>
#include <cmath>

#include "translator.hpp"

namespace thalweg::model::torchscript {

namespace {

/// The shorter one gets axes of size 1 in front, as broadcasting does.
void pad_rank(View& view, std::size_t rank) {
    view.axes.insert(view.axes.begin(), rank - view.axes.size(), Ids{});
}

/// Repeats along whole axes are not needed where the other tensor has the extent.
void drop_repeats(View& view, const View& other) {
    for (std::size_t i = 0; i < view.axes.size(); ++i) {
        auto& ids = view.axes[i];
        const bool only =
            !ids.empty() && std::all_of(ids.begin(), ids.end(), [](int id) { return id <= -2; });
        const auto& theirs = other.axes[i];
        const bool real = std::any_of(theirs.begin(), theirs.end(), [](int id) { return id >= 0; });
        if (only && real) ids.clear();
    }
    // the numbers of the others move down
    Sizes kept;
    for (auto& ids : view.axes) {
        for (auto& id : ids) {
            if (id > -2) continue;
            kept.push_back(view.size(id));
            id = -1 - static_cast<int>(kept.size());
        }
    }
    view.repeats = std::move(kept);
}

/// Where an id stands: axis and place in it.
std::pair<std::size_t, std::size_t> place_of(const View& view, int id) {
    for (std::size_t axis = 0; axis < view.axes.size(); ++axis) {
        const auto found = std::find(view.axes[axis].begin(), view.axes[axis].end(), id);
        if (found != view.axes[axis].end())
            return {axis, static_cast<std::size_t>(found - view.axes[axis].begin())};
    }
    return {0, 0};
}

bool covers(const View& big, const View& small) {
    for (std::size_t i = 0; i < big.axes.size(); ++i) {
        const auto real = [](const Ids& ids) {
            return std::any_of(ids.begin(), ids.end(), [](int id) { return id >= 0; });
        };
        if (real(small.axes[i]) && !real(big.axes[i])) return false;
    }
    return true;
}

/// Factors of `view` for the groups of `lead`, axis by axis.
std::vector<Ids> like(const View& lead, const std::vector<Ids>& groups, const View& view) {
    std::vector<Ids> result;
    for (const auto& group : groups) {
        result.emplace_back();
        for (const int id : group) {
            const auto [axis, place] = place_of(lead, id);
            if (!view.axes[axis].empty()) result.back().push_back(view.axes[axis][place]);
        }
    }
    return result;
}

/// Groups in the order of the traced axes; of each axis by whoever has it.
std::vector<Ids> traced_groups(const View& view, const View& other) {
    std::vector<Ids> groups;
    for (std::size_t i = 0; i < view.axes.size(); ++i) {
        const auto& longer = view.axes[i].empty() ? other.axes[i] : view.axes[i];
        const auto count =
            std::count_if(longer.begin(), longer.end(), [](int id) { return id != View::batch; });
        std::vector<Ids> mine(static_cast<std::size_t>(count));
        std::size_t at = 0;
        for (const int id : view.axes[i]) {
            if (id != View::batch) mine[at++] = {id};
        }
        groups.insert(groups.end(), mine.begin(), mine.end());
    }
    return groups;
}

}  // namespace

Broadcast broadcast(Call& call, View first, View second) {
    auto& draft = call.draft();
    const auto rank = std::max(first.axes.size(), second.axes.size());
    pad_rank(first, rank);
    pad_rank(second, rank);
    drop_repeats(first, second);
    drop_repeats(second, first);
    first = solid(draft, first);
    second = solid(draft, second);
    for (std::size_t i = 0; i < rank; ++i) {
        if (first.axes[i].empty() || second.axes[i].empty()) continue;
        const bool batch_only = first.axes[i] == Ids{View::batch} || second.axes[i] == Ids{View::batch};
        if (batch_only && first.axes[i] != second.axes[i]) call.refuse_batch();
        if (!refine(first, i, second, i)) call.refuse_batch();
    }
    std::size_t batches = 0;
    for (std::size_t i = 0; i < rank; ++i) {
        const auto has = [&](const View& view) {
            return std::find(view.axes[i].begin(), view.axes[i].end(), View::batch) != view.axes[i].end();
        };
        batches += has(first) || has(second) ? 1 : 0;
    }
    if (batches > 1) call.refuse_batch();

    Broadcast result;
    const bool by_first = covers(first, second), by_second = covers(second, first);
    if (by_first || by_second) {
        const View& lead = by_first ? first : second;
        const View& other = by_first ? second : first;
        auto groups = storage_groups(draft, lead);
        // An axis of the lead's of which the other has a part only is divided.
        std::vector<Ids> divided;
        for (const auto& group : groups) {
            const auto theirs = like(lead, {group}, other)[0].size();
            if (theirs == 0 || theirs == group.size()) {
                divided.push_back(group);
            } else {
                for (const int id : group) divided.push_back({id});
            }
        }
        const auto theirs = arrange(draft, other, like(lead, divided, other));
        result.result = arrange(draft, lead, divided);
        result.first = by_first ? result.result.value : theirs.value;
        result.second = by_first ? theirs.value : result.result.value;
        // the batch may be the other's only
        for (std::size_t i = 0; i < rank; ++i) {
            if (result.result.axes[i].empty()) result.result.axes[i] = other.axes[i];
        }
        return result;
    }
    const auto a = arrange(draft, first, traced_groups(first, second));
    const auto b = arrange(draft, second, traced_groups(second, first));
    result.first = a.value;
    result.second = b.value;
    int id = 0;
    for (std::size_t i = 0; i < rank; ++i) {
        const View& longer = a.axes[i].empty() ? b : a;
        result.result.axes.emplace_back();
        for (const int theirs : longer.axes[i]) {
            result.result.axes.back().push_back(theirs == View::batch ? View::batch : id++);
            if (theirs != View::batch) result.result.factors.push_back(longer.size(theirs));
        }
    }
    return result;
}

namespace {

View combined(Call& call, const View& first, const View& second, OperationKind kind) {
    auto both = broadcast(call, first, second);
    both.result.value = call.draft().emit(std::move(kind), {both.first, both.second});
    return both.result;
}

}  // namespace

View add(Call& call, const View& first, const View& second, double factor) {
    return combined(call, first, second, Add{factor});
}

View multiply(Call& call, const View& first, const View& second) {
    return combined(call, first, second, Multiply{});
}

View scaled(Call& call, View view, double factor, double offset) {
    if (factor == 1.0 && offset == 0.0) return view;
    // A number after a number is one operation: 2x − 1.
    const auto* writer = call.draft().writer(view.value);
    if (const auto* before = writer == nullptr ? nullptr : std::get_if<Affine>(&writer->kind)) {
        offset += factor * before->offset;
        factor *= before->factor;
        view.value = writer->inputs[0];
    }
    view.value = call.draft().emit(Affine{factor, offset}, {view.value});
    return view;
}

namespace {

/// first + sign · alpha · second.
void sum(Call& call, double sign) {
    const auto alpha = sign * (call.is_none(2) ? 1.0 : call.number(2));
    if (const auto number = call.maybe_number(1)) {
        call.write(scaled(call, call.tensor(0), 1.0, alpha * *number));
    } else if (const auto first = call.maybe_number(0)) {
        call.write(scaled(call, call.tensor(1), alpha, *first));
    } else {
        call.write(add(call, call.tensor(0), call.tensor(1), alpha));
    }
}

void plus(Call& call) {
    sum(call, 1.0);
}
void minus(Call& call) {
    sum(call, -1.0);
}

/// other − alpha · self.
void reversed_minus(Call& call) {
    const auto alpha = call.is_none(2) ? 1.0 : call.number(2);
    if (const auto number = call.maybe_number(1)) {
        call.write(scaled(call, call.tensor(0), -alpha, *number));
    } else {
        call.write(add(call, call.tensor(1), call.tensor(0), -alpha));
    }
}

void times(Call& call) {
    if (const auto number = call.maybe_number(1)) {
        call.write(scaled(call, call.tensor(0), *number));
    } else if (const auto first = call.maybe_number(0)) {
        call.write(scaled(call, call.tensor(1), *first));
    } else {
        call.write(multiply(call, call.tensor(0), call.tensor(1)));
    }
}

void divided(Call& call) {
    if (!call.is_none(2)) call.refuse("only true division is supported, without rounding");
    if (const auto number = call.maybe_number(1)) {
        call.write(scaled(call, call.tensor(0), 1.0 / *number));
    } else {
        call.write(combined(call, call.tensor(0), call.tensor(1), Divide{}));
    }
}

void negative(Call& call) {
    call.write(scaled(call, call.tensor(0), -1.0));
}

void power(Call& call) {
    const auto exponent = call.number(1);
    const auto view = call.tensor(0);
    if (exponent != 2.0 && exponent != 1.0) call.refuse("only powers of 1 and 2 are supported");
    call.write(exponent == 1.0 ? view : multiply(call, view, view));
}

void square(Call& call) {
    const auto view = call.tensor(0);
    call.write(multiply(call, view, view));
}

/// Where a constant mask says so, a number instead of the value.
void masked_fill(Call& call) {
    const auto mask = call.maybe_constant(1);
    if (!mask) call.refuse("its mask depends on the input");
    const auto number = call.number(2);
    auto& draft = call.draft();
    const auto hidden = mask->to(at::kBool);
    auto result = call.tensor(0);
    if (std::isfinite(number)) {
        const auto gate = without_batch(draft, draft.constant(hidden.logical_not().to(at::kFloat)));
        result = multiply(call, result, gate);
    }
    const auto offset = at::zeros(mask->sizes(), at::kDouble).masked_fill(hidden, number);
    call.write(add(call, result, without_batch(draft, draft.constant(offset))));
}

void reduce(Call& call, bool mean) {
    auto& draft = call.draft();
    auto view = solid(draft, call.tensor(0));
    const auto rank = view.axes.size();
    // Without axes (the input, its type): over everything, the batch as well.
    const bool all = call.count() < 3 || call.is_none(1) || call.integers(1).empty();
    if (all) call.refuse_batch();
    const bool keep = call.flag(2);
    std::vector<bool> reduced(rank, false);
    Ids ids;
    for (const auto given : call.integers(1)) {
        const auto axis =
            static_cast<std::size_t>(given < 0 ? given + static_cast<std::int64_t>(rank) : given);
        if (axis >= rank) call.refuse("it has no axis " + std::to_string(given));
        if (view.extents()[axis].batch) call.refuse_batch();
        reduced[axis] = true;
        ids.insert(ids.end(), view.axes[axis].begin(), view.axes[axis].end());
    }
    // Groups that are reduced as a whole or not at all.
    std::vector<Ids> groups;
    for (const auto& range : storage_groups(draft, view)) {
        bool before = false;
        groups.emplace_back();
        for (const int id : range) {
            const bool goes = std::find(ids.begin(), ids.end(), id) != ids.end();
            if (!groups.back().empty() && goes != before) groups.emplace_back();
            groups.back().push_back(id);
            before = goes;
        }
    }
    const auto ordered = arrange(draft, view, groups);
    Reduce operation{{}, keep, mean};
    View result;
    std::vector<int> renamed(ordered.factors.size(), 0);
    int id = 0;
    for (std::size_t g = 0; g < groups.size(); ++g) {
        const bool goes = !groups[g].empty() && std::find(ids.begin(), ids.end(), groups[g][0]) != ids.end();
        if (goes) operation.axes.push_back(static_cast<std::int64_t>(g) + 1);
        for (std::size_t i = 0; i < groups[g].size(); ++i, ++id) {
            renamed[static_cast<std::size_t>(id)] = static_cast<int>(result.factors.size());
            if (!goes) result.factors.push_back(ordered.factors[static_cast<std::size_t>(id)]);
        }
    }
    result.value = operation.axes.empty() ? ordered.value : draft.emit(operation, {ordered.value});
    for (std::size_t axis = 0; axis < rank; ++axis) {
        if (reduced[axis]) {
            if (keep) result.axes.emplace_back();
            continue;
        }
        result.axes.push_back(ordered.axes[axis]);
        for (auto& other : result.axes.back()) {
            if (other >= 0) other = renamed[static_cast<std::size_t>(other)];
        }
    }
    call.write(std::move(result));
}

void mean(Call& call) {
    reduce(call, true);
}
void total(Call& call) {
    reduce(call, false);
}

void same(Call& call) {
    call.write(call.tensor(0));
}

void detached(Call& call) {
    if (!call.maybe_constant(0)) {
        call.refuse(
            "what comes before it would not be trained in Python, while every parameter is trained here. "
            "Leave it out, or make what comes before it a buffer");
    }
    same(call);
}

}  // namespace

void add_arithmetic(Table& table) {
    table["add"] = plus;
    table["sub"] = minus;
    table["subtract"] = minus;
    table["rsub"] = reversed_minus;
    table["mul"] = times;
    table["multiply"] = times;
    table["div"] = divided;
    table["divide"] = divided;
    table["true_divide"] = divided;
    table["neg"] = negative;
    table["pow"] = power;
    table["square"] = square;
    table["masked_fill"] = masked_fill;
    table["mean"] = mean;
    table["sum"] = total;
    table["detach"] = detached;
    for (const char* name : {"contiguous", "clone", "alias", "to", "type_as", "float", "long", "positive",
                             "lift_fresh", "_to_copy", "requires_grad"})
        table[name] = same;
}

}  // namespace thalweg::model::torchscript
