#include "thalweg/federation/cohort.hpp"

#include <algorithm>
#include <span>

#include "thalweg/core/error.hpp"
#include "thalweg/federation/plan.hpp"
#include "thalweg/record/json.hpp"

namespace thalweg::federation {

using record::Json;

Cohort::Cohort(const Experiment& experiment, const Setting& setting, const data::FederatedData& data,
               core::Communicator& communicator)
    : experiment_(experiment),
      setting_(setting),
      data_(data),
      communicator_(communicator),
      trainer_(std::make_unique<clients::LocalTrainer>(setting.graph, experiment.plan, experiment.seed)) {
    for (const auto& graph : setting.client_graphs) {
        own_.push_back(graph
                           ? std::make_unique<clients::LocalTrainer>(*graph, experiment.plan, experiment.seed)
                           : nullptr);
    }
}

clients::LocalTrainer& Cohort::trainer_of(std::int64_t client) const {
    if (own_.empty()) return *trainer_;
    const auto& own = own_[static_cast<std::size_t>(client) % own_.size()];
    return own ? *own : *trainer_;
}

CohortResult Cohort::train(std::int64_t round, const model::Parameters& start, bool keep_start,
                           const Progress& progress) {
    auto members = plan_round(experiment_, data_, round, communicator_.size());
    for (auto& member : members) member.graph = setting_.graph_of(member.client);
    const int rank = communicator_.rank();
    double work = 0, done = 0;
    for (const auto& member : members) {
        if (member.owner == rank) work += static_cast<double>(trainer_->steps_for(member.samples));
    }
    std::vector<aggregator::Update> updates;
    Json mine = Json::array();
    core::collectively(communicator_, [&] {
        for (const auto& member : members) {
            if (member.owner != rank) continue;
            aggregator::Update update{.client = member.client, .samples = member.samples};
            update.graph = member.graph;
            update.parameters = start.defined() ? start.clone()
                                                : initial_model(member.graph ? *member.graph : setting_.graph,
                                                                experiment_.seed, member.client);
            if (keep_start) update.start = update.parameters.clone();
            const double steps = static_cast<double>(trainer_->steps_for(member.samples));
            Json outcome = {{"client", member.client}, {"samples", member.samples}};
            try {
                const auto result =
                    trainer_of(member.client)
                        .train(update.parameters, *data_.client(member.client), member.client, round,
                               [&](double fraction) {
                                   progress((done + fraction * steps) / work,
                                            "training client " + std::to_string(member.client));
                               });
                outcome["loss"] = result.loss;
                outcome["steps"] = result.steps;
                outcome["seconds"] = result.seconds;
                outcome["rank"] = rank;
                updates.push_back(std::move(update));
            } catch (const clients::Diverged& error) {
                if (!experiment_.continue_on_failure) throw;
                outcome["error"] = error.what();
            }
            done += steps;
            mine.push_back(std::move(outcome));
        }
    });
    return collect(mine, members, std::move(updates), round);
}

/// Every rank learns how every client fared, in client-id order whatever rank it was on.
CohortResult Cohort::collect(const Json& mine, const std::vector<aggregator::Member>& members,
                             std::vector<aggregator::Update> updates, std::int64_t round) const {
    CohortResult cohort;
    cohort.updates = std::move(updates);
    std::vector<Json> outcomes;
    const std::string text = record::json_text(mine);
    for (const auto& bytes : communicator_.all_gather(std::as_bytes(std::span(text)))) {
        const std::string received(reinterpret_cast<const char*>(bytes.data()), bytes.size());
        for (auto& outcome : Json::parse(received)) outcomes.push_back(std::move(outcome));
    }
    std::sort(outcomes.begin(), outcomes.end(), [](const Json& a, const Json& b) {
        return a["client"].get<std::int64_t>() < b["client"].get<std::int64_t>();
    });
    double samples = 0;
    for (std::size_t i = 0; i < outcomes.size(); ++i) {
        if (outcomes[i].contains("error")) {
            if (communicator_.rank() == 0)
                record::warn(outcomes[i]["error"].get<std::string>() + "; the round goes on without it");
            cohort.failures.push_back(outcomes[i]);
            continue;
        }
        cohort.members.push_back(members[i]);
        samples += static_cast<double>(members[i].samples);
        cohort.loss += static_cast<double>(members[i].samples) * outcomes[i]["loss"].get<double>();
        cohort.clients.push_back(outcomes[i]);
    }
    if (cohort.members.empty()) {
        throw core::RunError(
            "every client of round " + std::to_string(round) +
            " diverged, so there is nothing to fuse; lower clients.algorithm.lr or set clients.clip");
    }
    cohort.loss /= samples;
    return cohort;
}

}  // namespace thalweg::federation
