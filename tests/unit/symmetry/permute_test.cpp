#include <gtest/gtest.h>

#include <cmath>

#include "fixture.hpp"

namespace thalweg::symmetry::permute_test {
namespace {

using test::Norm;

/// The slow and obvious permute: element by element, each of its coordinates looked up in every group's uses.
model::Parameters reference_permute(const model::Parameters& parameters, const Symmetries& symmetries,
                                    const Permutations& permutations) {
    model::Parameters result = parameters.clone();
    const auto& entries = parameters.layout->entries();
    for (std::size_t e = 0; e < entries.size(); ++e) {
        const auto& shape = entries[e].shape;
        for (std::int64_t flat = 0; flat < entries[e].size; ++flat) {
            std::vector<std::int64_t> place(shape.size());
            std::int64_t rest = flat;
            for (std::size_t axis = shape.size(); axis-- > 0;) {
                place[axis] = rest % shape[axis];
                rest /= shape[axis];
            }
            for (std::size_t g = 0; g < symmetries.groups.size(); ++g) {
                for (const AxisUse& use : symmetries.groups[g].uses) {
                    if (use.entry != e) continue;
                    std::int64_t& at = place[static_cast<std::size_t>(use.axis)];
                    const auto found = std::find(use.places.begin(), use.places.end(), at);
                    if (found == use.places.end()) continue;
                    const auto inside = found - use.places.begin();
                    const auto channel = static_cast<std::size_t>(inside / use.each);
                    const auto from = permutations[g][channel] * use.each + inside % use.each;
                    at = use.places[static_cast<std::size_t>(from)];
                }
            }
            std::int64_t source = 0;
            for (std::size_t axis = 0; axis < shape.size(); ++axis)
                source = source * shape[axis] + place[axis];
            result.values.data_ptr<double>()[entries[e].offset + flat] =
                parameters.values.data_ptr<double>()[entries[e].offset + source];
        }
    }
    return result;
}

struct Case {
    std::string name;
    model::ModelGraph graph;
};

std::vector<Case> cases() {
    std::vector<Case> result;
    const std::pair<const char*, Norm> norms[] = {
        {"none", Norm::none}, {"batch", Norm::batch}, {"layer", Norm::layer}};
    using model::ActivationKind;
    const std::pair<const char*, ActivationKind> activations[] = {
        {"relu", ActivationKind::relu}, {"tanh", ActivationKind::tanh}, {"gelu", ActivationKind::gelu}};
    for (const auto& [norm_name, norm] : norms) {
        for (const auto& [activation_name, activation] : activations) {
            const std::string suffix = std::string(" ") + norm_name + " " + activation_name;
            result.push_back({"mlp" + suffix, test::mlp(norm, activation)});
            result.push_back({"cnn" + suffix, test::cnn(norm, activation)});
            result.push_back({"cnn avg" + suffix, test::cnn(norm, activation, true)});
        }
    }
    return result;
}

TEST(Permute, KeepsTheFunction) {
    for (const auto& [name, graph] : cases()) {
        const auto symmetries = derive(graph);
        core::Random random(1, "permute test");
        for (std::uint64_t seed = 0; seed < 5; ++seed) {
            const auto parameters = test::random_parameters(graph, seed);
            const auto moved = permute(parameters, symmetries, random_permutations(symmetries, random));
            const auto x = test::random_batch(graph, 6, seed);
            EXPECT_LT(
                test::largest_difference(test::outputs(graph, parameters, x), test::outputs(graph, moved, x)),
                1e-9)
                << name;
            EXPECT_GT(test::largest_difference(parameters.values, moved.values), 0.1) << name;
        }
    }
}

TEST(Permute, EqualsTheReference) {
    for (const auto& [name, graph] : cases()) {
        const auto symmetries = derive(graph);
        core::Random random(2, "permute test");
        const auto parameters = test::random_parameters(graph, 3);
        const auto permutations = random_permutations(symmetries, random);
        const auto moved = permute(parameters, symmetries, permutations);
        EXPECT_TRUE(at::equal(moved.values, reference_permute(parameters, symmetries, permutations).values))
            << name;
        for (std::size_t e = 0; e < graph.layout->entries().size(); ++e) {
            const auto entry = permuted_entry(parameters, e, symmetries, permutations, {});
            EXPECT_TRUE(at::equal(entry, moved.view(e))) << name;
            auto but_first = permutations;
            but_first[0] = identity(symmetries)[0];
            EXPECT_TRUE(at::equal(permuted_entry(parameters, e, symmetries, permutations, {0}),
                                  permute(parameters, symmetries, but_first).view(e)))
                << name;
        }
    }
}

TEST(Permute, FloatsAndCountersCome) {
    const auto graph = test::mlp(Norm::batch);
    const auto symmetries = derive(graph);
    auto parameters = test::random_parameters(graph, 4).to_float();
    parameters.counters.fill_(12);
    core::Random random(3, "permute test");
    const auto permutations = random_permutations(symmetries, random);
    const auto moved = permute(parameters, symmetries, permutations);
    EXPECT_FALSE(moved.is_double());
    EXPECT_TRUE(at::equal(moved.counters, parameters.counters));
    EXPECT_TRUE(at::equal(moved.to_double().values,
                          permute(parameters.to_double(), symmetries, permutations).values));
}

TEST(Permute, LeavesTheOriginalAloneAndSharesNothing) {
    const auto graph = test::mlp(Norm::none);
    const auto symmetries = derive(graph);
    const auto parameters = test::random_parameters(graph, 5);
    const auto before = parameters.clone();
    auto copy = permute(parameters, symmetries, identity(symmetries));
    EXPECT_TRUE(at::equal(copy.values, before.values));
    copy.values.zero_();
    EXPECT_TRUE(at::equal(parameters.values, before.values));
}

TEST(Permute, IsAGroupAction) {
    const auto graph = test::cnn(Norm::batch);
    const auto symmetries = derive(graph);
    const auto parameters = test::random_parameters(graph, 6);
    core::Random random(4, "permute test");
    const auto first = random_permutations(symmetries, random),
               second = random_permutations(symmetries, random);
    EXPECT_TRUE(at::equal(permute(permute(parameters, symmetries, first), symmetries, second).values,
                          permute(parameters, symmetries, compose(first, second)).values));
    for (const auto& permutation : first) {
        EXPECT_TRUE(is_identity(compose(permutation, inverse(permutation))));
        EXPECT_TRUE(is_identity(compose(inverse(permutation), permutation)));
    }
    EXPECT_EQ(compose(Permutation{2, 0, 1}, Permutation{1, 2, 0}), (Permutation{0, 1, 2}));
    EXPECT_EQ(compose(Permutation{1, 0, 2}, Permutation{0, 2, 1}), (Permutation{1, 2, 0}));
    EXPECT_EQ(inverse(Permutation{1, 2, 0}), (Permutation{2, 0, 1}));
}

TEST(Permute, RefusesPermutationsOfAnotherModel) {
    const auto small = test::mlp(Norm::none), other = test::cnn(Norm::none);
    const auto parameters = test::random_parameters(small, 7);
    EXPECT_THROW(permute(parameters, derive(small), identity(derive(other))), std::logic_error);
}

}  // namespace
}  // namespace thalweg::symmetry::permute_test
