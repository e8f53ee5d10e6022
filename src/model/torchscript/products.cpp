#include <torch/types.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "translator.hpp"

namespace thalweg::model::torchscript {

namespace {

bool holds_batch(const Ids& ids) {
    return std::find(ids.begin(), ids.end(), View::batch) != ids.end();
}

Ids samples(const Ids& ids) {
    Ids kept;
    for (const int id : ids) {
        if (id != View::batch) kept.push_back(id);
    }
    return kept;
}

/// The factors of the leading axes one by one; where only the other tensor has some, as many empty groups.
std::vector<Ids> leading_groups(const View& view, const View& other, std::size_t leading) {
    std::vector<Ids> groups;
    for (std::size_t i = 0; i < leading; ++i) {
        const auto mine = samples(view.axes[i]), theirs = samples(other.axes[i]);
        for (std::size_t k = 0; k < std::max(mine.size(), theirs.size()); ++k)
            groups.push_back(mine.empty() ? Ids{} : Ids{mine[k]});
    }
    return groups;
}

}  // namespace

View matmul(Call& call, View first, View second) {
    auto& draft = call.draft();
    first = solid(draft, first);
    second = solid(draft, second);
    if (first.axes.empty() || second.axes.empty()) call.refuse("it multiplies by a single number");
    const bool row = first.axes.size() == 1, column = second.axes.size() == 1;
    if (row) first.axes.insert(first.axes.begin(), Ids{});
    if (column) second.axes.emplace_back();
    const auto rank = std::max(first.axes.size(), second.axes.size());
    first.axes.insert(first.axes.begin(), rank - first.axes.size(), Ids{});
    second.axes.insert(second.axes.begin(), rank - second.axes.size(), Ids{});
    const auto leading = rank - 2;
    // [.., I, K] and [.., K, J]: the batch is a leading axis of either or both, or the I or J of one when the other has
    // none.
    std::size_t batches = 0;
    for (std::size_t i = 0; i < leading; ++i) {
        if (!first.axes[i].empty() && !second.axes[i].empty() && !refine(first, i, second, i))
            call.refuse_batch();
        batches += holds_batch(first.axes[i]) || holds_batch(second.axes[i]) ? 1 : 0;
    }
    batches += (holds_batch(first.axes[rank - 2]) ? 1U : 0U) + (holds_batch(second.axes[rank - 1]) ? 1U : 0U);
    if (batches > 1 || holds_batch(first.axes[rank - 1]) || holds_batch(second.axes[rank - 2]))
        call.refuse_batch();

    auto groups_first = leading_groups(first, second, leading);
    auto groups_second = leading_groups(second, first, leading);
    const auto shared = groups_first.size();
    groups_first.push_back(samples(first.axes[rank - 2]));
    groups_first.push_back(first.axes[rank - 1]);
    groups_second.push_back(second.axes[rank - 2]);
    groups_second.push_back(samples(second.axes[rank - 1]));
    first = arrange(draft, first, groups_first);
    second = arrange(draft, second, groups_second);

    View result;
    result.value = draft.emit(MatMul{}, {first.value, second.value});
    const auto& shape = draft.shape(result.value);
    std::size_t place = 0;
    const auto take = [&](const View& view, const Ids& ids) {
        Ids taken;
        for (const int id : ids) {
            taken.push_back(id);
            if (id == View::batch) continue;
            taken.back() = static_cast<int>(result.factors.size());
            result.factors.push_back(view.size(id));
        }
        return taken;
    };
    for (std::size_t i = 0; i < leading; ++i) {
        const View& longer = samples(first.axes[i]).empty() ? second : first;
        result.axes.push_back(take(longer, longer.axes[i]));
        if (!holds_batch(result.axes.back()) && (holds_batch(first.axes[i]) || holds_batch(second.axes[i])))
            result.axes.back().insert(result.axes.back().begin(), View::batch);
        place += samples(longer.axes[i]).size();
    }
    if (place != shared || shape.size() != shared + 2) call.refuse("its axes do not fit");
    result.axes.push_back(take(first, first.axes[rank - 2]));
    result.axes.push_back(take(second, second.axes[rank - 1]));
    if (column) result.axes.pop_back();
    if (row) result.axes.erase(result.axes.end() - (column ? 1 : 2));
    return result;
}

namespace {

/// The weight [out, in] when the second factor is its transpose.
View product(Call& call, std::size_t first, std::size_t second) {
    const int weight = call.state(second, true);
    const auto view = call.tensor(first);
    if (weight >= 0 && !view.axes.empty()) return linear(call, view, weight, -1);
    return matmul(call, view, call.tensor(second));
}

void matmul_call(Call& call) {
    call.write(product(call, 0, 1));
}

/// beta · input + alpha · first · second.
void add_product(Call& call) {
    const auto beta = call.is_none(3) ? 1.0 : call.number(3), alpha = call.is_none(4) ? 1.0 : call.number(4);
    const int weight = call.state(2, true), bias = call.state(0);
    if (weight >= 0 && bias >= 0 && beta == 1.0 && alpha == 1.0 &&
        call.draft().state().tensors[static_cast<std::size_t>(bias)].tensor.dim() == 1) {
        return call.write(linear(call, call.tensor(1), weight, call.parameter(0, "bias")));
    }
    auto result = scaled(call, product(call, 1, 2), alpha);
    if (beta != 0.0) result = add(call, result, call.tensor(0), beta);
    call.write(std::move(result));
}

View transposed(View view) {
    std::swap(view.axes[view.axes.size() - 1], view.axes[view.axes.size() - 2]);
    return view;
}

/// What is added to the scores: the mask, and minus infinity where a position lies ahead.
std::optional<View> score_offsets(Call& call, std::int64_t queries, std::int64_t keys) {
    auto& draft = call.draft();
    if (call.flag(5)) {
        const auto later = at::ones({queries, keys}, at::kBool).triu(1);
        const auto offset = at::zeros({queries, keys}, at::kFloat)
                                .masked_fill(later, -std::numeric_limits<double>::infinity());
        return without_batch(draft, draft.constant(offset));
    }
    if (call.is_none(3)) return {};
    if (const auto mask = call.maybe_constant(3); mask && mask->scalar_type() == at::kBool) {
        const auto offset = at::zeros(mask->sizes(), at::kFloat)
                                .masked_fill(mask->logical_not(), -std::numeric_limits<double>::infinity());
        return without_batch(draft, draft.constant(offset));
    }
    return call.tensor(3);
}

/// scaled_dot_product_attention(queries, keys, values, mask, dropout, causal, scale, gqa): [N, heads, T, E].
void attention(Call& call) {
    auto& draft = call.draft();
    const auto q = solid(draft, call.tensor(0)), k = solid(draft, call.tensor(1)),
               v = solid(draft, call.tensor(2));
    if (!call.is_none(7) && call.flag(7)) call.refuse("grouped queries (enable_gqa) are not supported");
    const auto rank = q.axes.size();
    if (rank < 3 || k.axes.size() != rank || v.axes.size() != rank)
        call.refuse("it needs [N, …, positions, features]");
    const auto features = static_cast<double>(q.size(q.axes[rank - 1]));
    const auto scale = call.is_none(6) ? 1.0 / std::sqrt(features) : call.number(6);
    const auto p = call.is_none(4) ? 0.0 : call.number(4);
    const auto batch_first = [](const View& view) { return view.axes[0] == Ids{View::batch}; };
    const bool fused = rank == 4 && call.is_none(3) && p == 0.0 && call.is_none(6) && batch_first(q) &&
                       batch_first(k) && batch_first(v) && q.extents()[1] == k.extents()[1] &&
                       q.extents()[1] == v.extents()[1] && q.extents()[3] == v.extents()[3];
    if (fused) {
        const auto together = [&](const View& view) {
            Ids channels = view.axes[1];
            channels.insert(channels.end(), view.axes[3].begin(), view.axes[3].end());
            return arrange(draft, view, {view.axes[2], channels}).value;
        };
        const int value = draft.emit(Attention{q.extents()[1].count, call.flag(5)},
                                     {together(q), together(k), together(v)});
        const auto& extents = call.extents();
        View result;
        const Extents merged{
            {1, true}, {extents[2].count, false}, {extents[1].count, false}, {extents[3].count, false}};
        if (!reshape(draft, plain(draft, value), merged, result)) call.refuse("its axes do not fit");
        std::swap(result.axes[1], result.axes[2]);
        return call.write(std::move(result));
    }
    auto scores = scaled(call, matmul(call, q, transposed(k)), scale);
    if (const auto offsets = score_offsets(call, q.size(q.axes[rank - 2]), k.size(k.axes[rank - 2])))
        scores = add(call, scores, *offsets);
    Softmax softmax;
    scores = isolate(draft, scores, scores.axes.size() - 1, softmax.axis);
    scores.value = draft.emit(softmax, {scores.value});
    if (p > 0.0) scores.value = draft.emit(Dropout{p}, {scores.value});
    call.write(matmul(call, scores, v));
}

}  // namespace

void add_products(Table& table) {
    for (const char* name : {"matmul", "mm", "bmm", "mv"}) table[name] = matmul_call;
    table["addmm"] = add_product;
    table["baddbmm"] = add_product;
    table["scaled_dot_product_attention"] = attention;
}

}  // namespace thalweg::model::torchscript
