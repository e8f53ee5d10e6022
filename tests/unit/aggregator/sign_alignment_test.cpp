#include "unit/aggregator/fusion_fixture.hpp"

namespace thalweg::testing::sign_alignment_test {
namespace {

/// A model of four coordinates: weight [2, 1], bias [2].
Round planted(const std::vector<std::vector<float>>& models, const std::vector<std::int64_t>& samples) {
    Round round;
    model::GraphBuilder builder({1});
    builder.linear("layers.0", 0, 2);
    round.graph = std::move(builder).build(core::Value::map());
    round.symmetries = symmetry::derive(round.graph);
    for (std::size_t k = 0; k < models.size(); ++k) {
        model::Parameters parameters(round.graph.layout);
        parameters.values.copy_(at::tensor(models[k]));
        round.updates.push_back({static_cast<std::int64_t>(3 * k), samples[k], parameters, at::Tensor()});
        round.client_samples.push_back(random_samples(3, 1, 2));
    }
    round.holdout = random_samples(3, 1, 2);
    return round;
}

std::vector<bool> mask_of(const Fused& fused, std::size_t k) {
    std::vector<bool> result;
    for (std::int64_t i = 0; i < 4; ++i) result.push_back(fused.updates[k].mask[i].item<bool>());
    return result;
}

std::vector<float> values_of(const at::Tensor& values) {
    return {values.data_ptr<float>(), values.data_ptr<float>() + values.numel()};
}

//                                        two against one   large one   zero   tie with (1, 1, 2)
const std::vector<std::vector<float>> models{
    {1.0F, 1.0F, 0.0F, 1.0F}, {2.0F, 1.0F, -3.0F, 2.0F}, {-1.0F, -9.0F, 1.0F, -5.0F}};

TEST(SignAlignment, ElectsByMajorityOfVoices) {
    const auto round = planted(models, {1, 1, 1});
    for (const int ranks : {1, 2, 3, 5}) {
        const auto fused = fuse(round, "sign_alignment(vote=majority)+mean", ranks);
        EXPECT_EQ(mask_of(fused, 0), (std::vector{true, true, true, true}));
        EXPECT_EQ(mask_of(fused, 1),
                  (std::vector{true, true, true, true}));  // third coordinate: one against one
        EXPECT_EQ(mask_of(fused, 2), (std::vector{false, false, true, false}));
        EXPECT_FLOAT_EQ(fused.merged.values[0].item<float>(), 1.5F);
        EXPECT_FLOAT_EQ(fused.merged.values[1].item<float>(), 1.0F);
        EXPECT_FLOAT_EQ(fused.merged.values[2].item<float>(), -2.0F / 3);  // a tie: the plain mean
        EXPECT_FLOAT_EQ(fused.merged.values[3].item<float>(), 1.5F);
        EXPECT_DOUBLE_EQ(note(fused, "disagreeing"), 3.0 / 11);  // the zero is not counted
    }
}

TEST(SignAlignment, SamplesWeighTheVotesAndATieKeepsAll) {
    const auto round = planted(models, {1, 1, 2});
    const auto fused = fuse(round, "sign_alignment+mean", 2);
    EXPECT_EQ(mask_of(fused, 0), (std::vector{true, true, true, true}));
    EXPECT_EQ(mask_of(fused, 1), (std::vector{true, true, false, true}));
    EXPECT_EQ(mask_of(fused, 2), (std::vector{true, true, true, true}));
    const auto uniform = fuse(round, "sign_alignment(weights=uniform)+mean(weights=samples)", 2);
    EXPECT_EQ(mask_of(uniform, 2), (std::vector{false, false, true, false}));
}

TEST(SignAlignment, ATieOfTenClientsIsSeenAsOne) {
    // Five against five: with weights of 0.1 the rounding of the sum would elect somebody.
    std::vector<std::vector<float>> ten;
    for (int k = 0; k < 10; ++k) ten.push_back(std::vector<float>(4, k % 3 == 0 || k == 1 ? 1.0F : -1.0F));
    const auto round = planted(ten, std::vector<std::int64_t>(10, 7));
    EXPECT_DOUBLE_EQ(note(fuse(round, "sign_alignment+mean", 3), "disagreeing"), 0);
}

TEST(SignAlignment, ElectsByWeightedSum) {
    const auto fused = fuse(planted(models, {1, 1, 1}), "sign_alignment(vote=sum)+mean", 2);
    EXPECT_EQ(mask_of(fused, 0), (std::vector{true, false, true, false}));
    EXPECT_EQ(mask_of(fused, 1), (std::vector{true, false, true, false}));
    EXPECT_EQ(mask_of(fused, 2), (std::vector{false, true, false, true}));
    EXPECT_FLOAT_EQ(fused.merged.values[1].item<float>(), -9.0F);
}

TEST(SignAlignment, ElectsTheGlobalModelsSigns) {
    auto round = planted(models, {1, 1, 1});
    round.global = model::Parameters(round.graph.layout);
    round.global.values.copy_(at::tensor(std::vector<float>{-0.1F, 0.1F, 0.0F, -2.0F}));
    const auto fused = fuse(round, "sign_alignment(vote=global)+mean", 3);
    EXPECT_EQ(mask_of(fused, 0), (std::vector{false, true, true, false}));
    EXPECT_EQ(mask_of(fused, 2), (std::vector{true, false, true, true}));
    EXPECT_EQ(note(fused, "elected_by_majority"), 0);

    round.global = {};
    const auto first = fuse(round, "sign_alignment(vote=global)+mean", 3);
    EXPECT_EQ(note(first, "elected_by_majority"), 1);
    EXPECT_TRUE(same_bits(first.merged, fuse(round, "sign_alignment(vote=majority)+mean").merged));
}

TEST(SignAlignment, AttenuatesWithoutAMask) {
    const auto round = planted(models, {1, 1, 1});
    const auto fused = fuse(round, "sign_alignment(mode=attenuate, rho=0.25)+mean", 2);
    EXPECT_FALSE(fused.updates[2].mask.defined());
    EXPECT_EQ(values_of(fused.updates[0].parameters.values), models[0]);
    EXPECT_EQ(values_of(fused.updates[2].parameters.values),
              (std::vector<float>{-0.25F, -2.25F, 1.0F, -1.25F}));
    EXPECT_EQ(values_of(round.updates[2].parameters.values), models[2]) << "the caller's tensor was written";
    EXPECT_TRUE(same_bits(fuse(round, "sign_alignment(mode=attenuate, rho=1)+mean").merged,
                          fuse(round, "mean").merged));
}

TEST(SignAlignment, MeasuresWithoutChangingAnything) {
    const auto round = planted(models, {1, 1, 1});
    const auto fused = fuse(round, "sign_alignment(mode=measure)+mean", 3);
    EXPECT_DOUBLE_EQ(note(fused, "disagreeing"), 3.0 / 11);
    EXPECT_FALSE(fused.updates[0].mask.defined());
    EXPECT_TRUE(same_bits(fused.merged, fuse(round, "mean").merged));
}

TEST(SignAlignment, EntriesMaskedBeforeDoNotVoteAndStayMasked) {
    auto round = planted(models, {1, 1, 1});
    round.updates[0].mask = at::tensor(std::vector<std::int64_t>{1, 0, 1, 1}).to(at::kBool);
    round.updates[1].mask = at::tensor(std::vector<std::int64_t>{1, 0, 1, 1}).to(at::kBool);
    const auto fused = fuse(round, "sign_alignment+mean", 2);
    EXPECT_EQ(mask_of(fused, 0), (std::vector{true, false, true, true}));
    EXPECT_EQ(mask_of(fused, 2), (std::vector{false, true, true, false}));
    EXPECT_DOUBLE_EQ(note(fused, "disagreeing"), 2.0 / 9);
}

TEST(SignAlignment, AgreesWithASlowReferenceOnRealShapes) {
    const auto round = make_round("cnn_batch_norm", 5);
    const auto fused = fuse(round, "sign_alignment+mean", 3);
    for (std::int64_t i = 0; i < round.graph.layout->trainable_size(); i += 3) {
        double tally = 0;
        for (const auto& update : round.updates) {
            const double value = update.parameters.values[i].item<double>();
            tally += static_cast<double>(update.samples) * ((value > 0) - (value < 0));
        }
        for (std::size_t k = 0; k < round.updates.size(); ++k) {
            const bool kept = round.updates[k].parameters.values[i].item<double>() * tally >= 0;
            EXPECT_EQ(fused.updates[k].mask[i].item<bool>(), kept) << i;
        }
    }
    for (const int ranks : {1, 2, 5}) {
        EXPECT_TRUE(same_bits(fused.merged, fuse(round, "sign_alignment+mean", ranks).merged));
    }
}

}  // namespace
}  // namespace thalweg::testing::sign_alignment_test
