#include "thalweg/analysis/measures.hpp"
#include "thalweg/federation/measure.hpp"

namespace thalweg::federation {

namespace {

/// Sign consistency among clients (before and after alignment) and between clients and the new global model.
class SignConsistencyMeasure final : public Measure {
  public:
    explicit SignConsistencyMeasure(const core::Value& options) : pairs_(options["pairs"].as_int()) {}

    void begin(const aggregator::FusionState& state, const RoundView& view) override {
        before_ = between_clients(state, view);
    }

    void after(std::size_t index, const aggregator::FusionState& state, const RoundView& view) override {
        if (index + 1 == view.pipeline.reduction()) after_ = between_clients(state, view);
    }

    record::Json finish(const aggregator::FusionState& state, const RoundView& view) override {
        std::vector<double> mine;
        for (const auto& update : state.updates) {
            mine.push_back(analysis::sign_consistency(update.parameters, state.merged).overall);
        }
        // Summed in client-id order, whatever rank holds whom.
        const auto gathered = view.context.communicator.all_gather(core::as_bytes(mine));
        std::vector<std::vector<double>> by_rank;
        for (const auto& bytes : gathered) by_rank.push_back(core::from_bytes<double>(bytes));
        std::vector<std::size_t> next(by_rank.size(), 0);
        double sum = 0;
        for (const auto& member : view.context.members) {
            const auto owner = static_cast<std::size_t>(member.owner);
            sum += by_rank[owner][next[owner]++];
        }
        record::Json json;
        const bool several = view.context.members.size() > 1;
        json["client_client_before"] = several ? record::Json(before_) : record::Json();
        json["client_client"] =
            several ? record::Json(view.pipeline.reduction() == 0 ? before_ : after_) : record::Json();
        json["client_global"] = sum / static_cast<double>(view.context.members.size());
        return json;
    }

  private:
    double between_clients(const aggregator::FusionState& state, const RoundView& view) const {
        double sum = 0;
        const auto pairs = sample_pairs(view.context, pairs_);
        for (const auto& [a, b] : pairs) {
            const auto first = fetch_update(a, state, view.context);
            const auto second = fetch_update(b, state, view.context);
            sum += analysis::sign_consistency(first.parameters, second.parameters).overall;
        }
        return pairs.empty() ? 0 : sum / static_cast<double>(pairs.size());
    }

    std::int64_t pairs_;
    double before_ = 0, after_ = 0;
};

const MeasureRegistration registration{
    {.kind = "measure",
     .name = "sign_consistency",
     .help = "share of parameters whose signs agree: client–client before and after alignment, client–global",
     .citation = "Li et al., NeurIPS 2024 (arXiv 2405.12489)",
     .options = {core::integer("pairs", "client pairs drawn each round").at_least(1).by_default(10)}},
    [](const core::Value& options) { return std::make_unique<SignConsistencyMeasure>(options); }};

}  // namespace

}  // namespace thalweg::federation
