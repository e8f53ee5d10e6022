#include "thalweg/federation/plan.hpp"

#include "thalweg/backend/backend.hpp"

namespace thalweg::federation {

namespace {

/// About how many batches a client goes through: the work its rank has with it, for placement only.
std::int64_t local_steps(const clients::TrainingPlan& plan, std::int64_t samples) {
    return plan.steps ? *plan.steps : plan.epochs * ((samples + plan.batch_size - 1) / plan.batch_size);
}

}  // namespace

std::vector<aggregator::Member> plan_round(const Experiment& experiment, const data::FederatedData& data,
                                           std::int64_t round, int ranks) {
    const auto sampler =
        core::Registry<std::unique_ptr<Sampler>>::make(experiment.config["server"]["sampler"]);
    core::Random random(experiment.seed, "cohort", round);
    std::vector<aggregator::Member> members;
    std::vector<std::int64_t> costs;
    for (const auto client : sampler->sample(data, random)) {
        members.push_back({.client = client, .samples = data.samples(client)});
        costs.push_back(local_steps(experiment.plan, members.back().samples));
    }
    const auto owners = backend::place(costs, ranks);
    for (std::size_t i = 0; i < members.size(); ++i) members[i].owner = owners[i];
    return members;
}

}  // namespace thalweg::federation
