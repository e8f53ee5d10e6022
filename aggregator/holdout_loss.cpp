#include "holdout_loss.hpp"

#include <torch/types.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <span>
#include <variant>

#include "thalweg/aggregator/statistics.hpp"
#include "thalweg/core/error.hpp"
#include "thalweg/core/interrupt.hpp"

namespace thalweg::aggregator {

namespace {

bool has_batch_norm(const model::ModelGraph& graph) {
    return std::any_of(graph.operations.begin(), graph.operations.end(),
                       [](const model::Operation& operation) {
                           return std::holds_alternative<model::BatchNorm>(operation.kind);
                       });
}

/// The same graph, its dropouts passing everything.
model::ModelGraph without_dropout(model::ModelGraph graph) {
    for (auto& operation : graph.operations) {
        if (auto* dropout = std::get_if<model::Dropout>(&operation.kind)) dropout->p = 0;
    }
    return graph;
}

}  // namespace

HoldoutLoss::HoldoutLoss(const model::ModelGraph& graph, std::shared_ptr<const data::SampleSet> samples,
                         std::int64_t batch, core::Random random, bool double_precision)
    : graph_(graph),
      undropped_(without_dropout(graph)),
      samples_(std::move(samples)),
      batch_(batch),
      random_(std::move(random)),
      mode_(has_batch_norm(graph) ? model::Mode::train : model::Mode::evaluate),
      scratch_(graph.layout, double_precision) {
    if (samples_ == nullptr || samples_->size() == 0) {
        throw core::RunError(
            "a stage goes by the loss on the server's samples, and there are none; set data.holdout");
    }
    batch_ = std::min(batch_, samples_->size());
    gradient_ = at::zeros({graph.layout->trainable_size()}, scratch_.values.options());
    leaves_ = model::leaf_views(scratch_, gradient_);
    views_ = model::views(scratch_);
    leaves_.random = &random_;
    std::vector<std::int64_t> shape{std::max(batch_, model::samples_at_once(graph))};
    shape.front() = std::min(shape.front(), samples_->size());
    y_ = at::empty({shape.front()}, at::kLong);
    shape.insert(shape.end(), graph.input_shape().begin(), graph.input_shape().end());
    x_ = at::empty(shape, at::kFloat);
    order_.resize(static_cast<std::size_t>(samples_->size()));
    std::iota(order_.begin(), order_.end(), std::int64_t{0});
    position_ = order_.size();
}

void HoldoutLoss::aim_at(at::Tensor targets, double temperature) {
    targets_ = std::move(targets);
    temperature_ = temperature;
}

std::int64_t HoldoutLoss::steps_per_epoch() const {
    return (samples_->size() + batch_ - 1) / batch_;
}

at::Tensor HoldoutLoss::loss_of(const at::Tensor& logits, const at::Tensor& labels,
                                std::span<const std::int64_t> indices) const {
    if (!targets_.defined()) return at::cross_entropy_loss(logits, labels);
    const at::Tensor aim =
        targets_.index_select(0, at::tensor(at::ArrayRef(indices.data(), indices.size()), at::kLong))
            .to(logits.scalar_type());
    const at::Tensor log_p = at::log_softmax(logits / temperature_, 1);
    return -(aim * log_p).sum(1).mean() * (temperature_ * temperature_);
}

void HoldoutLoss::load(const model::Parameters& model) {
    scratch_.values.copy_(model.values);
    scratch_.counters.copy_(model.counters);
}

void HoldoutLoss::gather(std::span<const std::int64_t> indices) {
    samples_->gather(indices, x_.data_ptr<float>(), y_.data_ptr<std::int64_t>());
}

double HoldoutLoss::step(const model::Parameters& model) {
    core::check_interrupt();
    if (position_ >= order_.size()) {
        random_.shuffle(std::span(order_));
        position_ = 0;
    }
    std::size_t count = std::min(static_cast<std::size_t>(batch_), order_.size() - position_);
    // A batch norm cannot take the statistics of one sample: a last batch of one is left out of the epoch.
    if (count == 1 && order_.size() > 1 && mode_ == model::Mode::train) {
        random_.shuffle(std::span(order_));
        position_ = 0;
        count = static_cast<std::size_t>(batch_);
    }
    const auto indices = std::span<const std::int64_t>(order_).subspan(position_, count);
    position_ += count;
    load(model);
    gather(indices);
    const auto n = static_cast<std::int64_t>(count);
    const at::AutoGradMode recording(true);
    gradient_.zero_();  // backward adds
    const at::Tensor x = x_.narrow(0, 0, n).to(scratch_.values.scalar_type());
    const at::Tensor loss = loss_of(model::forward(graph_, leaves_, x, mode_), y_.narrow(0, 0, n), indices);
    loss.backward();
    return loss.item<double>();
}

double HoldoutLoss::whole(const model::Parameters& model) {
    const at::NoGradGuard no_grad;
    load(model);
    const auto most = static_cast<std::size_t>(std::min(model::samples_at_once(graph_), x_.size(0)));
    std::vector<std::int64_t> all(order_.size());
    std::iota(all.begin(), all.end(), std::int64_t{0});
    double sum = 0, counted = 0;
    for (std::size_t first = 0; first < all.size(); first += most) {
        core::check_interrupt();
        const std::size_t count = std::min(most, all.size() - first);
        // A batch norm cannot take the statistics of one sample: the last one is left out then.
        if (count == 1 && first > 0 && mode_ == model::Mode::train) break;
        const auto indices = std::span<const std::int64_t>(all).subspan(first, count);
        gather(indices);
        const auto n = static_cast<std::int64_t>(count);
        const at::Tensor x = x_.narrow(0, 0, n).to(scratch_.values.scalar_type());
        const at::Tensor logits = model::forward(undropped_, views_, x, mode_);
        sum += loss_of(logits, y_.narrow(0, 0, n), indices).item<double>() * static_cast<double>(n);
        counted += static_cast<double>(n);
    }
    return sum / counted;
}

void AdamW::step(const at::Tensor& values, const at::Tensor& gradient) {
    constexpr double beta1 = 0.9, beta2 = 0.999, epsilon = 1e-8;
    if (!first_.defined()) {
        first_ = at::zeros_like(values);
        second_ = at::zeros_like(values);
    }
    ++steps_;
    first_.mul_(beta1).add_(gradient, 1 - beta1);
    second_.mul_(beta2).addcmul_(gradient, gradient, 1 - beta2);
    const double correction = std::sqrt(1 - std::pow(beta2, steps_)) / (1 - std::pow(beta1, steps_));
    values.mul_(1 - lr_ * weight_decay_);
    values.addcdiv_(first_, second_.sqrt().add_(epsilon), -lr_ * correction);
}

}  // namespace thalweg::aggregator
