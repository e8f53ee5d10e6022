#include <torch/types.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>
#include <vector>

#include "coordinatewise.hpp"
#include "thalweg/aggregator/stage.hpp"

namespace thalweg::aggregator {

namespace {

/// The weighted median of values in increasing order: where half of the weight is passed; the middle between two
/// neighbours when exactly half lies below. With equal weights the usual median, of an even number the mean of the middle
/// two.
double weighted_median(const std::vector<std::pair<double, double>>& sorted, double total) {
    double passed = 0;
    for (std::size_t k = 0; k < sorted.size(); ++k) {
        passed += sorted[k].second;
        if (2 * passed == total && k + 1 < sorted.size()) return (sorted[k].first + sorted[k + 1].first) / 2;
        if (2 * passed >= total) return sorted[k].first;
    }
    return sorted.back().first;
}

/// Coordinate by coordinate the median of the clients' values (Yin et al., ICML 2018). Fewer than half of the clients
/// (of the weight) may send anything at all: each coordinate stays between values of honest ones. The median of
/// coordinates is in general no client's model and not in their convex hull. Weights by samples are ours; the source
/// counts all alike.
///
/// Running statistics of batch norms are treated alike; they come from few clients' data, too. A finisher behind it that
/// asks for the clients' statistics (repair's targets) averages over all of them, corrupted ones included.
class Median final : public Stage {
  public:
    explicit Median(const core::Value& options) : weighting_(weighting_of(options["weights"].as_text())) {}

    StageTraits traits() const override { return {.kind = StageKind::reduction}; }

    StageNotes apply(FusionState& state, const FusionContext& context) const override {
        state.weights =
            core::collectively(context.communicator, [&] { return weights(context.members, weighting_); });
        // Whole numbers, so that half of the weight is seen exactly.
        std::vector<double> voices;
        for (const Member& member : context.members)
            voices.push_back(weighting_ == Weighting::uniform ? 1.0 : static_cast<double>(member.samples));
        // Who has no weight is no neighbour either.
        const auto heard = static_cast<std::size_t>(
            std::count_if(voices.begin(), voices.end(), [](double voice) { return voice > 0; }));
        const double total = std::accumulate(voices.begin(), voices.end(), 0.0);
        state.merged = reduce_coordinates(
            state.updates, context,
            [&](const UpdateSlices& slices, std::int64_t first, std::span<double> out) {
                const std::size_t count = slices.count();
                std::vector<double> values(count * out.size());
                for (std::size_t k = 0; k < count; ++k)
                    slices.load(k, first, std::span(values).subspan(k * out.size(), out.size()));
                std::vector<std::pair<double, double>> column(heard);
                for (std::size_t i = 0; i < out.size(); ++i) {
                    auto next = column.begin();
                    for (std::size_t k = 0; k < count; ++k) {
                        const double value = values[k * out.size() + i];
                        if (!std::isfinite(value))
                            refuse_coordinate(context, slices, first + static_cast<std::int64_t>(i));
                        if (voices[k] > 0) *next++ = {value, voices[k]};
                    }
                    std::sort(column.begin(), column.end());
                    out[i] = weighted_median(column, total);
                }
            });
        return {};
    }

  private:
    Weighting weighting_;
};

const StageRegistration median_registration{
    {.kind = "stage",
     .name = "median",
     .help = "coordinate by coordinate the median of the clients' models; bears fewer than half corrupted",
     .citation = "Yin, Chen, Ramchandran & Bartlett, Byzantine-Robust Distributed Learning, ICML 2018",
     .options = {core::choice("weights", {"uniform", "samples"},
                              "what a client counts: all alike, or its samples (a client with half of all "
                              "samples then decides alone)")
                     .by_default("uniform")},
     .cost = "O(K log K · d ÷ ranks) after one exchange"},
    [](const core::Value& options) { return std::make_unique<Median>(options); }};

}  // namespace

}  // namespace thalweg::aggregator
