#include "finishing.hpp"

#include <algorithm>
#include <iterator>
#include <utility>

#include "thalweg/core/error.hpp"
#include "thalweg/core/schema.hpp"

namespace thalweg::analysis {

namespace {

const std::vector<std::string> known{"none", "repair", "rescale", "reset_batch_norm"};

aggregator::RepairOptions repair_options(const std::string& how) {
    aggregator::RepairOptions options;
    options.residual = true;  // as the stage's default
    if (how == "rescale") options.mode = aggregator::RepairOptions::Mode::rescale;
    return options;
}

/// The moments of some of the operations.
aggregator::EndMoments selected(const aggregator::EndMoments& all,
                                const std::vector<std::size_t>& operations) {
    aggregator::EndMoments some{operations,
                                std::vector<std::vector<aggregator::ChannelMoments>>(all.ends.size())};
    for (const std::size_t operation : operations) {
        const auto at =
            std::find(all.operations.begin(), all.operations.end(), operation) - all.operations.begin();
        for (std::size_t k = 0; k < all.ends.size(); ++k) {
            some.ends[k].push_back(all.ends[k].at(static_cast<std::size_t>(at)));
        }
    }
    return some;
}

}  // namespace

Finisher::Finisher(const model::ModelGraph& graph, const model::Parameters& a, const model::Parameters& b,
                   const std::string& how, std::shared_ptr<const data::SampleSet> calibration,
                   core::Communicator& communicator)
    : graph_(graph),
      how_(how),
      calibration_(std::move(calibration)),
      communicator_(communicator),
      members_{{.client = 0, .samples = 1, .owner = 0},
               {.client = 1, .samples = 1, .owner = 1 % communicator.size()}} {
    if (std::find(known.begin(), known.end(), how) == known.end()) {
        throw core::UsageError(core::unknown_name("finish", how, known));
    }
    if (!calibration_) {
        if (how != "none") {
            throw core::UsageError("The finish '" + how + "' needs samples to look at, and there are none.");
        }
        return;
    }
    aggregator::FusionState ends;
    for (const auto& member : members_) {
        if (member.owner != communicator.rank()) continue;
        ends.updates.push_back(
            {.client = member.client, .samples = 1, .parameters = member.client == 0 ? a : b, .mask = {}});
    }
    const auto source = aggregator::server_statistics(graph_, calibration_, communicator_);
    const auto shown = variance_ratio_operations(graph_);
    const auto repaired = aggregator::repaired_operations(graph_, repair_options(how));
    std::vector<std::size_t> measured;  // layers, and the residual sums that REPAIR mends
    std::set_union(shown.begin(), shown.end(), repaired.begin(), repaired.end(),
                   std::back_inserter(measured));
    const auto all = aggregator::end_moments(ends, context(), *source, measured);
    ends_ = selected(all, shown);
    repaired_ends_ = selected(all, repaired);
}

aggregator::FusionContext Finisher::context() const {
    return {.graph = graph_,
            .symmetries = symmetries_,
            .communicator = communicator_,
            .members = members_,
            .holdout = nullptr};
}

model::Parameters Finisher::finish(const model::Parameters& between, double lambda) const {
    if (how_ == "none") return between;
    const auto source = aggregator::server_statistics(graph_, calibration_, communicator_);
    const std::vector<double> weights{1 - lambda, lambda};
    model::Parameters mended = core::collectively(communicator_, [&] { return between.clone(); });
    if (how_ == "reset_batch_norm") {
        aggregator::reset_batch_norm(mended, context(), *source, weights);
    } else {
        aggregator::repair(mended, repaired_ends_, context(), *source, weights, repair_options(how_));
    }
    return mended;
}

std::vector<double> Finisher::midpoint_variance_ratio(const model::Parameters& midpoint) const {
    const auto source = aggregator::server_statistics(graph_, calibration_, communicator_);
    std::vector<double> ratios;
    for (const auto& layer : variance_ratio(midpoint, ends_, context(), *source, {0.5, 0.5})) {
        ratios.push_back(layer.ratio);
    }
    return ratios;
}

model::Parameters with_fresh_norms(const model::ModelGraph& graph, const model::Parameters& parameters,
                                   std::shared_ptr<const data::SampleSet> calibration) {
    core::SelfCommunicator alone;
    const symmetry::Symmetries none;
    const aggregator::FusionContext context{.graph = graph,
                                            .symmetries = none,
                                            .communicator = alone,
                                            .members = {{.client = 0, .samples = 1, .owner = 0}},
                                            .holdout = nullptr};
    const auto source = aggregator::server_statistics(graph, std::move(calibration), alone);
    model::Parameters fresh = parameters.clone();
    aggregator::reset_batch_norm(fresh, context, *source, {1.0});
    return fresh;
}

}  // namespace thalweg::analysis
