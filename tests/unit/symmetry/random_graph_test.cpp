// Graphs that nobody would write, with the proof as the oracle: whatever is derived from them must be a symmetry.
#include <gtest/gtest.h>
#include <torch/types.h>

#include <sstream>

#include "thalweg/symmetry/gauge.hpp"
#include "thalweg/symmetry/symmetry.hpp"

namespace thalweg::symmetry::random_graph_test {
namespace {

using model::ActivationKind;
using model::GraphBuilder;

/// Appends one random operation after another to values of one axis, at times by way of a matrix.
class RandomGraph {
  public:
    explicit RandomGraph(std::uint64_t seed) : random_(seed, "random graph"), builder_({5}) {
        add(builder_.linear(name(), 0, 8), "linear 8");
        add(builder_.linear(name(), 0, 6), "linear 6");
        for (int i = 0; i < 14; ++i) append();
    }

    model::ModelGraph graph() && {
        // All that was left lying about is read by the last layer.
        const std::vector<int> ends(values_.end() - 3, values_.end());
        builder_.linear("classifier", builder_.cat(ends, 1), 3);
        return std::move(builder_).build(core::Value::map());
    }
    std::string text() const { return text_.str(); }

  private:
    std::int64_t below(std::int64_t n) { return random_.below(n); }
    int any() { return values_[static_cast<std::size_t>(below(static_cast<std::int64_t>(values_.size())))]; }
    std::int64_t size(int value) const { return builder_.shape(value).back(); }
    std::string name() { return "layer" + std::to_string(layers_++); }

    void add(int value, const std::string& what) {
        values_.push_back(value);
        text_ << value << " = " << what << "\n";
    }

    int same_size_as(int value) {
        for (int tries = 0; tries < 8; ++tries) {
            const int other = any();
            if (size(other) == size(value)) return other;
        }
        return builder_.linear(name(), any(), size(value));
    }

    void append() {
        const int x = any();
        const std::int64_t n = size(x);
        const std::string of = " of " + std::to_string(x);
        switch (below(12)) {
            case 0:
                return add(builder_.linear(name(), x, 4 + 2 * below(4)), "linear" + of);
            case 1:
                return add(builder_.activation(x, ActivationKind::relu), "relu" + of);
            case 2:
                return add(builder_.activation(x, ActivationKind::tanh), "tanh" + of);
            case 3:
                return add(builder_.activation(x, ActivationKind::sigmoid), "sigmoid" + of);
            case 4: {
                const std::int64_t start = below(n), end = start + 1 + below(n - start);
                return add(builder_.slice(x, 1, start, end),
                           "slice " + std::to_string(start) + " " + std::to_string(end) + of);
            }
            case 5: {
                const int y = any();
                return add(builder_.cat({x, y}, 1), "cat with " + std::to_string(y) + of);
            }
            case 6: {
                const int y = same_size_as(x);
                return add(builder_.add(x, y), "add " + std::to_string(y) + of);
            }
            case 7: {
                const int y = same_size_as(x);
                return add(builder_.multiply(x, y), "multiply " + std::to_string(y) + of);
            }
            case 8:
                return add(builder_.layer_norm(name(), x), "layer norm" + of);
            case 9: {
                const int sum = builder_.append("", model::Reduce{{1}, true, below(2) == 0}, {x});
                const int y = any();
                return add(builder_.multiply(y, sum), "times the mean or sum" + of);
            }
            case 10:
                return add(builder_.pad(x, {below(2), below(2)}), "pad" + of);
            default:
                return by_matrix(x, n);
        }
    }

    void by_matrix(int x, std::int64_t n) {
        if (n % 2 != 0 || n < 4) return;
        const model::Sizes shape = below(2) == 0 ? model::Sizes{2, n / 2} : model::Sizes{n / 2, 2};
        int matrix = builder_.reshape(x, shape);
        const std::int64_t axis = 1 + below(2);
        std::string what;
        switch (below(5)) {
            case 0:
                matrix = builder_.append("", model::Softmax{axis}, {matrix});
                what = "softmax";
                break;
            case 1:
                matrix = builder_.append("", model::LayerNorm{}, {matrix});
                what = "layer norm without weights";
                break;
            case 2:
                matrix = builder_.permute(matrix, {0, 2, 1});
                what = "transposed";
                break;
            case 3:
                matrix = builder_.slice(matrix, axis, 0, 1);
                what = "row or column";
                break;
            default:
                matrix = builder_.linear(name(), matrix, 4);
                what = "linear";
        }
        add(builder_.flatten(matrix), what + " of " + std::to_string(x) + " as a matrix of " +
                                          std::to_string(shape[0]) + " rows, axis " + std::to_string(axis));
    }

    core::Random random_;
    GraphBuilder builder_;
    std::vector<int> values_;
    std::ostringstream text_;
    int layers_ = 0;
};

TEST(RandomGraphs, WhatIsDerivedIsASymmetry) {
    std::int64_t moved = 0, channels = 0;
    for (std::uint64_t seed = 1; seed <= 150; ++seed) {
        RandomGraph random_graph(seed);
        const std::string text = random_graph.text();
        const auto graph = std::move(random_graph).graph();
        const auto symmetries = derive(graph);
        core::Random random(seed, "proof");
        ASSERT_LT(verify(graph, symmetries, random, 2).max_error, 1e-9) << "seed " << seed << "\n" << text;
        for (const auto kind : {Gauge::Kind::sign, Gauge::Kind::scale}) {
            const Gauge gauge = derive_gauge(graph, kind);
            ASSERT_LT(verify(graph, gauge, random, 2).max_error, 1e-9) << "seed " << seed << "\n" << text;
            channels += gauge.channels;
        }
        moved += symmetries.covered_channels;
    }
    EXPECT_GT(moved, 1000);
    EXPECT_GT(channels, 100);
}

}  // namespace
}  // namespace thalweg::symmetry::random_graph_test
