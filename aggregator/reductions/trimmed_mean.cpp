#include <torch/types.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "coordinatewise.hpp"
#include "thalweg/aggregator/stage.hpp"

namespace thalweg::aggregator {

namespace {

/// Coordinate by coordinate the mean of what is left when the ⌊trim·K⌋ smallest and as many largest values are gone (Yin
/// et al., ICML 2018). As many clients may send anything at all: every value left then lies between honest ones. Clients
/// count alike: weights would let a corrupted one claim samples. A finisher behind it that asks for the clients'
/// statistics (repair's targets) averages over all of them, corrupted ones included.
class TrimmedMean final : public Stage {
  public:
    explicit TrimmedMean(const core::Value& options) : trim_(options["trim"].as_number()) {}

    StageTraits traits() const override { return {.kind = StageKind::reduction}; }

    StageNotes apply(FusionState& state, const FusionContext& context) const override {
        const std::size_t count = context.members.size();
        // 0.3 of 10 is 3 though 0.3 · 10 may be rounded below it.
        const auto cut = static_cast<std::size_t>(std::floor(trim_ * static_cast<double>(count) + 1e-9));
        state.weights = core::collectively(context.communicator,
                                           [&] { return weights(context.members, Weighting::uniform); });
        state.merged = reduce_coordinates(
            state.updates, context,
            [&](const UpdateSlices& slices, std::int64_t first, std::span<double> out) {
                std::vector<double> values(count * out.size()), column(count);
                for (std::size_t k = 0; k < count; ++k)
                    slices.load(k, first, std::span(values).subspan(k * out.size(), out.size()));
                for (std::size_t i = 0; i < out.size(); ++i) {
                    for (std::size_t k = 0; k < count; ++k) {
                        column[k] = values[k * out.size() + i];
                        if (!std::isfinite(column[k]))
                            refuse_coordinate(context, slices, first + static_cast<std::int64_t>(i));
                    }
                    std::sort(column.begin(), column.end());
                    double sum = 0;
                    for (std::size_t k = cut; k < count - cut; ++k) sum += column[k];
                    out[i] = sum / static_cast<double>(count - 2 * cut);
                }
            });
        return {{"trimmed", static_cast<double>(cut)}};
    }

  private:
    double trim_;
};

const StageRegistration trimmed_mean_registration{
    {.kind = "stage",
     .name = "trimmed_mean",
     .help =
         "coordinate by coordinate the mean without the smallest and largest values; bears as many corrupted "
         "clients as are cut at each end",
     .citation = "Yin, Chen, Ramchandran & Bartlett, Byzantine-Robust Distributed Learning, ICML 2018",
     .options = {core::number("trim", "share of the clients that is cut at each end")
                     .at_least(0)
                     .below(0.5)
                     .by_default(0.2)},
     .cost = "O(K log K · d ÷ ranks) after one exchange"},
    [](const core::Value& options) { return std::make_unique<TrimmedMean>(options); }};

}  // namespace

}  // namespace thalweg::aggregator
