// Operations on [N, T, E]: products, attention, embedding, LSTM; and dropout.
#include <cmath>
#include <limits>

#include "operation_cases.hpp"
#include "thalweg/core/random.hpp"

namespace thalweg::model::test {

namespace {

/// Head by head and position by position: a position's mixture of the values it may see.
at::Tensor attended(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, std::int64_t heads,
                    bool causal) {
    const auto width = q.size(2) / heads, value_width = v.size(2) / heads;
    auto out = at::empty({q.size(0), q.size(1), v.size(2)}, q.options());
    for (std::int64_t head = 0; head < heads; ++head) {
        for (std::int64_t t = 0; t < q.size(1); ++t) {
            const auto seen = causal ? t + 1 : k.size(1);
            const auto query = q.narrow(2, head * width, width).narrow(1, t, 1);
            const auto keys = k.narrow(2, head * width, width).narrow(1, 0, seen);
            const auto values = v.narrow(2, head * value_width, value_width).narrow(1, 0, seen);
            const auto scores = (query * keys).sum(2, true) / std::sqrt(static_cast<double>(width));
            const auto shares = scores.exp() / scores.exp().sum(1, true);
            out.narrow(2, head * value_width, value_width).select(1, t).copy_((shares * values).sum(1));
        }
    }
    return out;
}

void append_attention(std::vector<OperationCase>& all) {
    for (const bool causal : {false, true}) {
        for (const std::int64_t heads : {1, 3}) {
            all.push_back({"attention_" + std::to_string(heads) + (causal ? "_causal" : ""),
                           {4, 15},
                           [=](GraphBuilder& b, int x) {
                               b.attention(b.slice(x, 2, 0, 6), b.slice(x, 2, 6, 12), b.slice(x, 2, 12, 15),
                                           heads, causal);
                           },
                           [=](const Given& g) {
                               return attended(g.x.narrow(2, 0, 6), g.x.narrow(2, 6, 6), g.x.narrow(2, 12, 3),
                                               heads, causal);
                           }});
        }
    }
    // Queries that are the same for every sample, and fewer than the keys.
    all.push_back({"attention_from_parameters",
                   {4, 6},
                   [](GraphBuilder& b, int x) {
                       const int queries = b.parameter("queries", {2, 6}, {2, 6}, {Initial::Kind::normal, 1});
                       b.attention(queries, x, x, 2, false);
                   },
                   [](const Given& g) {
                       const auto queries = g.entry("queries").expand({g.x.size(0), 2, 6});
                       return attended(queries, g.x, g.x, 2, false);
                   }});
    all.push_back({"matmul",
                   {2, 3, 4},
                   [](GraphBuilder& b, int x) {
                       b.append("", MatMul{}, {x, b.permute(b.slice(x, 1, 1, 2), {0, 1, 3, 2})});
                   },
                   [](const Given& g) {
                       const auto other = g.x.narrow(1, 1, 1);  // broadcast over axis 1
                       return (g.x.unsqueeze(3) * other.unsqueeze(2)).sum(4);
                   }});
}

at::Tensor gated(const at::Tensor& x) {
    return 1 / (1 + (-x).exp());
}

/// One step after another.
at::Tensor long_short_term(const at::Tensor& x, const at::Tensor& from_input, const at::Tensor& from_hidden,
                           const at::Tensor& bias) {
    const auto hidden = from_hidden.size(1);
    auto h = at::zeros({x.size(0), hidden}, x.options()), c = h;
    std::vector<at::Tensor> outputs;
    for (std::int64_t t = 0; t < x.size(1); ++t) {
        const auto gates = at::matmul(x.select(1, t), from_input.t()) + at::matmul(h, from_hidden.t()) + bias;
        const auto gate = [&](std::int64_t number) { return gates.narrow(1, number * hidden, hidden); };
        c = gated(gate(1)) * c + gated(gate(0)) * gate(2).tanh();
        h = gated(gate(3)) * c.tanh();
        outputs.push_back(h);
    }
    return at::stack(outputs, 1);
}

void append_recurrent(std::vector<OperationCase>& all) {
    all.push_back({"embedding",
                   {4},
                   [](GraphBuilder& b, int x) { b.embedding("embedding", x, 7, 3); },
                   [](const Given& g) {
                       const auto one_hot =
                           (g.x.unsqueeze(2) == at::arange(7, g.x.options())).to(at::kDouble);
                       return at::matmul(one_hot, g.entry("embedding.weight"));
                   },
                   Mode::evaluate,
                   7});
    all.push_back({"lstm",
                   {4, 3},
                   [](GraphBuilder& b, int x) { b.lstm("lstm", x, 5); },
                   [](const Given& g) {
                       return long_short_term(g.x, g.entry("lstm.weight_ih_l0"), g.entry("lstm.weight_hh_l0"),
                                              g.entry("lstm.bias_ih_l0") + g.entry("lstm.bias_hh_l0"));
                   },
                   Mode::train});
    all.push_back({"lstm_without_bias",
                   {3, 2},
                   [](GraphBuilder& b, int x) {
                       Lstm lstm;
                       lstm.weight_input = weight(b, "input", {8, 2});
                       lstm.weight_hidden = weight(b, "hidden", {8, 2});
                       b.append("lstm", lstm, {x});
                   },
                   [](const Given& g) {
                       return long_short_term(g.x, g.entry("input"), g.entry("hidden"),
                                              at::zeros({8}, g.x.options()));
                   }});
}

void append_dropout(std::vector<OperationCase>& all) {
    const auto append = [](GraphBuilder& b, int x) { b.dropout(x, 0.3); };
    all.push_back({"dropout_in_evaluation", {3, 4}, append, [](const Given& g) { return g.x; }});
    all.push_back({"dropout_in_training",
                   {3, 4},
                   append,
                   [](const Given& g) {
                       core::Random random(5, "operation test");
                       auto out = g.x.clone();
                       auto* value = out.data_ptr<double>();
                       for (std::int64_t i = 0; i < out.numel(); ++i)
                           value[i] *= random.uniform() < 0.3 ? 0.0 : static_cast<float>(1 / 0.7);
                       return out;
                   },
                   Mode::train});
}

}  // namespace

std::vector<OperationCase> sequence_cases() {
    std::vector<OperationCase> all;
    append_attention(all);
    append_recurrent(all);
    append_dropout(all);
    return all;
}

}  // namespace thalweg::model::test
