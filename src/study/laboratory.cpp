#include "thalweg/aggregator/matching.hpp"
#include "thalweg/aggregator/stage.hpp"
#include "thalweg/study/workbench.hpp"

namespace thalweg::study {

analysis::Evaluation Laboratory::test_score(const model::Parameters& parameters) const {
    return analysis::evaluate_alone(setting.graph, parameters, *test);
}

analysis::Evaluation Laboratory::train_score(const model::Parameters& parameters) const {
    return analysis::evaluate_alone(setting.graph, parameters, *train);
}

model::Parameters Laboratory::fuse(const std::vector<model::Parameters>& models, const std::string& pipeline,
                                   std::uint64_t seed) const {
    core::SelfCommunicator alone;
    const auto stages = aggregator::Pipeline::parse(pipeline);
    const auto server = aggregator::server_statistics(setting.graph, calibration, alone);
    aggregator::FusionContext context{.graph = setting.graph,
                                      .symmetries = setting.symmetries,
                                      .communicator = alone,
                                      .seed = seed,
                                      .members = {},
                                      .server = server.get(),
                                      .holdout = calibration};
    aggregator::FusionState state;
    for (std::size_t i = 0; i < models.size(); ++i) {
        const auto client = static_cast<std::int64_t>(i);
        context.members.push_back({.client = client, .samples = 1, .owner = 0});
        state.updates.push_back({.client = client, .samples = 1, .parameters = models[i].clone()});
    }
    stages.run(state, context);
    return state.merged;
}

model::Parameters Laboratory::align(const model::Parameters& a, const model::Parameters& b,
                                    const std::string& method, std::uint64_t seed) const {
    if (method == "none") return b;
    const auto match =
        aggregator::align(method, {setting.graph, setting.symmetries, a, b, calibration}, seed);
    return aggregator::moved_model(setting.graph, setting.symmetries, b, match);
}

}  // namespace thalweg::study
