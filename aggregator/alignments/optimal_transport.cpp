#include <torch/types.h>

#include <algorithm>
#include <memory>
#include <span>
#include <stdexcept>
#include <string>

#include "sinkhorn.hpp"
#include "thalweg/aggregator/stage.hpp"
#include "thalweg/aggregator/statistics.hpp"
#include "thalweg/core/error.hpp"
#include "thalweg/core/interrupt.hpp"
#include "thalweg/core/memory.hpp"
#include "thalweg/model/interpreter.hpp"
#include "thalweg/symmetry/transport.hpp"
#include "widths.hpp"

namespace thalweg::aggregator {

namespace {

/// Squared distances of all pairs of rows: [rows of a, rows of b].
at::Tensor squared_distances(const at::Tensor& a, const at::Tensor& b) {
    const at::Tensor products = at::mm(a, b.t());
    return (a.square().sum(1, true) + b.square().sum(1).unsqueeze(0) - 2 * products).clamp_min_(0);
}

/// A group's channels in one of the two models.
struct Shown {
    const model::ModelGraph& graph;
    const model::Parameters& model;
    const symmetry::Group& group;

    /// What they do on a batch: [channels, samples · positions], double.
    at::Tensor on(const at::Tensor& x) const {
        const auto& sight = group.sight;
        const at::Tensor output = model::forward(graph, model::views(model), x.to(model.values.scalar_type()),
                                                 model::Mode::evaluate, {}, sight.operation);
        const at::Tensor rows = output.movedim(sight.axis, 0).reshape({output.size(sight.axis), -1});
        return rows.index_select(0, at::tensor(sight.places, at::kLong))
            .reshape({group.size, -1})
            .to(at::kDouble);
    }
};

/// Squared distances of what two models' channels do on all samples, summed batch by batch: [channels of a, of b]. No
/// activations are held beyond a batch's.
at::Tensor activation_distances(const Shown& a, const Shown& b, const data::SampleSet& samples) {
    at::Tensor sum = at::zeros({a.group.size, b.group.size}, at::kDouble);
    for_each_batch(
        samples, a.graph.input_shape(),
        [&](std::int64_t, const at::Tensor& x, const at::Tensor&) {
            sum.add_(squared_distances(a.on(x), b.on(x)));
        },
        std::min(model::samples_at_once(a.graph), model::samples_at_once(b.graph)));
    return sum;
}

/// Model fusion by optimal transport (Singh & Jaggi, NeurIPS 2020): from input to output, every group of an update's channels
/// is carried onto the anchor's by a transport plan T between equal masses, with the squared distance of the channels'
/// incoming weights (inputs already carried) or of their activations as ground cost. A channel of the result is the mean of
/// those that are carried to it; widths may differ, and the result has the anchor's.
///
/// Departures: what reads the carried channels is divided by how many the group has, source's and anchor's, so that a
/// channel carried to several keeps its effect (the source multiplies by the anchor's number; for equal widths it is the
/// same). A group that several layers write takes those whose inputs are carried already. Biases and norms' scales and
/// shifts are incoming weights, too. Groups in blocks (heads) are refused: a plan would mix them. Plans with entropy are
/// iterated and then rounded to exact marginals, see sinkhorn_plan().
class OptimalTransport final : public PerUpdateStage {
  public:
    explicit OptimalTransport(const core::Value& options)
        : anchor_(options["anchor"].as_text()),
          by_activations_(options["cost"].as_text() == "activations"),
          regularisation_(options["regularisation"].as_number()) {}

    StageTraits traits() const override {
        return {.kind = StageKind::per_update,
                .permutes = true,
                .changes_frame = anchor_ != "global",
                .needs_anchor = true,
                .takes_any_width = true,
                .needs_holdout = by_activations_,
                .fixed_point = regularisation_ == 0};
    }

  protected:
    std::string anchor() const override { return anchor_; }

    void treat(Update& update, const model::Parameters& anchor, const FusionContext& context) const override {
        if (by_activations_ && context.holdout == nullptr) {
            throw core::UsageError(
                "optimal_transport with cost: activations looks at samples of the server's, and there are "
                "none: set "
                "data.holdout, or cost: weights");
        }
        const auto& from = update.graph ? *update.graph : context.graph;
        const auto own_groups = update.graph ? symmetry::derive(from) : symmetry::Symmetries();
        const auto& from_groups = update.graph ? own_groups : context.symmetries;
        const Widths widths(from, from_groups, context.graph, context.symmetries);
        std::vector<Widths::Plan> plans(context.symmetries.groups.size());
        std::vector<bool> known(plans.size(), false);
        for (const std::size_t g : widths.order()) {
            core::check_interrupt();
            if (context.symmetries.groups[g].blocks > 1) {
                throw core::RunError(
                    "the channels of " + context.symmetries.groups[g].name +
                    " lie in blocks (heads, grouped convolutions), which optimal_transport would mix; use "
                    "weight_matching or merge_many");
            }
            plans[g] = plan_of(cost_of(widths, g, update, anchor, plans, known, from, context));
            known[g] = true;
        }
        update.parameters = widths.carried(update.parameters, plans);
        update.graph = nullptr;
        update.start = model::Parameters();  // stays behind, in another frame
    }

  private:
    at::Tensor cost_of(const Widths& widths, std::size_t g, const Update& update,
                       const model::Parameters& anchor, const std::vector<Widths::Plan>& plans,
                       const std::vector<bool>& known, const model::ModelGraph& from,
                       const FusionContext& context) const {
        const auto& to_group = widths.to_groups().groups[g];
        const auto& from_group = widths.from_groups().groups[g];
        core::require_memory(
            4.0 * sizeof(double) * static_cast<double>(to_group.size) * static_cast<double>(from_group.size),
            "the transport of " + to_group.name);
        if (by_activations_ && to_group.sight.operation != symmetry::Group::Sight::none)
            return activation_distances({context.graph, anchor, to_group},
                                        {from, update.parameters, from_group}, *context.holdout);
        const at::Tensor a = widths.features_of_to(anchor, g, known);
        const at::Tensor b = widths.features_of_from(update.parameters, g, plans, known);
        if (!a.defined()) return at::zeros({to_group.size, from_group.size}, at::kDouble);
        return squared_distances(a, b);
    }

    Widths::Plan plan_of(const at::Tensor& cost) const {
        const std::int64_t n = cost.size(0), m = cost.size(1);
        at::Tensor plan;
        if (regularisation_ == 0) {
            const at::Tensor dense = cost.contiguous();
            try {
                const auto exact =
                    symmetry::transport_plan(std::span<const double>(dense.data_ptr<double>(),
                                                                     static_cast<std::size_t>(dense.numel())),
                                             n, m);
                plan = at::tensor(exact, at::kDouble).view({n, m});
            } catch (const std::invalid_argument&) {
                throw core::RunError(
                    "the channels cannot be carried: distances of their weights are not finite");
            }
        } else {
            const double scale = cost.mean().item<double>();
            const at::Tensor scores = scale > 0 ? -cost / (regularisation_ * scale) : -cost;
            plan = sinkhorn_plan(scores, at::full({n}, 1.0 / static_cast<double>(n), at::kDouble),
                                 at::full({m}, 1.0 / static_cast<double>(m), at::kDouble));
        }
        return {plan * static_cast<double>(n), plan * static_cast<double>(m)};
    }

    std::string anchor_;
    bool by_activations_;
    double regularisation_;
};

const StageRegistration optimal_transport_registration{
    {.kind = "stage",
     .name = "optimal_transport",
     .help = "carries every update's channels onto the anchor's by transport plans; widths may differ",
     .citation = "Singh & Jaggi, Model Fusion via Optimal Transport, NeurIPS 2020",
     .options =
         {core::choice(
              "anchor", {"first", "global", "largest"},
              "whom to carry to, of the round's widths: the update of the lowest client id, the previous "
              "global model (in round 1 the first client's), or the client with most samples")
              .by_default("first"),
          core::choice(
              "cost", {"weights", "activations"},
              "ground cost: distances of incoming weights, or of activations on the server's samples")
              .by_default("weights"),
          core::number("regularisation",
                       "entropy, relative to the mean cost (Sinkhorn's algorithm); 0: exact plans")
              .at_least(0)
              .by_default(0)},
     .cost = "O(n² · fan) and O(n³) a group, an update; updates in parallel over ranks"},
    [](const core::Value& options) { return std::make_unique<OptimalTransport>(options); }};

}  // namespace

}  // namespace thalweg::aggregator
