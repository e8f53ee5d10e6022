#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "thalweg/clients/schedule.hpp"
#include "thalweg/core/error.hpp"
#include "thalweg/core/random.hpp"
#include "thalweg/core/registry.hpp"
#include "thalweg/data/dataset.hpp"
#include "thalweg/model/graph.hpp"

namespace thalweg::clients {

/// The narrow seam behind which a training step computes: mean cross-entropy of a batch and its gradient over the flat
/// vector. Constructed for one graph; bound to a client's parameters with `bind`; buffers are kept between clients.
class LocalStep {
  public:
    virtual ~LocalStep() = default;
    /// Works on `parameters` (float32, trained in place: running statistics are updated) from now on.
    virtual void bind(const model::Parameters& parameters) = 0;
    /// `x` [n, sample shape…], `y` int64 [n]. Overwrites `gradient()` and returns the mean loss.
    virtual double compute(const at::Tensor& x, const at::Tensor& y) = 0;
    /// [layout.trainable_size()], float32.
    virtual const at::Tensor& gradient() const = 0;
    /// `autograd` or `compiled`
    virtual std::string name() const = 0;
    /// Where dropout draws from until the next call. Without dropout in the graph: no effect.
    virtual void draw_from(const core::Random&) {}
};

/// Autograd through the interpreter: works for every graph, and is the oracle of any other.
std::unique_ptr<LocalStep> autograd_step(const model::ModelGraph& graph);
/// Hand-written forward and backward with preallocated buffers, for chains of linear layers and activations; nullptr
/// for graphs it does not cover.
std::unique_ptr<LocalStep> compiled_step(const model::ModelGraph& graph);
/// compiled_step where it covers the graph, else autograd_step. The choice depends on the graph only.
std::unique_ptr<LocalStep> make_local_step(const model::ModelGraph& graph);

/// A client's optimizer: one fused pass over the flat vector. Registry kind `algorithm`.
class Algorithm {
  public:
    virtual ~Algorithm() = default;
    /// Forgets all state and sizes it for `n` elements. Called at the start of every local training.
    virtual void start(std::int64_t n) = 0;
    /// values −= lr · direction(gradient). Both have n elements.
    virtual void step(std::span<float> values, std::span<const float> gradient, double lr) = 0;
    /// The base learning rate, before the schedule.
    virtual double learning_rate() const = 0;
};
using AlgorithmRegistration = core::Registration<std::unique_ptr<Algorithm>>;

/// A term that a client adds to its loss. Registry kind `objective`: none, fedprox, fedsign.
class Objective {
  public:
    virtual ~Objective() = default;
    /// Adds the term's gradient at `local` to `gradient` and returns its value. `global`: the model the client started
    /// from (the same length).
    virtual double add(std::span<const float> local, std::span<const float> global,
                       std::span<float> gradient) const = 0;
    /// True when `add` does nothing (so that it is not called).
    virtual bool empty() const { return false; }
};
using ObjectiveRegistration = core::Registration<std::unique_ptr<Objective>>;

/// What the `clients` section says: everything a client needs to know beside its data and its start.
struct TrainingPlan {
    core::Value algorithm;  ///< resolved plug-in sections
    core::Value objective;
    core::Value schedule;
    std::int64_t epochs = 1;  ///< used when steps is empty
    std::optional<std::int64_t> steps;
    std::int64_t batch_size = 32;
    std::optional<double> clip;  ///< largest L2 norm of the gradient (with the objective's)
    std::int64_t rounds = 1;     ///< of the experiment, for schedules over rounds

    /// The `clients` section's schema (algorithm, objective, schedule, epochs, steps, batch_size, clip, init,
    /// on_failure), shared by `run`, `train` and the documentation.
    static core::Option schema();
    /// From the resolved section; `rounds` from the server's.
    static TrainingPlan from(const core::Value& clients, std::int64_t rounds);
};

/// The batches of one local training: order of the samples in each epoch, from (seed, "batches", round, client) only.
/// Batch b of epoch e is order(e)[b·batch_size …); the last one of an epoch may be smaller.
class BatchOrder {
  public:
    BatchOrder(std::uint64_t seed, std::int64_t round, std::int64_t client, std::int64_t samples,
               std::int64_t batch_size);
    /// The next batch: indices into the client's samples; reshuffles at the end of an epoch.
    std::span<const std::int64_t> next();
    std::int64_t batches_per_epoch() const;

  private:
    core::Random random_;
    std::vector<std::int64_t> order_;
    std::size_t position_ = 0;
    std::int64_t batch_size_;
};

/// What came of a local training.
struct LocalResult {
    /// Mean cross-entropy, without the objective's term, over the samples of the last epoch's worth of steps (of all
    /// steps when there are fewer), each taken before its step.
    double loss = 0;
    std::int64_t steps = 0;
    double seconds = 0;
};

/// What a study of training itself needs beside the result.
struct TrainingStudy {
    /// After each optimizer step, with the number of steps done (1, 2, …); `parameters` of `train` are as they stand then.
    std::function<void(std::int64_t step)> after_step{};
    /// From this step on the batches come in another order, (`order_seed`, "batches", round, client)'s from its start; everything
    /// before it is bit for bit the training without a fork (Frankle et al., ICML 2020). `order_seed` is not looked at
    /// when absent.
    std::optional<std::int64_t> fork_at{};
    std::uint64_t order_seed = 0;
};

/// Trains virtual clients one after another; buffers are kept between them. One per rank. The algorithm's state
/// (momentum, Adam's moments) starts anew in every local training.
///
/// Batch norm over [N, C] (or 1×1 images) has no statistics for a batch of one sample; for a graph that has such a norm, a last batch of
/// one sample is left out of the epoch, and a client with one sample in all is a RunError.
class LocalTrainer {
  public:
    /// Keeps a reference to `graph`. UsageError for options of the plan's plug-ins that do not fit together.
    LocalTrainer(const model::ModelGraph& graph, TrainingPlan plan, std::uint64_t seed);

    /// Called now and then with the fraction done of this client's training.
    using Progress = std::function<void(double fraction)>;

    /// Trains `parameters` (float32) in place, from where they stand, on `samples`. Diverged names client, round and
    /// step when the loss is not finite (or, with `clip`, the gradient's norm), and leaves `parameters` as they were
    /// before that step, running statistics excepted; Interrupted within one step of a signal. Not collective.
    LocalResult train(model::Parameters& parameters, const data::SampleSet& samples, std::int64_t client,
                      std::int64_t round, const Progress& progress = {}, const TrainingStudy& study = {});
    /// The client's samples (positions in its part) in the order in which `train` sees them that round, batch after
    /// batch: what an independent program needs to repeat it.
    std::vector<std::int64_t> sample_order(std::int64_t samples, std::int64_t client,
                                           std::int64_t round) const;
    /// Optimizer steps of a client with so many samples.
    std::int64_t steps_for(std::int64_t samples) const;
    /// `compiled` or `autograd`, for the record.
    std::string step_name() const { return step_->name(); }

  private:
    std::int64_t steps_per_epoch(std::int64_t samples) const;
    std::span<const std::int64_t> next_batch(BatchOrder& order) const;
    void make_room(std::int64_t samples, std::int64_t width);
    double limit_gradient(std::span<float> gradient) const;
    [[noreturn]] void report_divergence(const std::string& what, std::int64_t client, std::int64_t round,
                                        std::int64_t step, std::int64_t steps) const;

    const model::ModelGraph& graph_;
    TrainingPlan plan_;
    std::uint64_t seed_;
    std::unique_ptr<LocalStep> step_;
    std::unique_ptr<Algorithm> algorithm_;
    std::unique_ptr<Objective> objective_;
    std::unique_ptr<Schedule> schedule_;
    bool needs_two_samples_ = false;  ///< a batch norm would see one value a channel in a batch of one
    at::Tensor x_, y_;                ///< a batch: [batch_size, input shape…] and [batch_size]
    std::vector<float> start_;        ///< the trainable entries the client started from, for the objective
};

/// A client's loss became NaN or infinite.
class Diverged : public core::RunError {
  public:
    using core::RunError::RunError;
};

}  // namespace thalweg::clients
