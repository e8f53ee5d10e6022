#include "thalweg/federation/measure.hpp"

#include <algorithm>
#include <charconv>

#include "thalweg/aggregator/exchange.hpp"
#include "thalweg/analysis/measures.hpp"
#include "thalweg/core/error.hpp"

namespace thalweg::federation {

namespace {

/// Keys of the record, names of curves and of figures' files are made of it.
void require_plain(const core::Value& as) {
    constexpr std::size_t longest = 40;
    const std::string& name = as.as_text();
    const auto is_plain = [](char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_'; };
    if (name.size() <= longest && std::all_of(name.begin(), name.end(), is_plain)) return;
    as.reject("'" + name + "' is no name for a measure's record; use at most " + std::to_string(longest) +
              " lower-case letters, digits and _");
}

core::PluginInfo with_rounds(core::PluginInfo info) {
    auto options = info.options.options();
    options.push_back(core::integer("every",
                                    "rounds between measurements, the last round included; null: "
                                    "analysis.every")
                          .at_least(1)
                          .optional());
    options.push_back(
        core::integers("rounds", "the rounds it is made in; empty: see every").by_default("[]"));
    options.push_back(core::text("as", "name it is recorded under; empty: the measure's own").by_default(""));
    info.options = core::Schema(std::move(options));
    return info;
}

}  // namespace

MeasureRegistration::MeasureRegistration(core::PluginInfo info,
                                         core::Registry<std::unique_ptr<Measure>>::Factory factory) {
    const core::Registration<std::unique_ptr<Measure>> registration(with_rounds(std::move(info)),
                                                                    std::move(factory));
}

record::Json Measure::headline(record::Json all) const {
    if (all.is_object()) {
        all.erase("by_pair");
        all.erase("by_client");
    }
    return all;
}

std::string recorded_name(const core::Value& options) {
    const auto& as = options["as"].as_text();
    return as.empty() ? options["kind"].as_text() : as;
}

void require_own_names(const core::Value& analysis) {
    std::vector<std::string> taken = record::round_fields();
    const std::size_t of_rounds = taken.size();
    for (const auto& measure : analysis["measures"].items()) {
        require_plain(measure["as"]);
        const std::string name = recorded_name(measure);
        const auto found = std::find(taken.begin(), taken.end(), name);
        if (found == taken.end()) {
            taken.push_back(name);
        } else if (found < taken.begin() + static_cast<std::ptrdiff_t>(of_rounds)) {
            measure.reject("'" + name + "' is a name that every round's record has; choose another for `as`");
        } else {
            measure.reject("two measures would be recorded as '" + name +
                           "'; give one of them a name of its own with `as`");
        }
    }
}

void require_fitting_measures(const core::Value& analysis, const aggregator::Pipeline& pipeline,
                              const model::ModelGraph& graph) {
    const bool folds = pipeline.folds_norms() && analysis::has_batch_norm(graph);
    for (const auto& options : analysis["measures"].items()) {
        const auto measure = core::Registry<std::unique_ptr<Measure>>::make(options);
        try {
            measure->check(graph);
        } catch (const core::UsageError& error) {
            options.reject(error.what());
        }
        if (folds && measure->mends()) {
            options.reject(
                "the measure " + options["kind"].as_text() +
                " would take statistics of batch norms anew that the fusion pipeline folds into the "
                "layers before them; leave models as they are here, or use no batch norms");
        }
    }
}

bool is_measured(const core::Value& options, const core::Value& analysis, std::int64_t round,
                 std::int64_t last) {
    const auto is_among = [&](const core::Value& rounds) {
        const auto numbers = rounds.as_ints();
        return std::find(numbers.begin(), numbers.end(), round) != numbers.end();
    };
    const auto is_due = [&](const core::Value& every) {
        return round % every.as_int() == 0 || round == last;
    };
    if (!options["rounds"].items().empty()) return is_among(options["rounds"]);
    if (options.has("every")) return is_due(options["every"]);
    if (!analysis["rounds"].items().empty()) return is_among(analysis["rounds"]);
    return is_due(analysis["every"]);
}

std::vector<std::pair<std::int64_t, std::int64_t>> chosen_pairs(const core::Value& analysis) {
    std::vector<std::pair<std::int64_t, std::int64_t>> pairs;
    for (const auto& item : analysis["pairs"].items()) {
        const std::string& text = item.as_text();
        const char* const end = text.data() + text.size();
        std::int64_t a = -1, b = -1;
        const auto first = std::from_chars(text.data(), end, a);
        const bool has_line = first.ec == std::errc() && first.ptr != end && *first.ptr == '-';
        const auto second = has_line ? std::from_chars(first.ptr + 1, end, b) : first;
        if (!has_line || second.ec != std::errc() || second.ptr != end || a < 0 || b < 0 || a == b)
            item.reject("'" + text + "' is no pair of clients; write the ids of two clients as 0-3");
        const std::pair pair(std::min(a, b), std::max(a, b));
        if (std::find(pairs.begin(), pairs.end(), pair) != pairs.end())
            item.reject("the pair '" + text + "' stands in the list before; name each pair once");
        pairs.push_back(pair);
    }
    return pairs;
}

std::vector<std::pair<std::size_t, std::size_t>> measured_pairs(const RoundView& view, std::int64_t count) {
    if (view.pairs.empty()) return sample_pairs(view.context, count);
    const auto& members = view.context.members;
    const auto index_of = [&](std::int64_t client) {
        const auto found = std::find_if(members.begin(), members.end(),
                                        [&](const auto& member) { return member.client == client; });
        return static_cast<std::size_t>(found - members.begin());
    };
    std::vector<std::pair<std::size_t, std::size_t>> pairs;
    for (const auto& [a, b] : view.pairs) {
        const std::size_t first = index_of(a), second = index_of(b);
        if (first < members.size() && second < members.size()) pairs.emplace_back(first, second);
    }
    return pairs;
}

std::string pair_name(const RoundView& view, const std::pair<std::size_t, std::size_t>& pair) {
    const auto a = view.context.members[pair.first].client, b = view.context.members[pair.second].client;
    return std::to_string(std::min(a, b)) + "-" + std::to_string(std::max(a, b));
}

std::vector<std::pair<std::size_t, std::size_t>> sample_pairs(const aggregator::FusionContext& context,
                                                              std::int64_t count) {
    const auto n = static_cast<std::int64_t>(context.members.size());
    const std::int64_t all = n * (n - 1) / 2;
    core::Random random(context.seed, "pairs", context.round);
    std::vector<std::pair<std::size_t, std::size_t>> pairs;
    // Pair number p counts the upper triangle row by row.
    for (auto p : random.sample(all, std::min(count, all))) {
        std::int64_t row = 0;
        while (p >= n - 1 - row) p -= n - 1 - row++;
        pairs.emplace_back(row, row + 1 + p);
    }
    return pairs;
}

aggregator::Update fetch_update(std::size_t member, const aggregator::FusionState& state,
                                const aggregator::FusionContext& context) {
    const auto& wanted = context.members[member];
    aggregator::Update update{.client = wanted.client, .samples = wanted.samples};
    const auto mine = std::find_if(state.updates.begin(), state.updates.end(),
                                   [&](const auto& candidate) { return candidate.client == wanted.client; });
    if (mine != state.updates.end()) update.parameters = mine->parameters;
    update.parameters = aggregator::broadcast_parameters(update.parameters, wanted.owner, context);
    return update;
}

}  // namespace thalweg::federation
