#include <cmath>
#include <optional>

#include "thalweg/analysis/measures.hpp"
#include "thalweg/federation/measure.hpp"

namespace thalweg::federation {

namespace {

/// Mean shares: of entries, and of products of magnitudes.
struct Shares {
    double ratio = 0, weighted = 0;
    void add(const analysis::SignAgreement& agreement) {
        ratio += agreement.ratio;
        weighted += agreement.weighted;
    }
    Shares over(std::size_t count) const {
        const double n = std::max<double>(1, static_cast<double>(count));
        return {ratio / n, weighted / n};
    }
};

/// Sign consistency among clients (before and after alignment) and between clients and the new global model.
class SignConsistencyMeasure final : public Measure {
  public:
    explicit SignConsistencyMeasure(const core::Value& options) : pairs_(options["pairs"].as_int()) {
        if (options.has("layers")) layers_ = options["layers"].as_bool();
    }

    bool brief() const override { return true; }

    void begin(const aggregator::FusionState& state, const RoundView& view) override {
        before_ = between_clients(state, view);
    }

    void after(std::size_t index, const aggregator::FusionState& state, const RoundView& view) override {
        if (index + 1 == view.pipeline.reduction()) after_ = between_clients(state, view);
    }

    record::Json finish(const aggregator::FusionState& state, const RoundView& view) override {
        if (view.pipeline.reduction() == 0) after_ = before_;
        const auto with_global = gather(state, view);
        Shares global;
        for (const auto& signs : with_global) global.add(signs.all);
        global = global.over(with_global.size());
        const auto pairs = measured_pairs(view, pairs_);
        const Shares before = mean(before_), after = mean(after_);
        const auto if_several = [&](double value) {
            return pairs.empty() ? record::Json() : record::Json(value);
        };
        record::Json json{{"client_client_before", if_several(before.ratio)},
                          {"client_client", if_several(after.ratio)},
                          {"client_global", global.ratio},
                          {"weighted",
                           {{"client_client_before", if_several(before.weighted)},
                            {"client_client", if_several(after.weighted)},
                            {"client_global", global.weighted}}},
                          {"by_pair", record::Json::object()}};
        for (std::size_t i = 0; i < pairs.size(); ++i)
            json["by_pair"][pair_name(view, pairs[i])] = {{"before", before_[i].ratio},
                                                          {"after", after_[i].ratio}};
        if (layers_of(view)) add_layers(json, with_global, view);
        return json;
    }

  private:
    static constexpr std::size_t few_clients = 20;

    bool layers_of(const RoundView& view) const {
        return layers_.value_or(view.context.members.size() <= few_clients);
    }

    /// Of every member with the new global model, in the members' order, whatever rank holds whom: `all`, and where they
    /// are asked for, `tensors`.
    std::vector<analysis::SignConsistency> gather(const aggregator::FusionState& state,
                                                  const RoundView& view) const {
        std::vector<std::string> names;
        if (layers_of(view)) {
            for (const auto& entry : state.merged.layout->entries()) names.push_back(entry.name);
        }
        std::vector<double>
            mine;  // a row an update: the two shares, then a ratio an entry, NaN where it has none
        for (const auto& update : state.updates) {
            const auto signs = analysis::sign_consistency(update.parameters, state.merged);
            mine.insert(mine.end(), {signs.all.ratio, signs.all.weighted});
            auto next = signs.tensors.begin();
            for (const auto& name : names) {
                const bool has = next != signs.tensors.end() && next->first == name;
                mine.push_back(has ? (next++)->second : std::nan(""));
            }
        }
        const auto gathered = view.context.communicator.all_gather(core::as_bytes(mine));
        std::vector<std::vector<double>> by_rank;
        for (const auto& bytes : gathered) by_rank.push_back(core::from_bytes<double>(bytes));
        std::vector<std::size_t> next(by_rank.size(), 0);
        std::vector<analysis::SignConsistency> result;
        for (const auto& member : view.context.members) {
            const auto owner = static_cast<std::size_t>(member.owner);
            const double* row = by_rank[owner].data() + next[owner];
            next[owner] += 2 + names.size();
            analysis::SignConsistency signs;
            signs.all.ratio = row[0];
            signs.all.weighted = row[1];
            for (std::size_t e = 0; e < names.size(); ++e) {
                if (!std::isnan(row[2 + e])) signs.tensors.emplace_back(names[e], row[2 + e]);
            }
            result.push_back(std::move(signs));
        }
        return result;
    }

    static void add_layers(record::Json& json, const std::vector<analysis::SignConsistency>& with_global,
                           const RoundView& view) {
        record::Json by_client = record::Json::object();
        for (std::size_t k = 0; k < with_global.size(); ++k) {
            record::Json tensors = record::Json::object();
            for (const auto& [name, ratio] : with_global[k].tensors) tensors[name] = ratio;
            by_client[std::to_string(view.context.members[k].client)] = std::move(tensors);
        }
        json["by_client"] = std::move(by_client);
    }

    static Shares mean(const std::vector<analysis::SignAgreement>& pairs) {
        Shares sum;
        for (const auto& agreement : pairs) sum.add(agreement);
        return sum.over(pairs.size());
    }

    /// One a measured pair.
    std::vector<analysis::SignAgreement> between_clients(const aggregator::FusionState& state,
                                                         const RoundView& view) const {
        std::vector<analysis::SignAgreement> found;
        for (const auto& [a, b] : measured_pairs(view, pairs_)) {
            const auto first = fetch_update(a, state, view.context);
            const auto second = fetch_update(b, state, view.context);
            found.push_back(analysis::sign_consistency(first.parameters, second.parameters).all);
        }
        return found;
    }

    std::int64_t pairs_;
    std::optional<bool> layers_;  ///< nothing: in rounds of few clients
    std::vector<analysis::SignAgreement> before_, after_;
};

const MeasureRegistration sign_consistency_registration{
    {.kind = "measure",
     .name = "sign_consistency",
     .help = "share of parameters whose signs agree: client–client before and after alignment, client–global",
     .citation = "Li et al., NeurIPS 2024 (arXiv 2405.12489)",
     .options = {core::integer("pairs", "client pairs drawn each round").at_least(1).by_default(10),
                 core::boolean("layers",
                               "also by client and tensor (client–global), in analysis.jsonl alone; null: in "
                               "rounds of at most 20 clients")
                     .optional()}},
    [](const core::Value& options) { return std::make_unique<SignConsistencyMeasure>(options); }};

}  // namespace

}  // namespace thalweg::federation
