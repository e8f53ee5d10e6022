#include <torch/types.h>

#include "../holdout_loss.hpp"
#include "thalweg/aggregator/exchange.hpp"
#include "thalweg/aggregator/repair.hpp"
#include "thalweg/aggregator/stage.hpp"
#include "thalweg/core/error.hpp"
#include "thalweg/core/interrupt.hpp"

namespace thalweg::aggregator {

namespace {

/// Softmax(mean logits ÷ T), the mean over the round's models with their weights, on every sample: [samples, classes],
/// double. Each rank asks its own models; collective, the same on every rank.
at::Tensor ensemble_targets(const FusionState& state, const FusionContext& context,
                            const std::vector<double>& weights, double temperature) {
    const auto& graph = context.graph;
    const auto& samples = *context.holdout;
    const std::int64_t classes = graph.classes();
    const at::Tensor sum = at::zeros({samples.size(), classes}, at::kDouble);
    std::size_t next = 0;
    for (std::size_t k = 0; k < context.members.size(); ++k) {
        const bool is_mine = context.members[k].owner == context.communicator.rank();
        at::Tensor own = at::zeros({samples.size(), classes}, at::kDouble);
        core::collectively(context.communicator, [&] {
            if (!is_mine) return;
            const Update& update = state.updates[next++];
            const auto& model = update.own.defined() ? update.own : update.parameters;
            std::int64_t first = 0;
            for_each_batch(
                samples, graph.input_shape(),
                [&](std::int64_t, const at::Tensor& x, const at::Tensor&) {
                    const at::Tensor logits = model::forward(
                        graph, model::views(model), x.to(model.values.scalar_type()), model::Mode::evaluate);
                    own.narrow(0, first, x.size(0)).copy_(logits);
                    first += x.size(0);
                },
                model::samples_at_once(graph));
        });
        context.communicator.broadcast({static_cast<std::byte*>(own.data_ptr()), own.nbytes()},
                                       context.members[k].owner);
        sum.add_(own, weights[k]);
    }
    return at::softmax(sum / temperature, 1);
}

/// A short training of the merged model on the server's hold-out: an upper mark for what finishers can do, bought with
/// labels and gradients that the others do without. `aim: labels` is fine-tuning; `ensemble` distils the clients' models
/// without labels: the softmax of their mean logits (Lin et al., *Ensemble Distillation for Robust Model Fusion*, NeurIPS
/// 2020). Departure: the mean has the reduction's weights; the source's is plain.
/// Adam; running statistics of batch norms are recomputed from the hold-out afterwards. Rank 0 trains.
class FineTune final : public Stage {
  public:
    explicit FineTune(const core::Value& options)
        : distils_(options["aim"].as_text() == "ensemble"),
          epochs_(options["epochs"].as_int()),
          batch_size_(options["batch_size"].as_int()),
          lr_(options["lr"].as_number()),
          temperature_(options["temperature"].as_number()) {}

    StageTraits traits() const override {
        return {.kind = StageKind::finisher,
                .needs_holdout = true,
                .upper_mark = true,
                .recomputes_norms = true,
                .fixed_point = false};
    }

    StageNotes apply(FusionState& state, const FusionContext& context) const override {
        core::collectively(context.communicator, [&] {
            if (context.holdout == nullptr) {
                throw core::UsageError(
                    "the stage fine_tune trains on the server's samples, and there are none: set "
                    "data.holdout");
            }
        });
        at::Tensor targets;
        if (distils_) targets = ensemble_targets(state, context, state.weights, temperature_);
        double loss = 0;
        model::Parameters tuned = core::collectively(context.communicator, [&] {
            model::Parameters result = state.merged.clone();
            if (context.communicator.rank() == 0) loss = train(result, context, targets);
            return result;
        });
        state.merged = broadcast_parameters(tuned, 0, context);
        context.communicator.broadcast(std::as_writable_bytes(std::span(&loss, 1)), 0);
        // The training saw its batches' statistics.
        const auto reset =
            reset_batch_norm(state.merged, context, source_of("server", context), state.weights);
        return {{"last_epoch_loss", loss}, {"batch_norms_reset", static_cast<double>(reset)}};
    }

  private:
    double train(model::Parameters& model, const FusionContext& context, const at::Tensor& targets) const {
        HoldoutLoss loss(context.graph, context.holdout, batch_size_,
                         core::Random(context.seed, "fine_tune", context.round), model.is_double());
        if (targets.defined()) loss.aim_at(targets, temperature_);
        AdamW optimizer(lr_);
        double of_epoch = 0;
        for (std::int64_t epoch = 0; epoch < epochs_; ++epoch) {
            of_epoch = 0;
            for (std::int64_t step = 0; step < loss.steps_per_epoch(); ++step) {
                core::check_interrupt();
                of_epoch += loss.step(model) / static_cast<double>(loss.steps_per_epoch());
                optimizer.step(model.trainable(), loss.gradient());
            }
        }
        return of_epoch;
    }

    bool distils_;
    std::int64_t epochs_, batch_size_;
    double lr_, temperature_;
};

const StageRegistration fine_tune_registration{
    {.kind = "stage",
     .name = "fine_tune",
     .help = "trains the merged model a little on the server's samples: an upper mark, not a merging method",
     .citation = "Lin, Kong, Stich & Jaggi, Ensemble Distillation for Robust Model Fusion, NeurIPS 2020 "
                 "(aim: ensemble)",
     .options =
         {core::choice("aim", {"labels", "ensemble"},
                       "what it learns: the samples' labels, or the softmax of the clients' mean logits")
              .by_default("labels"),
          core::integer("epochs", "passes over the samples").at_least(1).by_default(3),
          core::integer("batch_size", "samples of a step").at_least(1).by_default(50),
          core::number("lr", "learning rate of Adam").above(0).by_default(1e-4),
          core::number("temperature", "of the probabilities that are distilled").above(0).by_default(1)},
     .cost = "epochs of training on the hold-out, on one rank"},
    [](const core::Value& options) { return std::make_unique<FineTune>(options); }};

}  // namespace

}  // namespace thalweg::aggregator
