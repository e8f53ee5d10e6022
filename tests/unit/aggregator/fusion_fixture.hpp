#pragma once

#include <ATen/Parallel.h>
#include <gtest/gtest.h>
#include <torch/types.h>

#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "thalweg/aggregator/exchange.hpp"
#include "thalweg/aggregator/repair.hpp"
#include "thalweg/aggregator/stage.hpp"
#include "thalweg/model/interpreter.hpp"
#include "unit/support/memory_samples.hpp"
#include "unit/support/thread_communicator.hpp"

namespace thalweg::testing {

/// The architectures that fusion is tested on; small.
inline const std::vector<std::string>& architectures() {
    static const std::vector<std::string> names{"mlp",     "mlp_batch_norm", "mlp_layer_norm",
                                                "cnn",     "cnn_batch_norm", "residual_batch_norm",
                                                "grouped", "attention",      "lstm"};
    return names;
}

/// A block of a vision transformer over four positions: a residual stream, two heads, layer norms.
inline int append_attention(model::GraphBuilder& builder, int value) {
    value = builder.linear("embed", builder.reshape(value, {4, 3}), 8);
    const int normed = builder.layer_norm("ln_1", value);
    const int seen = builder.attention(builder.linear("q", normed, 8), builder.linear("k", normed, 8),
                                       builder.linear("v", normed, 8), 2, false);
    value = builder.add(value, builder.linear("out", seen, 8));
    const int hidden = builder.linear("mlp.0", builder.layer_norm("ln_2", value), 10);
    value = builder.add(value,
                        builder.linear("mlp.2", builder.activation(hidden, model::ActivationKind::gelu), 8));
    return builder.mean(builder.layer_norm("ln", value), {1});
}

inline model::ModelGraph make_graph(const std::string& name) {
    const auto spec = core::Value::map({{"kind", core::Value::of("test")}});
    const auto kind = name.ends_with("tanh") ? model::ActivationKind::tanh : model::ActivationKind::relu;
    const bool batch = name.find("batch_norm") != std::string::npos;
    const bool layer = name.find("layer_norm") != std::string::npos;
    const auto hidden = [&](model::GraphBuilder& builder, int value, const std::string& norm) {
        if (batch) value = builder.batch_norm(norm, value);
        if (layer) value = builder.layer_norm(norm, value);
        return builder.activation(value, kind);
    };
    if (name == "mlp_configured") {  // of a configuration, which can be written anew with other widths
        return model::build_model(
            core::resolve_plugin("model", "kind", core::parse_yaml("{kind: mlp, hidden: [9, 7]}", "test"),
                                 "model"),
            {12}, 4);
    }
    if (name.starts_with("mlp")) {
        model::GraphBuilder builder({12});
        int value = hidden(builder, builder.linear("layers.0", 0, 9), "norms.0");
        value = hidden(builder, builder.linear("layers.1", value, 7), "norms.1");
        builder.linear("layers.2", value, 4);
        return std::move(builder).build(spec);
    }
    if (name == "wide") {  // its gain matrix takes 640 GB
        model::GraphBuilder builder({12});
        builder.linear("head", builder.activation(builder.linear("wide", 0, 400'000), kind), 4);
        return std::move(builder).build(spec);
    }
    if (name == "attention" || name == "lstm") {
        model::GraphBuilder builder({12});
        const int value = name == "attention"
                              ? append_attention(builder, 0)
                              : builder.flatten(builder.slice(
                                    builder.lstm("lstm", builder.reshape(0, {4, 3}), 6), 1, 3, 4));
        builder.linear("head", value, 4);
        return std::move(builder).build(spec);
    }
    if (name == "grouped") {
        model::GraphBuilder builder({2, 6, 6});
        int value = hidden(builder, builder.conv2d("conv.0", 0, 6, {3, 3}), "norms.0");
        value =
            hidden(builder, builder.conv2d("conv.1", value, 6, {3, 3}, {1, 1}, {0, 0}, true, 3), "norms.1");
        builder.linear("fc", builder.flatten(value), 4);
        return std::move(builder).build(spec);
    }
    if (name.starts_with("residual")) {
        model::GraphBuilder builder({2, 6, 6});
        const auto conv = [&](const std::string& entry, int from) {
            return builder.conv2d(entry, from, 5, {3, 3}, {1, 1}, {1, 1});
        };
        int value = hidden(builder, conv("conv.0", 0), "norms.0");
        int branch = hidden(builder, conv("conv.1", value), "norms.1");
        branch = builder.batch_norm("norms.2", conv("conv.2", branch));
        value = builder.activation(builder.add(value, branch), kind);
        builder.linear("fc", builder.mean(value, {2, 3}), 4);
        return std::move(builder).build(spec);
    }
    // The large one is evaluated in smaller chunks, see model::samples_at_once.
    const std::int64_t side = name == "cnn_large" ? 96 : 8, pool = side / 4;
    model::GraphBuilder builder({2, side, side});
    int value = hidden(builder, builder.conv2d("conv.0", 0, 5, {3, 3}, {1, 1}, {1, 1}), "norms.0");
    value = builder.max_pool2d(value, {pool, pool}, {pool, pool});
    value = hidden(builder, builder.conv2d("conv.1", value, 6, {3, 3}), "norms.1");
    value = builder.linear("fc.0", builder.flatten(value), 8);
    builder.linear("fc.1", builder.activation(value, kind), 4);
    return std::move(builder).build(spec);
}

/// A model that looks trained: no norm at its start value, running statistics that fit nothing in particular.
inline model::Parameters random_model(const model::ModelGraph& graph, std::uint64_t seed) {
    core::Random random(seed, "test model");
    auto parameters = model::initialise(graph, random);
    const auto& entries = graph.layout->entries();
    for (std::size_t i = 0; i < entries.size(); ++i) {
        const at::Tensor values = parameters.view(i).view({-1});
        for (std::int64_t j = 0; j < values.numel(); ++j) {
            const double x = values[j].item<double>();
            const bool is_variance = entries[i].role == model::Role::running_var;
            values[j] = is_variance ? random.uniform(0.5, 2.0) : 1.5 * x + random.normal(0.0, 0.05);
        }
    }
    for (std::size_t i = 0; i < graph.layout->counters().size(); ++i) {
        parameters.counters[static_cast<std::int64_t>(i)] = random.below(100);
    }
    return parameters;
}

/// What a round of fusion starts from, before it is spread over ranks.
struct Round {
    model::ModelGraph graph;
    symmetry::Symmetries symmetries;
    std::vector<aggregator::Update> updates;
    model::Parameters global;                        ///< may be undefined
    std::shared_ptr<const data::SampleSet> holdout;  ///< nullptr: the server has none, and no statistics
    std::vector<std::shared_ptr<const data::SampleSet>>
        client_samples;  ///< by client / 3; empty: none to ask
};

/// `clients` clients with ids 0, 3, 6, …, sample counts that differ, and random models.
inline Round make_round(const std::string& architecture, int clients, std::uint64_t seed = 1) {
    Round round;
    round.graph = make_graph(architecture);
    round.symmetries = symmetry::derive(round.graph);
    std::int64_t width = 1;
    for (const auto extent : round.graph.input_shape()) width *= extent;
    for (int k = 0; k < clients; ++k) {
        aggregator::Update update;
        update.client = 3 * k;
        update.samples = 40 + 30 * ((k * 7 + 2) % 5);
        update.parameters = random_model(round.graph, seed * 100 + static_cast<std::uint64_t>(k));
        update.start = random_model(round.graph, seed * 100 + 50 + static_cast<std::uint64_t>(k));
        round.client_samples.push_back(
            random_samples(update.samples, width, 4, seed * 1000 + static_cast<std::uint64_t>(k)));
        round.updates.push_back(std::move(update));
    }
    round.global = random_model(round.graph, seed * 100 + 99);
    round.holdout = random_samples(width > 1000 ? 75 : 1100, width, 4, seed * 1000 + 99);
    return round;
}

/// Who holds what on `ranks` ranks: not in order, and some rank may hold nothing.
inline int owner_of(std::size_t k, int ranks) {
    return static_cast<int>((k * 5 + 1) % static_cast<std::size_t>(ranks));
}

inline std::vector<aggregator::Member> members_of(const Round& round, int ranks) {
    std::vector<aggregator::Member> members;
    for (std::size_t k = 0; k < round.updates.size(); ++k) {
        const auto& update = round.updates[k];
        members.push_back({update.client, update.samples, owner_of(k, ranks), update.graph});
    }
    return members;
}

/// Runs `work(state, context)` on `ranks` ranks, each with its own updates of the round.
inline void on_ranks(
    const Round& round, int ranks,
    const std::function<void(aggregator::FusionState&, const aggregator::FusionContext&)>& work) {
    run_ranks(ranks, [&](core::Communicator& communicator) {
        at::set_num_threads(1);  // of this thread
        aggregator::FusionState state;
        for (std::size_t k = 0; k < round.updates.size(); ++k) {
            if (owner_of(k, ranks) == communicator.rank()) state.updates.push_back(round.updates[k]);
        }
        std::unique_ptr<aggregator::StatisticsSource> server, clients;
        if (round.holdout != nullptr)
            server = aggregator::server_statistics(round.graph, round.holdout, communicator);
        if (!round.client_samples.empty()) {
            clients = aggregator::client_statistics(
                round.graph,
                [&](std::int64_t client) {
                    return round.client_samples.at(static_cast<std::size_t>(client / 3));
                },
                communicator, 0);
        }
        const aggregator::FusionContext context{.graph = round.graph,
                                                .symmetries = round.symmetries,
                                                .communicator = communicator,
                                                .seed = 5,
                                                .round = 2,
                                                .members = members_of(round, ranks),
                                                .global = round.global.defined() ? &round.global : nullptr,
                                                .server = server.get(),
                                                .clients = clients.get(),
                                                .holdout = round.holdout};
        work(state, context);
    });
}

inline bool same_bits(const model::Parameters& a, const model::Parameters& b) {
    return at::equal(a.values, b.values) && at::equal(a.counters, b.counters);
}

/// What came out of a pipeline.
struct Fused {
    model::Parameters merged;
    std::vector<aggregator::Update> updates;
    std::vector<aggregator::StageReport> reports;
    std::shared_ptr<const aggregator::Architecture>
        architecture{};  ///< of the merged model; nullptr: the round's
};

/// What the last stage that has a note of this name wrote there.
inline double note(const Fused& fused, const std::string& name) {
    for (auto report = fused.reports.rbegin(); report != fused.reports.rend(); ++report) {
        for (const auto& [key, value] : report->notes) {
            if (key == name) return value;
        }
    }
    ADD_FAILURE() << "no note " << name;
    return -1;
}

/// The same pointer for the same architecture.
inline std::shared_ptr<const model::ModelGraph> graph_handle(const aggregator::Architecture& architecture) {
    return {std::shared_ptr<const void>(), &architecture.graph};
}

/// Runs a pipeline on `ranks` ranks; every rank must come to the same end.
inline Fused fuse(const Round& round, const std::string& pipeline, int ranks = 1) {
    Fused result;
    std::mutex mutex;
    on_ranks(round, ranks, [&](aggregator::FusionState& state, const aggregator::FusionContext& context) {
        const auto parsed = aggregator::Pipeline::parse(pipeline);
        auto reports = parsed.run(state, context);
        // As they are after the last stage: of one width, perhaps of another architecture.
        aggregator::FusionContext after = context;
        for (auto& member : after.members)
            member.graph = state.architecture ? graph_handle(*state.architecture) : nullptr;
        for (auto& update : state.updates)
            update.graph = state.architecture ? graph_handle(*state.architecture) : nullptr;
        auto updates = aggregator::gather_updates(state, after);
        const std::lock_guard lock(mutex);
        if (!result.merged.defined()) {
            result = {state.merged, std::move(updates), std::move(reports), state.architecture};
            return;
        }
        EXPECT_TRUE(same_bits(result.merged, state.merged)) << pipeline << ": ranks disagree";
        for (std::size_t i = 0; i < reports.size(); ++i) {
            EXPECT_EQ(result.reports[i].notes, reports[i].notes)
                << pipeline << ": ranks disagree about notes";
        }
    });
    return result;
}

/// All samples of a set at once, as the graph takes them.
inline at::Tensor inputs_of(const model::ModelGraph& graph, const data::SampleSet& samples) {
    std::vector<std::int64_t> indices, shape{samples.size()};
    for (std::int64_t i = 0; i < samples.size(); ++i) indices.push_back(i);
    shape.insert(shape.end(), graph.input_shape().begin(), graph.input_shape().end());
    const at::Tensor x = at::empty(shape), y = at::empty({samples.size()}, at::kLong);
    samples.gather(indices, x.data_ptr<float>(), y.data_ptr<std::int64_t>());
    return x;
}

inline at::Tensor logits_of(const model::ModelGraph& graph, const model::Parameters& parameters,
                            const at::Tensor& x) {
    return model::forward(graph, model::views(parameters), parameters.is_double() ? x.to(at::kDouble) : x,
                          model::Mode::evaluate);
}

inline double largest_difference(const at::Tensor& a, const at::Tensor& b) {
    return (a.to(at::kDouble) - b.to(at::kDouble)).abs().max().item<double>();
}

/// Mean and biased variance of every channel of an operation's output, the plain way.
inline std::pair<at::Tensor, at::Tensor> channel_moments(const model::ModelGraph& graph,
                                                         const model::Parameters& parameters,
                                                         const at::Tensor& x, std::size_t operation) {
    at::Tensor out = model::forward(graph, model::views(parameters), x, model::Mode::evaluate, {}, operation);
    const std::int64_t axis = out.dim() == 3 ? 2 : 1;  // [N, T, E]: a sequence's channels come last
    out = out.to(at::kDouble).transpose(0, axis).flatten(1);
    return {out.mean(1), out.var(1, false)};
}

}  // namespace thalweg::testing
