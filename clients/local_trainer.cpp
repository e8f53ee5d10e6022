#include <ATen/Functions.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <stdexcept>

#include "lanes.hpp"
#include "thalweg/clients/training.hpp"
#include "thalweg/core/interrupt.hpp"
#include "thalweg/core/memory.hpp"

namespace thalweg::clients {
namespace {

using Time = std::chrono::steady_clock;

double seconds_since(Time::time_point start) {
    return std::chrono::duration<double>(Time::now() - start).count();
}

/// A batch norm that sees one value a channel and sample, and needs two samples for its statistics.
bool has_flat_batch_norm(const model::ModelGraph& graph) {
    return std::any_of(graph.operations.begin(), graph.operations.end(),
                       [&](const model::Operation& operation) {
                           if (!std::holds_alternative<model::BatchNorm>(operation.kind)) return false;
                           const auto& shape = graph.shapes[static_cast<std::size_t>(operation.output)];
                           return std::all_of(shape.begin() + 1, shape.end(),
                                              [](std::int64_t extent) { return extent == 1; });
                       });
}

/// The loss over the last epoch's worth of steps.
class RecentLoss {
  public:
    RecentLoss(std::int64_t steps, std::int64_t per_epoch) : first_(steps - std::min(steps, per_epoch)) {}
    void add(std::int64_t step, double loss, std::size_t samples) {
        if (step < first_) return;
        sum_ += loss * static_cast<double>(samples);
        samples_ += static_cast<double>(samples);
    }
    double mean() const { return sum_ / samples_; }

  private:
    std::int64_t first_;
    double sum_ = 0, samples_ = 0;
};

/// Passes a fraction on at most every tenth of a second, and at the end.
class Ticker {
  public:
    explicit Ticker(const LocalTrainer::Progress& progress) : progress_(progress), last_(Time::now()) {}
    void tick(std::int64_t done, std::int64_t all) {
        if (!progress_) return;
        const auto now = Time::now();
        if (done < all && now - last_ < std::chrono::milliseconds(100)) return;
        last_ = now;
        progress_(static_cast<double>(done) / static_cast<double>(all));
    }

  private:
    const LocalTrainer::Progress& progress_;
    Time::time_point last_;
};

std::unique_ptr<LocalStep> step_with_room(const model::ModelGraph& graph) {
    const auto size = graph.layout->trainable_size();
    core::require_memory(4.0 * static_cast<double>(size),
                         "the gradient of a model of " + std::to_string(size) + " parameters");
    return make_local_step(graph);
}

}  // namespace

LocalTrainer::LocalTrainer(const model::ModelGraph& graph, TrainingPlan plan, std::uint64_t seed)
    : graph_(graph),
      plan_(std::move(plan)),
      seed_(seed),
      step_(step_with_room(graph)),
      algorithm_(core::Registry<std::unique_ptr<Algorithm>>::make(plan_.algorithm)),
      objective_(core::Registry<std::unique_ptr<Objective>>::make(plan_.objective)),
      schedule_(core::Registry<std::unique_ptr<Schedule>>::make(plan_.schedule)),
      needs_two_samples_(has_flat_batch_norm(graph)) {
    if (needs_two_samples_ && plan_.batch_size == 1) {
        throw core::UsageError(
            "clients.batch_size is 1, but the model has batch norm, whose statistics need at least two "
            "samples; set "
            "clients.batch_size to 2 or more, or model.norm to layer or none");
    }
}

std::int64_t LocalTrainer::steps_per_epoch(std::int64_t samples) const {
    const std::int64_t batches = (samples - 1) / plan_.batch_size + 1;
    return needs_two_samples_ && samples % plan_.batch_size == 1 ? batches - 1 : batches;
}

std::span<const std::int64_t> LocalTrainer::next_batch(BatchOrder& order) const {
    const auto batch = order.next();
    return needs_two_samples_ && batch.size() == 1 ? order.next() : batch;
}

std::vector<std::int64_t> LocalTrainer::sample_order(std::int64_t samples, std::int64_t client,
                                                     std::int64_t round) const {
    BatchOrder order(seed_, round, client, samples, plan_.batch_size);
    std::vector<std::int64_t> positions;
    for (std::int64_t step = 0; step < steps_for(samples); ++step) {
        const auto batch = next_batch(order);
        positions.insert(positions.end(), batch.begin(), batch.end());
    }
    return positions;
}

std::int64_t LocalTrainer::steps_for(std::int64_t samples) const {
    return plan_.steps ? *plan_.steps : plan_.epochs * steps_per_epoch(samples);
}

void LocalTrainer::make_room(std::int64_t samples, std::int64_t width) {
    const auto& shape = graph_.input_shape();
    const std::int64_t batch = std::min(plan_.batch_size, samples);
    if (!x_.defined() || x_.size(0) < batch) {
        std::vector<std::int64_t> sizes{batch};
        sizes.insert(sizes.end(), shape.begin(), shape.end());
        x_ = at::empty(sizes, at::kFloat);
        y_ = at::empty({batch}, at::kLong);
    }
    if (x_.numel() != x_.size(0) * width) {
        throw std::invalid_argument("samples of " + std::to_string(width) +
                                    " elements do not fit the model's input");
    }
}

double LocalTrainer::limit_gradient(std::span<float> gradient) const {
    float* g = gradient.data();
    const double norm =
        std::sqrt(lane_sum(gradient.size(), [=](std::size_t i) { return static_cast<double>(g[i]) * g[i]; }));
    if (norm > *plan_.clip) {
        const auto factor = static_cast<float>(*plan_.clip / norm);
        for (float& value : gradient) value *= factor;
    }
    return norm;
}

void LocalTrainer::report_divergence(const std::string& what, std::int64_t client, std::int64_t round,
                                     std::int64_t step, std::int64_t steps) const {
    std::string advice =
        "; lower clients.algorithm.lr (now " + core::Value::of(algorithm_->learning_rate()).as_text() + ")";
    if (!plan_.clip) advice += " or set clients.clip";
    throw Diverged("client " + std::to_string(client) + " diverged in round " + std::to_string(round) +
                   " at step " + std::to_string(step + 1) + " of " + std::to_string(steps) + ": " + what +
                   advice + ", or set clients.on_failure: continue to go on without it");
}

LocalResult LocalTrainer::train(model::Parameters& parameters, const data::SampleSet& samples,
                                std::int64_t client, std::int64_t round, const Progress& progress,
                                const TrainingStudy& study) {
    const auto started = Time::now();
    const std::int64_t per_epoch = steps_per_epoch(samples.size());
    if (needs_two_samples_ && per_epoch == 0) {
        throw core::RunError(
            "client " + std::to_string(client) +
            " has one sample, and the model's batch norm needs at least two; give every client more "
            "samples (data.partition), or set model.norm to layer or none");
    }
    const std::int64_t steps = steps_for(samples.size());
    make_room(samples.size(), samples.width());
    step_->bind(parameters);
    step_->draw_from(core::Random(seed_, "dropout", round, client));
    const auto trainable = static_cast<std::size_t>(graph_.layout->trainable_size());
    const std::span<float> values(parameters.data(), trainable);
    const std::span<float> gradient(step_->gradient().data_ptr<float>(), trainable);
    algorithm_->start(graph_.layout->trainable_size());
    if (!objective_->empty()) start_.assign(values.begin(), values.end());

    BatchOrder order(seed_, round, client, samples.size(), plan_.batch_size);
    RecentLoss recent(steps, per_epoch);
    Ticker ticker(progress);
    for (std::int64_t step = 0; step < steps; ++step) {
        core::check_interrupt();
        if (study.fork_at == step)
            order = BatchOrder(study.order_seed, round, client, samples.size(), plan_.batch_size);
        const auto batch = next_batch(order);
        samples.gather(batch, x_.data_ptr<float>(), y_.data_ptr<std::int64_t>());
        const auto n = static_cast<std::int64_t>(batch.size());
        const double loss = step_->compute(x_.narrow(0, 0, n), y_.narrow(0, 0, n));
        if (!std::isfinite(loss)) {
            report_divergence(std::isnan(loss) ? "the loss is nan" : "the loss is infinite", client, round,
                              step, steps);
        }
        if (!objective_->empty()) objective_->add(values, start_, gradient);
        if (plan_.clip && !std::isfinite(limit_gradient(gradient))) {
            report_divergence("the gradient's norm is not finite", client, round, step, steps);
        }
        const double factor = schedule_->factor({step, steps, round, plan_.rounds});
        algorithm_->step(values, gradient, algorithm_->learning_rate() * factor);
        recent.add(step, loss, batch.size());
        ticker.tick(step + 1, steps);
        if (study.after_step) study.after_step(step + 1);
    }
    // The loss of a step is taken before its update: what the last one did shows in the parameters alone.
    if (const auto fault = parameters.first_non_finite()) {
        report_divergence("its model holds values that are not finite, first in " + *fault, client, round,
                          steps - 1, steps);
    }
    return {.loss = recent.mean(), .steps = steps, .seconds = seconds_since(started)};
}

}  // namespace thalweg::clients
