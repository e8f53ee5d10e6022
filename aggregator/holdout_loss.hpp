#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "thalweg/core/random.hpp"
#include "thalweg/data/dataset.hpp"
#include "thalweg/model/graph.hpp"
#include "thalweg/model/interpreter.hpp"

namespace thalweg::aggregator {

/// The loss on samples that the server may look at, and its gradient: what methods that learn an alignment, or train the
/// merged model a little, go down. Autograd through the interpreter; on this rank alone.
///
/// Models with batch norms are run in training mode: a point between two models has no running statistics worth the name,
/// and a batch's own are the nearest; their steps then have dropout, too. Others are run in evaluation mode (without). The
/// models that are passed in stay as they are.
class HoldoutLoss {
  public:
    /// Mean cross-entropy against the labels. `batch`: samples of a `step`, at most all; `random`: their order, and
    /// dropout. RunError when there are no samples.
    HoldoutLoss(const model::ModelGraph& graph, std::shared_ptr<const data::SampleSet> samples,
                std::int64_t batch, core::Random random, bool double_precision = false);
    HoldoutLoss(const HoldoutLoss&) = delete;  // two would share their tensors
    /// T² times the cross-entropy of softmax(logits ÷ T) against `targets` [samples, classes], which are probabilities:
    /// distillation (Hinton, Vinyals & Dean 2015).
    void aim_at(at::Tensor targets, double temperature);

    /// The loss on the next batch (a new order each epoch); its gradient is in `gradient()` afterwards.
    double step(const model::Parameters& model);
    /// [layout.trainable_size()], in the models' type.
    const at::Tensor& gradient() const { return gradient_; }
    /// The loss over all samples, without dropout: it draws nothing, and the same model has the same loss.
    double whole(const model::Parameters& model);
    std::int64_t steps_per_epoch() const;

  private:
    at::Tensor loss_of(const at::Tensor& logits, const at::Tensor& labels,
                       std::span<const std::int64_t> indices) const;
    void load(const model::Parameters& model);
    void gather(std::span<const std::int64_t> indices);

    const model::ModelGraph& graph_;
    model::ModelGraph undropped_;
    std::shared_ptr<const data::SampleSet> samples_;
    std::int64_t batch_;
    core::Random random_;
    model::Mode mode_;
    model::Parameters scratch_;
    at::Tensor gradient_, targets_;
    double temperature_ = 1;
    model::Views leaves_, views_;
    std::vector<std::int64_t> order_;
    std::size_t position_ = 0;
    at::Tensor x_, y_;
};

/// AdamW (Loshchilov & Hutter, ICLR 2019) on one tensor, in place.
class AdamW {
  public:
    explicit AdamW(double lr, double weight_decay = 0.0) : lr_(lr), weight_decay_(weight_decay) {}
    void step(const at::Tensor& values, const at::Tensor& gradient);

  private:
    double lr_, weight_decay_;
    at::Tensor first_, second_;
    std::int64_t steps_ = 0;
};

}  // namespace thalweg::aggregator
