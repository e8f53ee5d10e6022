#include <torch/types.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <vector>

#include "coordinatewise.hpp"
#include "thalweg/aggregator/repair.hpp"
#include "thalweg/aggregator/stage.hpp"
#include "thalweg/core/interrupt.hpp"
#include "thalweg/model/interpreter.hpp"

namespace thalweg::aggregator {

namespace {

/// A class drawn from softmax(logits).
std::int64_t drawn_class(const at::Tensor& logits, core::Random& random) {
    const at::Tensor p = logits.detach().to(at::kDouble).flatten().softmax(0);
    double left = random.uniform();
    for (std::int64_t c = 0; c < p.numel(); ++c) {
        left -= p.data_ptr<double>()[c];
        if (left < 0) return c;
    }
    return p.numel() - 1;
}

/// The diagonal of the Fisher information: the mean over samples of the squared gradient of log p(y | x), sample by sample;
/// y the data's label, or drawn from the model. [layout.trainable_size()], double.
at::Tensor fisher_diagonal(const model::ModelGraph& graph, const model::Parameters& given,
                           const data::SampleSet& samples, bool from_model, core::Random random) {
    model::Parameters parameters = given.clone();
    const at::Tensor gradient = at::zeros({graph.layout->trainable_size()}, parameters.values.options());
    const auto views = model::leaf_views(parameters, gradient);
    at::Tensor sum = at::zeros({gradient.numel()}, at::kDouble);
    for_each_batch(
        samples, graph.input_shape(),
        [&](std::int64_t, const at::Tensor& x, const at::Tensor& y) {
            const at::AutoGradMode recording(true);
            gradient.zero_();
            const at::Tensor logits =
                model::forward(graph, views, x.to(parameters.values.scalar_type()), model::Mode::evaluate);
            const at::Tensor label =
                from_model ? at::full({1}, drawn_class(logits, random), at::kLong) : y.clone();
            at::cross_entropy_loss(logits, label).backward();
            sum.addcmul_(gradient.to(at::kDouble), gradient.to(at::kDouble));
        },
        1);
    return sum.div_(static_cast<double>(samples.size()));
}

/// Fisher-weighted averaging (Matena & Raffel, NeurIPS 2022): coordinate by coordinate Σ w_k F_k θ_k ÷ Σ w_k F_k, F_k the
/// diagonal of client k's Fisher information, no less than `floor`. Running statistics take the weighted mean.
///
/// The source takes the expectation over the model's own predictions, by default as here with one draw a sample; `labels:
/// data` is the empirical Fisher information. Whose data: the clients', each its own, or the server's.
class FisherMean final : public Stage {
  public:
    explicit FisherMean(const core::Value& options)
        : statistics_(options["statistics"].as_text()),
          samples_(options["samples"].as_int()),
          from_model_(options["labels"].as_text() == "model"),
          floor_(options["floor"].as_number()),
          weighting_(weighting_of(options["weights"].as_text())) {}

    StageTraits traits() const override {
        return {.kind = StageKind::reduction,
                .needs_holdout = statistics_ == "server",
                .needs_clients = statistics_ == "clients"};
    }

    StageNotes apply(FusionState& state, const FusionContext& context) const override {
        const auto w =
            core::collectively(context.communicator, [&] { return weights(context.members, weighting_); });
        const auto source = source_of(statistics_, context).limited(samples_);
        const auto fishers = core::collectively(context.communicator, [&] {
            std::vector<Update> result;
            for (const Update& update : state.updates) {
                core::check_interrupt();
                Update fisher = update;
                fisher.mask = at::Tensor();
                fisher.parameters = model::Parameters(context.graph.layout, update.parameters.is_double());
                fisher.parameters.trainable().copy_(
                    fisher_diagonal(context.graph, update.parameters, *source->samples_of(update),
                                    from_model_,
                                    core::Random(context.seed, "fisher", context.round, update.client))
                        .clamp_min_(floor_));
                result.push_back(std::move(fisher));
            }
            return result;
        });
        const UpdateSlices importance(fishers, context, context.graph.layout->size());
        const std::int64_t trainable = context.graph.layout->trainable_size();
        state.merged = reduce_coordinates(
            state.updates, context,
            [&](const UpdateSlices& slices, std::int64_t first, std::span<double> out) {
                std::array<double, block_length> value, fisher, total;
                const std::size_t n = out.size();
                std::fill(out.begin(), out.end(), 0.0);
                total.fill(0);
                for (std::size_t k = 0; k < slices.count(); ++k) {
                    slices.load(k, first, std::span(value).first(n));
                    if (first < trainable) {
                        importance.load(k, first, std::span(fisher).first(n));
                    } else {
                        fisher.fill(1);
                    }
                    for (std::size_t i = 0; i < n; ++i) {
                        out[i] += w[k] * fisher[i] * value[i];
                        total[i] += w[k] * fisher[i];
                    }
                }
                for (std::size_t i = 0; i < n; ++i) {
                    out[i] /= total[i];
                    if (!std::isfinite(out[i]))
                        refuse_coordinate(context, slices, first + static_cast<std::int64_t>(i));
                }
            });
        state.weights = w;
        return {};
    }

  private:
    std::string statistics_;
    std::int64_t samples_;
    bool from_model_;
    double floor_;
    Weighting weighting_;
};

const StageRegistration fisher_mean_registration{
    {.kind = "stage",
     .name = "fisher_mean",
     .help = "mean weighted coordinate by coordinate by each model's Fisher information",
     .citation = "Matena & Raffel, Merging Models with Fisher-Weighted Averaging, NeurIPS 2022",
     .options = {core::choice("statistics", {"clients", "server"},
                              "whose data: every client's own, or the server's hold-out")
                     .by_default("clients"),
                 core::integer("samples", "samples a client looks at; 0: all").at_least(0).by_default(200),
                 core::choice("labels", {"model", "data"},
                              "labels drawn from the model, or those of the data")
                     .by_default("model"),
                 core::number("floor", "least information of a coordinate").above(0).by_default(1e-6),
                 core::choice("weights", {"samples", "uniform"},
                              "what a client counts besides: its samples, or all alike")
                     .by_default("samples")},
     .cost = "a forward and backward pass a sample, one by one, on the updates' ranks; O(K · d ÷ ranks) "
             "after two "
             "exchanges"},
    [](const core::Value& options) { return std::make_unique<FisherMean>(options); }};

}  // namespace

}  // namespace thalweg::aggregator
