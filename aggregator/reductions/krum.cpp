#include <torch/types.h>

#include <algorithm>
#include <numeric>
#include <string>
#include <vector>

#include "distances.hpp"
#include "thalweg/aggregator/stage.hpp"
#include "thalweg/core/error.hpp"

namespace thalweg::aggregator {

namespace {

/// Krum and multi-Krum (Blanchard et al., NeurIPS 2017). Client k's score is the sum of the squared distances to the
/// K − f − 2 updates nearest to it; the `select` clients with the smallest scores are averaged (1: Krum; K − f, the
/// default: multi-Krum). Their proof asks for 2f + 2 < K corrupted clients f, and so do we; it is of Krum, and multi-Krum
/// has no theorem. Finishers average over the selected clients only.
///
/// Distances are between trainable entries; running statistics follow the selection. Scores that are equal go to the lower
/// client id.
class Krum final : public Stage {
  public:
    explicit Krum(const core::Value& options)
        : corrupted_(options["corrupted"].is_null() ? -1 : options["corrupted"].as_int()),
          select_(options["select"].is_null() ? -1 : options["select"].as_int()) {}

    StageTraits traits() const override { return {.kind = StageKind::reduction, .linear = true}; }

    StageNotes apply(FusionState& state, const FusionContext& context) const override {
        const auto count = static_cast<std::int64_t>(context.members.size());
        const std::int64_t corrupted =
            corrupted_ >= 0 ? corrupted_ : std::max<std::int64_t>(0, (count - 3) / 2);
        const std::int64_t select = select_ >= 0 ? select_ : count - corrupted;
        core::collectively(context.communicator, [&] { check(count, corrupted, select); });
        const auto chosen = selection(squared_distances(state.updates, context), count, corrupted, select);
        std::vector<double> w(static_cast<std::size_t>(count), 0.0);
        for (const std::size_t k : chosen) w[k] = 1.0 / static_cast<double>(select);
        state.merged = mean(state.updates, context, w);
        state.weights = w;
        return {{"corrupted_borne", static_cast<double>(corrupted)},
                {"selected", static_cast<double>(select)}};
    }

  private:
    static void check(std::int64_t count, std::int64_t corrupted, std::int64_t select) {
        // With one or two clients there is nobody to compare with, and nobody is suspected.
        if (corrupted > 0 && 2 * corrupted + 2 >= count) {
            throw core::UsageError("krum bears " + std::to_string(corrupted) +
                                   " corrupted clients only among more than " +
                                   std::to_string(2 * corrupted + 2) + ", and this round has " +
                                   std::to_string(count) + "; lower `corrupted` or sample more clients");
        }
        if (select > count) {
            throw core::UsageError("krum is to select " + std::to_string(select) +
                                   " clients, and this round has " + std::to_string(count) +
                                   "; lower `select` or sample more clients");
        }
    }

    static std::vector<std::size_t> selection(const std::vector<double>& distances, std::int64_t count,
                                              std::int64_t corrupted, std::int64_t select) {
        const auto n = static_cast<std::size_t>(count);
        const auto near = static_cast<std::size_t>(std::max<std::int64_t>(1, count - corrupted - 2));
        std::vector<double> score(n, 0.0);
        for (std::size_t k = 0; k < n && n > 1; ++k) {
            std::vector<double> others;
            for (std::size_t j = 0; j < n; ++j) {
                if (j != k) others.push_back(distances[k * n + j]);
            }
            std::sort(others.begin(), others.end());
            score[k] = std::accumulate(
                others.begin(), others.begin() + static_cast<std::ptrdiff_t>(std::min(near, others.size())),
                0.0);
        }
        std::vector<std::size_t> order(n);
        std::iota(order.begin(), order.end(), std::size_t{0});
        std::stable_sort(order.begin(), order.end(),
                         [&](std::size_t a, std::size_t b) { return score[a] < score[b]; });
        order.resize(static_cast<std::size_t>(select));
        return order;
    }

    std::int64_t corrupted_, select_;
};

const StageRegistration krum_registration{
    {.kind = "stage",
     .name = "krum",
     .help = "mean of the clients whose models lie nearest to each other (multi-Krum; select: 1 is Krum)",
     .citation = "Blanchard, El Mhamdi, Guerraoui & Stainer, Machine Learning with Adversaries, NeurIPS 2017",
     .options = {core::integer(
                     "corrupted",
                     "corrupted clients f that are to be borne, 2f + 2 < K; null: as many as can be")
                     .at_least(0)
                     .optional(),
                 core::integer("select", "clients that are averaged; null: K − f").at_least(1).optional()},
     .cost = "O(K² · d ÷ ranks)"},
    [](const core::Value& options) { return std::make_unique<Krum>(options); }};

}  // namespace

}  // namespace thalweg::aggregator
