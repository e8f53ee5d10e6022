#include <algorithm>
#include <cstdlib>
#include <filesystem>

#include "contract/plugins.hpp"
#include "thalweg/model/model_file.hpp"
#include "thalweg/symmetry/gauge.hpp"
#include "unit/symmetry/fixture.hpp"

/// What every registered model must do, on small images, or on windows of symbols.
namespace thalweg::testing::models_test {
namespace {

namespace fs = std::filesystem;
using symmetry::test::largest_difference;
using symmetry::test::outputs;

/// Models that read symbols: the others take images.
model::Sizes input_shape_of(const PluginCase& tested) {
    if (tested.name == "transformer" || tested.name == "lstm") return {6};
    return {2, 16, 16};
}

model::Parameters random_parameters(const model::ModelGraph& graph, std::uint64_t seed) {
    core::Random random(seed, "contract parameters");
    return symmetry::random_parameters(graph, random);
}

at::Tensor random_batch(const model::ModelGraph& graph, std::int64_t count, std::uint64_t seed) {
    core::Random random(seed, "contract inputs");
    return symmetry::random_inputs(graph, count, random);
}

class ModelContract : public PluginContract {
  protected:
    void SetUp() override {
        std::string name = (fs::temp_directory_path() / "thalweg-contract-XXXXXX").string();
        ASSERT_NE(mkdtemp(name.data()), nullptr);
        folder_ = name;
    }
    void TearDown() override { fs::remove_all(folder_); }

    static model::ModelGraph build() {
        const auto section = section_of(GetParam());
        return with_advice(GetParam(),
                           [&] { return model::build_model(section, input_shape_of(GetParam()), 4); });
    }
    model::ModelGraph graph_ = build();
    fs::path folder_;
};

model::Parameters initial(const model::ModelGraph& graph, std::uint64_t seed) {
    core::Random random(seed, "initialisation");
    return model::initialise(graph, random);
}

TEST_P(ModelContract, GivesLogitsOfTheClasses) {
    EXPECT_EQ(graph_.input_shape(), input_shape_of(GetParam()));
    EXPECT_EQ(graph_.classes(), 4);
    const auto parameters = random_parameters(graph_, 1);
    const auto x = random_batch(graph_, 5, 1);
    const auto logits = outputs(graph_, parameters, x);
    EXPECT_EQ(logits.sizes().vec(), (std::vector<std::int64_t>{5, 4}));
    // Each sample by itself.
    const auto one = outputs(graph_, parameters, x.narrow(0, 3, 1));
    EXPECT_LT(largest_difference(one, logits.narrow(0, 3, 1)), 1e-9 * logits.abs().max().item<double>());
}

TEST_P(ModelContract, ItsSymmetriesKeepTheFunction) {
    const auto symmetries = symmetry::derive(graph_);
    if (graph_.affine_operations().size() > 1) {
        EXPECT_FALSE(symmetries.groups.empty()) << "hidden units, but none that may be permuted";
    }
    // Every hidden channel may move, or something is frozen for a reason other than that it is where the network begins or
    // ends.
    EXPECT_TRUE(symmetries.covered_channels == symmetries.hidden_channels ||
                std::any_of(symmetries.frozen.begin(), symmetries.frozen.end(),
                            [](const auto& axis) {
                                return axis.reason != "input" && axis.reason != "output" &&
                                       !axis.reason.empty();
                            }))
        << symmetries.covered_channels << " of " << symmetries.hidden_channels;
    core::Random random(5, "contract");
    // Three draws: one of a small group may be the identity, which shows nothing.
    const auto permutations = symmetry::verify(graph_, symmetries, random, 3);
    EXPECT_LT(permutations.max_error, 1e-9);
    EXPECT_GT(permutations.control, 1e-6) << "the proof does not see every group";
    for (const auto kind : {symmetry::Gauge::Kind::sign, symmetry::Gauge::Kind::scale}) {
        const auto factors = symmetry::verify(graph_, symmetry::derive_gauge(graph_, kind), random, 2);
        EXPECT_LT(factors.max_error, 1e-9);
        EXPECT_GT(factors.control, 1e-6) << "the proof does not see every group";
    }
}

TEST_P(ModelContract, ComesBackFromAFileBitByBit) {
    auto parameters = initial(graph_, 3);
    parameters.values.add_(random_parameters(graph_, 3).values.to(at::kFloat));
    for (std::int64_t i = 0; i < parameters.counters.numel(); ++i) parameters.counters[i] = 1000 + i;

    model::save_model(folder_ / "model.pt", graph_, parameters, {{"round", "7"}});
    const auto loaded = model::load_model(folder_ / "model.pt");

    EXPECT_TRUE(*loaded.graph.layout == *graph_.layout);
    EXPECT_EQ(loaded.graph.summary(), graph_.summary());
    EXPECT_EQ(loaded.graph.operations.size(), graph_.operations.size());
    EXPECT_TRUE(at::equal(loaded.parameters.values, parameters.values));
    EXPECT_TRUE(at::equal(loaded.parameters.counters, parameters.counters));
    EXPECT_EQ(loaded.meta.at("round"), "7");
    const auto x = random_batch(graph_, 4, 4).to(at::kFloat);
    EXPECT_TRUE(at::equal(outputs(loaded.graph, loaded.parameters, x), outputs(graph_, parameters, x)));
}

TEST_P(ModelContract, InitialValuesAreAFunctionOfTheSeed) {
    const auto one = initial(graph_, 5);
    EXPECT_TRUE(at::equal(one.values, initial(build(), 5).values));
    EXPECT_FALSE(at::equal(one.values, initial(graph_, 6).values));
    EXPECT_FALSE(one.first_non_finite().has_value());
}

INSTANTIATE_TEST_SUITE_P(Registered, ModelContract, ::testing::ValuesIn(cases_of("model")), plugin_case_name);

}  // namespace
}  // namespace thalweg::testing::models_test
