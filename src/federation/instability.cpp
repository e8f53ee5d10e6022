#include "thalweg/federation/instability.hpp"

#include <torch/types.h>

#include <algorithm>
#include <span>
#include <string>

#include "thalweg/core/error.hpp"
#include "thalweg/core/random.hpp"

namespace thalweg::federation {

namespace {

/// One training: as configured, or forked.
struct Job {
    std::optional<std::int64_t> fork_at;
    std::uint64_t order_seed = 0;
};

std::uint64_t other_order(const Experiment& experiment, std::int64_t repeat) {
    return core::Random(experiment.seed, "instability", repeat).next();
}

std::vector<Job> jobs_of(const Experiment& experiment, const std::vector<std::int64_t>& steps,
                         std::int64_t repeats) {
    std::vector<Job> jobs{Job{}};
    for (const std::int64_t step : steps) {
        for (std::int64_t r = 0; r < repeats; ++r) jobs.push_back({step, other_order(experiment, r)});
    }
    return jobs;
}

void check(const std::vector<std::int64_t>& steps, std::int64_t last, const InstabilityOptions& options) {
    if (steps.empty()) throw core::UsageError("Say from which step on the two copies part.");
    for (const std::int64_t step : steps) {
        if (step >= 0 && step <= last) continue;
        throw core::UsageError("The copies cannot part at step " + std::to_string(step) +
                               ": the training has " + std::to_string(last) +
                               " steps; give a step from 0 to " + std::to_string(last) + ".");
    }
    if (options.points < 3) {
        throw core::UsageError(
            "A barrier needs a point between the copies: at least 3 points with the ends, not " +
            std::to_string(options.points) + ".");
    }
    if (options.repeats < 1) {
        throw core::UsageError("Instability needs at least 1 other order, not " +
                               std::to_string(options.repeats) + ".");
    }
}

/// What this rank's jobs end in; the others' models are left empty.
std::vector<model::Parameters> train(const Experiment& experiment, const Setting& setting,
                                     const data::SampleSet& samples, const std::vector<Job>& jobs,
                                     core::Communicator& communicator,
                                     const std::function<void(double)>& progress) {
    return core::collectively(communicator, [&] {
        std::vector<model::Parameters> models(jobs.size());
        const auto rank = static_cast<std::size_t>(communicator.rank());
        const auto ranks = static_cast<std::size_t>(communicator.size());
        const std::size_t mine = rank < jobs.size() ? (jobs.size() - rank - 1) / ranks + 1 : 0;
        clients::LocalTrainer trainer(setting.graph, experiment.plan, experiment.seed);
        std::size_t done = 0;
        for (std::size_t job = rank; job < jobs.size(); job += ranks, ++done) {
            models[job] = initial_model(setting.graph, experiment.seed, -1);
            trainer.train(
                models[job], samples, 0, 1,
                [&](double fraction) {
                    if (progress)
                        progress((static_cast<double>(done) + fraction) / static_cast<double>(mine));
                },
                {.after_step = {}, .fork_at = jobs[job].fork_at, .order_seed = jobs[job].order_seed});
        }
        return models;
    });
}

void share(std::vector<model::Parameters>& models, const Setting& setting, core::Communicator& communicator) {
    for (std::size_t job = 0; job < models.size(); ++job) {
        const int owner = static_cast<int>(job % static_cast<std::size_t>(communicator.size()));
        core::collectively(communicator, [&] {
            if (!models[job].defined()) models[job] = model::Parameters(setting.graph.layout);
        });
        for (const auto& tensor : {models[job].values, models[job].counters}) {
            if (!tensor.defined() || tensor.numel() == 0) continue;
            communicator.broadcast(std::span(static_cast<std::byte*>(tensor.data_ptr()), tensor.nbytes()),
                                   owner);
        }
    }
}

}  // namespace

InstabilityResult instability(const Experiment& experiment, const Setting& setting,
                              const std::vector<std::int64_t>& steps, const InstabilityOptions& options,
                              core::Communicator& communicator, const std::function<void(double)>& progress) {
    const auto train_set = setting.dataset->train();
    const auto test_set = setting.dataset->test();
    if (!train_set) {
        throw core::UsageError(setting.dataset->name() +
                               " has no training set as a whole, only clients' parts; measure instability on "
                               "another data set.");
    }
    InstabilityResult result;
    result.last = core::collectively(communicator, [&] {
        return clients::LocalTrainer(setting.graph, experiment.plan, experiment.seed)
            .steps_for(train_set->size());
    });
    check(steps, result.last, options);
    if (options.finish != "none" && !options.calibration) {
        throw core::UsageError("The finish '" + options.finish +
                               "' needs samples to look at, and there are none.");
    }
    const auto jobs = jobs_of(experiment, steps, options.repeats);
    auto models = train(experiment, setting, *train_set, jobs, communicator, progress);
    share(models, setting, communicator);
    const auto calibration = options.finish == "none" ? nullptr : options.calibration;
    const std::vector<analysis::Split> splits{{"train", train_set.get()}, {"test", test_set.get()}};
    std::size_t job = 1;
    for (const std::int64_t step : steps) {
        Instability found{.step = step, .curves = {}};
        for (std::int64_t r = 0; r < options.repeats; ++r, ++job) {
            found.curves.push_back(analysis::linear_curve(
                setting.graph, models[0], models[job], splits,
                {.points = options.points, .finish = options.finish}, calibration, communicator));
            const auto& measured = found.curves.back().splits;
            const auto n = static_cast<double>(options.repeats);
            found.train_barrier += measured[0].second.error_barrier / n;
            found.test_barrier += measured[1].second.error_barrier / n;
            found.loss_barrier += measured[1].second.loss_barrier / n;
        }
        found.stable = found.test_barrier < options.stable_below;
        result.steps.push_back(std::move(found));
    }
    return result;
}

}  // namespace thalweg::federation
