#include "unit/aggregator/residual_fixture.hpp"

namespace thalweg::testing::residual_repair_test {
namespace {

const std::string residual = "mean+repair(residual=true)", plain = "mean+repair(residual=false)";

TEST(ResidualRepair, GivesSumsTheClientsMeansAndDeviations) {
    for (auto& [name, graph, count] : cases()) {
        const Round round = round_of(graph, 3);
        const auto x = inputs_of(round.graph, *round.holdout);
        const auto without = fuse(round, plain), with = fuse(round, residual, 2);
        const auto sums = sums_of(round.graph);
        ASSERT_EQ(sums.size(), count) << name;
        EXPECT_EQ(note(with, "repaired_residual_sums"), static_cast<double>(count)) << name;
        EXPECT_EQ(note(with, "residual_sums_left"), 0) << name;
        EXPECT_EQ(note(without, "repaired_residual_sums"), 0) << name;
        EXPECT_TRUE(same_bits(with.merged, fuse(round, "mean+repair").merged)) << name << ": the default";
        std::int64_t before = 0, after = 0;
        for (const auto sum : sums) {
            const int value = round.graph.operations[sum].output;
            const auto wanted = wanted_at(round, value, [&](std::size_t) { return x; });
            before += off(values_at(round, without.merged, value, x), wanted).deviations;
            const auto now = off(values_at(round, with.merged, value, x), wanted);
            after += now.deviations;
            EXPECT_EQ(now.means, 0) << name << " operation " << sum;
        }
        EXPECT_LE(after, note(with, "residual_channels_left")) << name;
        EXPECT_LE(after, note(with, "repaired_residual_channels") / 4) << name;
        EXPECT_GE(before, note(with, "repaired_residual_channels") / 4) << name << ": nothing to repair";
        for (const int ranks : {1, 3}) {
            EXPECT_TRUE(same_bits(with.merged, fuse(round, residual, ranks).merged)) << name;
        }
    }
}

TEST(ResidualRepair, WithTheClientsStatisticsUsesTheirOwnSamples) {
    for (const std::string norm : {"none", "layer"}) {
        const Round round = round_of(residual_net(norm), 3);
        const auto own = [&](std::size_t k) { return inputs_of(round.graph, *round.client_samples[k]); };
        const auto fused = fuse(round, "mean+repair(residual=true,statistics=clients)", 2);
        const auto w = aggregator::weights(members_of(round, 1), aggregator::Weighting::samples);
        std::int64_t off_deviations = 0;
        for (const auto sum : sums_of(round.graph)) {
            const int value = round.graph.operations[sum].output;
            const auto wanted = wanted_at(round, value, own);
            at::Tensor mean = at::zeros_like(wanted.mean), square = at::zeros_like(wanted.mean);
            for (std::size_t k = 0; k < 3; ++k) {
                const auto out = values_at(round, fused.merged, value, own(k));
                mean += w[k] * out.mean(1);
                square += w[k] * (out * out).mean(1);
            }
            const auto ratio = (square - mean * mean).sqrt() / wanted.deviation;
            off_deviations += ((ratio - 1).abs() > 0.02).sum().item<std::int64_t>();
            EXPECT_LT(((mean - wanted.mean) / wanted.deviation).abs().max().item<double>(), 0.02);
        }
        EXPECT_LE(off_deviations, note(fused, "residual_channels_left"));
        EXPECT_TRUE(
            same_bits(fused.merged, fuse(round, "mean+repair(residual=true,statistics=clients)", 3).merged));
    }
}

TEST(ResidualRepair, LeavesIdenticalModelsAsTheyAre) {
    for (auto& [name, graph, count] : cases()) {
        Round round = round_of(graph, 2);
        round.updates[1].parameters = round.updates[0].parameters;
        // Running statistics that fit nothing would be recomputed.
        const auto settled = fuse(round, "mean+reset_batch_norm").merged;
        for (auto& update : round.updates) update.parameters = settled;
        const auto fused = fuse(round, residual);
        EXPECT_LT(largest_difference(fused.merged.values, settled.values), 1e-5) << name;
        EXPECT_EQ(note(fused, "residual_channels_left"), 0) << name;
    }
}

TEST(ResidualRepair, LeavesChannelsThatNoScaleMendsAndShiftsThem) {
    const Round round = round_of(one_sum([](GraphBuilder& b, int) {
                                     const int h = b.activation(b.linear("up", 0, 7), ActivationKind::relu);
                                     return b.linear("down", h, 9);
                                 }),
                                 4);
    // Channels 2 and 5: in every client the branch takes back what the shortcut adds, each client by a hidden unit of its
    // own, so that the mean of the clients cannot.
    for (std::size_t k = 0; k < 4; ++k) {
        const auto& p = round.updates[k].parameters;
        for (const std::int64_t c : {2, 5}) {
            const auto unit = static_cast<std::int64_t>(k) + (c == 5 ? 3 : 0);
            p.view("up.weight")[unit].copy_(p.view("stem.weight")[c]);
            p.view("up.bias")[unit].copy_(p.view("stem.bias")[c]);
            p.view("down.weight")[c].zero_();
            p.view("down.weight")[c][unit] = -0.98;
        }
    }
    const auto x = inputs_of(round.graph, *round.holdout);
    const auto before = fuse(round, plain).merged;
    const auto fused = fuse(round, residual, 2);
    const auto sum = sums_of(round.graph).at(0);
    const auto& operation = round.graph.operations[sum];
    const auto wanted = wanted_at(round, operation.output, [&](std::size_t) { return x; });
    const auto shortcut = values_at(round, before, operation.inputs[0], x);
    const auto branch = values_at(round, before, operation.inputs[1], x);
    std::int64_t left = 0;
    for (std::int64_t c = 0; c < 9; ++c) {
        // The slow way: is there a factor for which the deviation is right?
        bool below = false, above = false;
        for (double a = 1e-3; a < 1e3; a *= 1.01) {
            const double deviation = (shortcut[c] + a * branch[c]).var(0, false).sqrt().item<double>();
            (deviation < wanted.deviation[c].item<double>() ? below : above) = true;
        }
        const bool has_root = below && above;
        left += has_root ? 0 : 1;
        const double change =
            largest_difference(before.view("down.weight")[c], fused.merged.view("down.weight")[c]);
        EXPECT_EQ(has_root, change > 0) << "channel " << c;
        if (c == 2 || c == 5) {
            EXPECT_FALSE(has_root) << c;
        }
    }
    EXPECT_EQ(note(fused, "residual_channels_left"), static_cast<double>(left));
    EXPECT_LT(left, 9);
    const auto now = off(values_at(round, fused.merged, operation.output, x), wanted);
    EXPECT_EQ(now.means, 0);
    EXPECT_EQ(now.deviations, left);
}

TEST(ResidualRepair, ScalesAProjectionOnBothSidesAlike) {
    for (const bool norm : {false, true}) {
        GraphBuilder b({6});
        const int x = b.activation(b.linear("stem", 0, 9), ActivationKind::relu);
        const auto side = [&](const std::string& name) {
            const int value = b.linear(name, x, 9);
            return norm ? b.batch_norm(name + ".norm", value) : value;
        };
        const int sum = b.add(side("branch"), side("shortcut"));
        b.linear("fc", b.activation(sum, ActivationKind::relu), 4);
        const Round round = round_of(built(std::move(b)), 3);
        const auto inputs = inputs_of(round.graph, *round.holdout);
        const auto before = fuse(round, plain).merged;
        const auto fused = fuse(round, residual);
        const auto wanted = wanted_at(round, sum, [&](std::size_t) { return inputs; });
        const auto was = values_at(round, before, sum, inputs);
        const auto scale = wanted.deviation / was.var(1, false).sqrt();
        EXPECT_GT((scale - 1).abs().max().item<double>(), 0.05);
        const std::string module = norm ? ".norm" : "";
        const auto expected_of = [&](const std::string& entry) {
            const auto old = before.view(entry).to(at::kDouble);
            return old.dim() == 2 ? scale.unsqueeze(1) * old : scale * old;
        };
        for (const std::string name : {"branch", "shortcut"}) {
            const auto entry = name + module + ".weight";
            EXPECT_LT(largest_difference(fused.merged.view(entry), expected_of(entry)), 1e-5) << entry;
        }
        const auto shift = wanted.mean - scale * was.mean(1);  // one side's
        const auto bias = "branch" + module + ".bias", other = "shortcut" + module + ".bias";
        EXPECT_LT(largest_difference(fused.merged.view(bias), expected_of(bias) + shift), 1e-5);
        EXPECT_LT(largest_difference(fused.merged.view(other), expected_of(other)), 1e-5);
        const auto now = off(values_at(round, fused.merged, sum, inputs), wanted);
        EXPECT_EQ(now.means + now.deviations, 0);
        EXPECT_EQ(note(fused, "residual_channels_left"), 0);
    }
}

TEST(ResidualRepair, SeesThroughDropoutFactorsAndPermutations) {
    GraphBuilder b({3, 9});
    const int x = b.activation(b.linear("stem", 0, 9), ActivationKind::relu);
    int f = b.linear("down", b.permute(b.permute(x, {0, 2, 1}), {0, 2, 1}), 9);
    f = b.append("half", model::Affine{0.5, 0}, {b.dropout(f, 0.2)});
    f = b.permute(b.permute(f, {0, 2, 1}), {0, 2, 1});
    const int sum = b.append("sum", model::Add{-0.7}, {x, f});
    b.linear("fc", b.mean(b.activation(sum, ActivationKind::relu), {1}), 4);
    const Round round = round_of(built(std::move(b)), 3);
    ASSERT_EQ(sums_of(round.graph).size(), 1);
    const auto inputs = inputs_of(round.graph, *round.holdout);
    const auto fused = fuse(round, residual);
    const auto wanted = wanted_at(round, sum, [&](std::size_t) { return inputs; });
    const auto now = off(values_at(round, fused.merged, sum, inputs), wanted);
    EXPECT_EQ(now.means, 0);
    EXPECT_LE(now.deviations, note(fused, "residual_channels_left"));
    EXPECT_LT(note(fused, "residual_channels_left"), 5);
    EXPECT_GT(off(values_at(round, fuse(round, plain).merged, sum, inputs), wanted).deviations, 4);
}

TEST(ResidualRepair, CountsSumsThatItCannotMend) {
    const auto relu_branch = [](GraphBuilder& b, int x) {
        return b.activation(b.linear("branch", x, 9), ActivationKind::relu);
    };
    const auto read_twice = [](GraphBuilder& b, int x) {
        const int f = b.linear("branch", x, 9);
        return b.multiply(f, b.activation(f, ActivationKind::sigmoid));
    };
    const auto offset = [](GraphBuilder& b, int x) {
        return b.append("offset", model::Affine{1, 0.5}, {b.linear("branch", x, 9)});
    };
    for (const auto& branch :
         std::vector<std::function<int(GraphBuilder&, int)>>{relu_branch, read_twice, offset}) {
        const Round round = round_of(one_sum(branch), 2);
        const auto fused = fuse(round, residual);
        EXPECT_EQ(note(fused, "residual_sums_left"), 1);
        EXPECT_EQ(note(fused, "repaired_residual_sums"), 0);
        EXPECT_TRUE(same_bits(fused.merged, fuse(round, plain).merged));
    }
    // A layer that is used twice.
    GraphBuilder b({9});
    const model::Initial start{model::Initial::Kind::uniform, 0.3};
    const model::Linear shared{b.entry("shared.weight", {9, 9}, model::Role::weight, start),
                               b.entry("shared.bias", {9}, model::Role::bias, start)};
    int x = b.activation(b.linear("stem", 0, 9), ActivationKind::relu);
    for (const char* name : {"first", "second"}) x = b.add(x, b.append(name, shared, {x}));
    b.linear("fc", x, 4);
    const Round round = round_of(built(std::move(b)), 2);
    EXPECT_EQ(note(fuse(round, residual), "residual_sums_left"), 2);
    EXPECT_EQ(sums_of(round.graph).size(), 0);
}

TEST(ResidualRepair, DoesNotTakeOtherSumsForResidualOnes) {
    GraphBuilder b({4, 6});
    const int x = b.linear("stem", 0, 6);
    int y = b.add(x, b.parameter("positions", {4, 6}, {4, 6}, {model::Initial::Kind::normal, 1}));
    y = b.add(b.linear("embed", y, 6), 0);            // the graph's input is nothing to mend
    y = b.add(y, b.reshape(b.mean(y, {2}), {4, 1}));  // broadcast
    y = b.add(y, y);
    const int head = b.linear("head", b.mean(y, {1}), 4);
    b.add(head, b.activation(head, ActivationKind::tanh));  // logits
    const Round round = round_of(built(std::move(b)), 2);
    const auto fused = fuse(round, residual);
    EXPECT_EQ(note(fused, "residual_sums_left"), 0);
    EXPECT_EQ(note(fused, "repaired_residual_sums"), 0);
    EXPECT_TRUE(same_bits(fused.merged, fuse(round, plain).merged));
}

TEST(ResidualRepair, HasModes) {
    const Round round = round_of(one_sum([](GraphBuilder& b, int x) { return b.linear("branch", x, 9); }), 3);
    const auto x = inputs_of(round.graph, *round.holdout);
    const int sum = round.graph.operations[sums_of(round.graph).at(0)].output;
    const auto wanted = wanted_at(round, sum, [&](std::size_t) { return x; });
    const auto shifted = fuse(round, "mean+repair(residual=true,mode=reshift)").merged;
    EXPECT_EQ(off(values_at(round, shifted, sum, x), wanted).means, 0);
    EXPECT_TRUE(at::equal(shifted.view("branch.weight"), fuse(round, "mean").merged.view("branch.weight")));
    const auto rescaled = fuse(round, "mean+repair(residual=true,mode=rescale)");
    const auto without = fuse(round, "mean+repair(residual=false,mode=rescale)").merged;
    EXPECT_LE(off(values_at(round, rescaled.merged, sum, x), wanted).deviations,
              note(rescaled, "residual_channels_left"));
    EXPECT_LT(largest_difference(values_at(round, rescaled.merged, sum, x).mean(1),
                                 values_at(round, without, sum, x).mean(1)),
              1e-4);
}

TEST(ResidualRepair, TakesPrecomputedEnds) {
    const Round round = round_of(residual_net("batch"), 2);
    const auto options = RepairOptions::from("within", "std", "repair", false, true);
    on_ranks(round, 2, [&](aggregator::FusionState& state, const aggregator::FusionContext& context) {
        const auto ends = aggregator::end_moments(state, context, *context.server,
                                                  aggregator::repaired_operations(round.graph, options));
        const std::vector<double> weights{0.25, 0.75};
        auto one = aggregator::mean(state.updates, context, weights);
        auto other = one.clone();
        EXPECT_EQ(aggregator::repair(one, ends, context, *context.server, weights, options).residual_sums, 2);
        aggregator::repair(other, state, context, *context.server, weights, options);
        EXPECT_TRUE(same_bits(one, other));
    });
}

TEST(Repair, LeavesOutLayersThatANormOfSingleChannelsFollows) {
    const auto repaired = [](const model::ModelGraph& graph) {
        return aggregator::repaired_operations(graph, {}).size();
    };
    EXPECT_EQ(repaired(residual_net("none")), 6);
    EXPECT_EQ(repaired(residual_net("layer")), 6);  // over channels: it keeps their proportions
    EXPECT_EQ(repaired(residual_net("batch")), 0);
    EXPECT_EQ(repaired(residual_net("instance")), 0);
    // A shortcut from before the norm sees the scale.
    GraphBuilder b({2, 6, 6});
    const int x = b.conv2d("conv", 0, 4, {3, 3}, {1, 1}, {1, 1});
    const int y = b.activation(b.batch_norm("norm", x), ActivationKind::relu);
    b.linear("fc", b.flatten(b.add(x, b.conv2d("branch", y, 4, {3, 3}, {1, 1}, {1, 1}))), 4);
    EXPECT_EQ(repaired(built(std::move(b))), 2);
}

TEST(MomentPoint, OfASumIsWhereItsAddendsHaveTheirChannels) {
    const auto axes = [](const model::ModelGraph& graph) {
        std::vector<std::int64_t> found;
        for (std::size_t i = 0; i < graph.operations.size(); ++i) {
            if (std::holds_alternative<model::Add>(graph.operations[i].kind))
                found.push_back(aggregator::moment_point(graph, i).axis);
        }
        return found;
    };
    EXPECT_EQ(axes(transformer()), (std::vector<std::int64_t>{2, 2, 2}));
    EXPECT_EQ(axes(residual_net("layer")), (std::vector<std::int64_t>{1, 1}));
}

}  // namespace
}  // namespace thalweg::testing::residual_repair_test
