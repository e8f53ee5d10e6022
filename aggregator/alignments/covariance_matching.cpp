#include <torch/types.h>

#include <algorithm>
#include <map>
#include <set>
#include <variant>

#include "matching_support.hpp"
#include "thalweg/aggregator/matching.hpp"
#include "thalweg/aggregator/statistics.hpp"
#include "thalweg/core/error.hpp"
#include "thalweg/core/interrupt.hpp"
#include "thalweg/model/interpreter.hpp"

namespace thalweg::aggregator {

namespace {

/// A linear or convolution that writes channels of a group.
struct Producer {
    std::size_t operation = 0;
    std::size_t group = 0;
    std::size_t weight = 0;  ///< its entry
    int bias = -1;           ///< its entry
    std::int64_t axis = 0;   ///< of the weight, where the outputs are
    at::Tensor places;       ///< of the group's channels among the outputs
};

/// What one assignment settles: a group, or the groups of a bond.
struct Coordinate {
    std::vector<std::size_t> groups;
    std::vector<Producer> producers;
    std::set<std::size_t> read;  ///< groups on the producers' input axes
};

std::vector<Producer> producers_of(const model::ModelGraph& graph, const symmetry::Symmetries& symmetries,
                                   std::size_t g) {
    std::vector<Producer> result;
    for (std::size_t i = 0; i < graph.operations.size(); ++i) {
        Producer producer{.operation = i, .group = g, .places = {}};
        const auto& kind = graph.operations[i].kind;
        if (const auto* linear = std::get_if<model::Linear>(&kind)) {
            producer.weight = static_cast<std::size_t>(linear->weight);
            producer.bias = linear->bias;
        } else if (const auto* conv = std::get_if<model::Convolution>(&kind)) {
            if (conv->transposed && conv->groups > 1) continue;
            producer.weight = static_cast<std::size_t>(conv->weight);
            producer.bias = conv->bias;
            producer.axis = conv->transposed ? 1 : 0;
        } else {
            continue;
        }
        for (const auto& use : symmetries.groups[g].uses) {
            if (use.entry != producer.weight || use.axis != producer.axis || use.slabs > 0 || use.each != 1)
                continue;
            producer.places = at::tensor(use.places, at::kLong);
            result.push_back(producer);
        }
    }
    return result;
}

/// In the order in which the channels are first written.
std::vector<Coordinate> coordinates_of(const model::ModelGraph& graph,
                                       const symmetry::Symmetries& symmetries) {
    std::vector<Coordinate> result;
    std::map<int, std::size_t> of_bond;
    for (std::size_t g = 0; g < symmetries.groups.size(); ++g) {
        const int bond = symmetries.groups[g].bond;
        std::size_t index = result.size();
        if (bond >= 0) index = of_bond.try_emplace(bond, index).first->second;
        if (index == result.size()) result.emplace_back();
        result[index].groups.push_back(g);
        for (auto& producer : producers_of(graph, symmetries, g)) result[index].producers.push_back(producer);
    }
    for (Coordinate& coordinate : result) {
        for (const Producer& producer : coordinate.producers) {
            for (std::size_t g = 0; g < symmetries.groups.size(); ++g) {
                for (const auto& use : symmetries.groups[g].uses) {
                    if (use.entry == producer.weight && use.axis != producer.axis) coordinate.read.insert(g);
                }
            }
        }
    }
    std::erase_if(result, [&](const Coordinate& coordinate) {
        // A bond of which some group is not written by such a layer would be torn.
        return std::any_of(coordinate.groups.begin(), coordinate.groups.end(), [&](std::size_t g) {
            return std::none_of(coordinate.producers.begin(), coordinate.producers.end(),
                                [&](const Producer& producer) { return producer.group == g; });
        });
    });
    const auto first_written = [](const Coordinate& coordinate) {
        return std::min_element(
                   coordinate.producers.begin(), coordinate.producers.end(),
                   [](const Producer& x, const Producer& y) { return x.operation < y.operation; })
            ->operation;
    };
    std::stable_sort(result.begin(), result.end(), [&](const Coordinate& x, const Coordinate& y) {
        return first_written(x) < first_written(y);
    });
    return result;
}

/// One row a channel: [channels, samples · positions], in double.
at::Tensor channel_rows(const at::Tensor& output, std::int64_t axis, const at::Tensor& places) {
    return output.movedim(axis, 0).reshape({output.size(axis), -1}).index_select(0, places).to(at::kDouble);
}

class Matching {
  public:
    Matching(const MatchTask& task) : task_(task), views_a_(model::views(task.a)) {}

    /// The gains of a coordinate's groups, in its order, with all other groups as `permutations` say.
    std::vector<at::Tensor> gains(const Coordinate& coordinate,
                                  const symmetry::Permutations& permutations) const {
        std::vector<at::Tensor> result;
        for (const std::size_t g : coordinate.groups) {
            const std::int64_t size = task_.symmetries.groups[g].size;
            result.push_back(at::zeros({size, size}, at::kDouble));
        }
        std::vector<model::Views> of_b;
        std::size_t last = 0;
        for (const Producer& producer : coordinate.producers) {
            of_b.push_back(layer_of_b(producer, permutations));
            last = std::max(last, producer.operation);
        }
        const auto& graph = task_.graph;
        for_each_batch(
            *task_.samples, graph.input_shape(),
            [&](std::int64_t, const at::Tensor& x, const at::Tensor&) {
                const at::Tensor batch = x.to(task_.a.values.scalar_type());
                const auto values = values_read(coordinate, batch, last);
                for (std::size_t p = 0; p < coordinate.producers.size(); ++p) {
                    const Producer& producer = coordinate.producers[p];
                    std::vector<at::Tensor> inputs;
                    for (const int value : graph.operations[producer.operation].inputs)
                        inputs.push_back(values.at(value));
                    const std::int64_t axis = graph.channel_axis(producer.operation);
                    const at::Tensor out_a =
                        channel_rows(model::run_operation(graph, views_a_, producer.operation, inputs), axis,
                                     producer.places);
                    const at::Tensor out_b =
                        channel_rows(model::run_operation(graph, of_b[p], producer.operation, inputs), axis,
                                     producer.places);
                    const auto at =
                        std::find(coordinate.groups.begin(), coordinate.groups.end(), producer.group);
                    result[static_cast<std::size_t>(at - coordinate.groups.begin())].addmm_(out_a, out_b.t());
                }
            },
            model::samples_at_once(graph));
        return result;
    }

  private:
    /// B's entries of one layer: inputs permuted, outputs in B's own order.
    model::Views layer_of_b(const Producer& producer, const symmetry::Permutations& permutations) const {
        model::Views views = model::views(task_.b);
        views.entries[producer.weight] = symmetry::permuted_entry(
            task_.b, producer.weight, task_.symmetries, permutations, {producer.group}, producer.axis);
        return views;
    }

    /// A's values that the coordinate's producers read.
    std::map<int, at::Tensor> values_read(const Coordinate& coordinate, const at::Tensor& batch,
                                          std::size_t last) const {
        std::set<int> wanted;
        for (const Producer& producer : coordinate.producers) {
            for (const int value : task_.graph.operations[producer.operation].inputs) wanted.insert(value);
        }
        std::map<int, at::Tensor> values;
        if (wanted.contains(0)) values[0] = batch;
        const auto tap = [&](std::size_t operation, const at::Tensor& output) {
            const int value = task_.graph.operations[operation].output;
            if (wanted.contains(value)) values[value] = output;
        };
        model::forward(task_.graph, views_a_, batch, model::Mode::evaluate, tap, last);
        return values;
    }

    const MatchTask task_;
    model::Views views_a_;
};

}  // namespace

MatchResult covariance_matching(const model::ModelGraph& graph, const symmetry::Symmetries& symmetries,
                                const model::Parameters& a, const model::Parameters& b,
                                const data::SampleSet& samples, int max_sweeps) {
    require_same_layout(graph, a, b);
    MatchResult result{symmetry::identity(symmetries), 0.0, 0};
    const std::shared_ptr<const data::SampleSet> borrowed(std::shared_ptr<const void>(), &samples);
    const Matching matching({graph, symmetries, a, b, borrowed});
    const auto coordinates = coordinates_of(graph, symmetries);
    std::vector<bool> open(coordinates.size(), true);
    while (result.sweeps < max_sweeps && std::find(open.begin(), open.end(), true) != open.end()) {
        ++result.sweeps;
        for (std::size_t c = 0; c < coordinates.size(); ++c) {
            if (!open[c]) continue;
            core::check_interrupt();
            open[c] = false;
            const Coordinate& coordinate = coordinates[c];
            const auto gains = matching.gains(coordinate, result.permutations);
            std::vector<std::pair<std::size_t, symmetry::Permutation>> found;
            if (symmetries.groups[coordinate.groups.front()].blocks > 1) {
                found = best_blocks(symmetries, coordinate.groups, gains);
            } else {
                for (std::size_t i = 0; i < coordinate.groups.size(); ++i) {
                    const std::size_t g = coordinate.groups[i];
                    symmetry::AssignmentSolver solver;
                    found.emplace_back(g, best_assignment(solver, gains[i], symmetries.groups[g].name));
                }
            }
            for (auto& [g, permutation] : found) {
                if (permutation == result.permutations[g]) continue;
                result.permutations[g] = std::move(permutation);
                for (std::size_t other = 0; other < coordinates.size(); ++other) {
                    if (coordinates[other].read.contains(g)) open[other] = true;
                }
            }
        }
    }
    result.objective = inner_product(a, symmetry::permute(b, symmetries, result.permutations));
    return result;
}

}  // namespace thalweg::aggregator
