#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "checks.hpp"
#include "common.hpp"
#include "estimates.hpp"
#include "rows.hpp"
#include "thalweg/analysis/measures.hpp"
#include "thalweg/embedded/studies.hpp"

namespace thalweg::study::sign_consistency_vs_merge {

namespace {

using core::Value;

/// One way of training, and the models trained that way: they differ in their seeds alone.
struct Way {
    std::string initialisation, name;
    double learning_rate = 0;
    std::int64_t epochs = 0;
    std::shared_ptr<const Laboratory> laboratory;
    std::vector<std::string> models;  ///< labels
};

/// Pairs of models that a correlation is taken over, all aligned one way.
struct Setting {
    std::string initialisation, alignment;
    std::vector<const Way*> ways;
    std::vector<std::string> models;
    std::vector<std::size_t> way_of;
    PairTable table{};               ///< x: sign consistency, y: merge quality; NaN: one of the two diverged
    std::vector<double> midpoint{};  ///< accuracy, by pair
    std::vector<bool> trained{};     ///< by model: it did not diverge
};

constexpr std::uint64_t shared_seed = 999999;

class SignConsistencyVsMerge final : public Study {
  public:
    std::string_view configuration() const override {
        return embedded::studies::sign_consistency_vs_merge_yaml;
    }

    Result conduct(const Value& options, Workbench& bench) const override {
        for (const auto& alignment : options["alignments"].items()) {
            if (alignment.as_text() != "none") require_matching(alignment, options);
        }
        require_different(options["alignments"]);
        require_epochs(options);
        for (const auto& initialisation : options["initialisations"].items()) {
            if (initialisation.as_text() != "shared" && initialisation.as_text() != "independent")
                initialisation.reject("'" + initialisation.as_text() + "' is none of shared, independent");
        }
        const auto ways = train(options, bench);
        auto settings = settings_of(options, ways);
        for (auto& setting : settings) measure(setting, options, bench);
        core::Random random(static_cast<std::uint64_t>(options["seed"].as_int()), "permutation test");
        const std::int64_t permutations = options["permutations"].as_int();
        Result result;
        // Alignments share their models: no test joins them.
        for (const auto& setting : settings) {
            const auto blocks = whole_ways(setting);
            result.findings.push_back(finding(
                "Pairs of models that agree in more signs merge better: " + words(setting),
                block_correlation(of_models(setting, joined(blocks)), numbered(blocks), random, permutations),
                std::to_string(blocks.size()) + " ways of training"));
        }
        for (const auto& setting : settings) {
            result.findings.push_back(
                finding("The same among models that differ in nothing but their seeds: " + words(setting),
                        pair_correlation(cells(setting), random, permutations),
                        std::to_string(joined(all_ways(setting)).size()) + " models"));
        }
        result.summary = fmt::format(
            "Accuracy lost at the midpoint against sign consistency, {} settings of {} models with different "
            "learning rates and numbers of epochs.",
            settings.size(), settings.front().models.size());
        for (std::size_t i = 0; i < settings.size(); ++i)
            result.summary += fmt::format(" {}: {}.", words(settings[i]), result.findings[i].ours);
        result.sections = {scatter(settings), table(settings, result.findings)};
        return result;
    }

  private:
    static std::vector<Way> train(const Value& options, Workbench& bench) {
        std::vector<Way> ways;
        std::vector<Training> trainings;
        const auto seed = static_cast<std::uint64_t>(options["seed"].as_int());
        for (const auto& lr : options["learning_rates"].items()) {
            for (const auto& epochs : options["epochs"].items()) {
                const auto laboratory = bench.laboratory(
                    options["experiment"],
                    {assignment("clients.algorithm.lr", lr), assignment("clients.epochs", epochs)},
                    options["samples"]);
                for (const auto& initialisation : options["initialisations"].items()) {
                    Way way{initialisation.as_text(),
                            label_of(initialisation) + "-lr" + label_of(lr) + "-e" + label_of(epochs),
                            lr.as_number(),
                            epochs.as_int(),
                            laboratory,
                            {}};
                    for (std::int64_t i = 0; i < options["models"].as_int(); ++i) {
                        // No two models of one initialisation share an order of the samples or, but for the shared
                        // one, a start: such pairs would agree in sign for that reason.
                        const auto own = seed * 1000000 + trainings.size();
                        way.models.push_back(way.name + "-m" + std::to_string(i));
                        trainings.push_back({.label = way.models.back(),
                                             .laboratory = laboratory,
                                             .seed = own,
                                             .initialisation = way.initialisation == "shared"
                                                                   ? seed * 1000000 + shared_seed
                                                                   : own});
                    }
                    ways.push_back(std::move(way));
                }
            }
        }
        bench.train(trainings);
        return ways;
    }

    static std::vector<Setting> settings_of(const Value& options, const std::vector<Way>& ways) {
        std::vector<Setting> settings;
        for (const auto& initialisation : options["initialisations"].items()) {
            for (const auto& alignment : options["alignments"].items()) {
                Setting setting{initialisation.as_text(), alignment.as_text(), {}, {}, {}};
                for (const auto& way : ways) {
                    if (way.initialisation != setting.initialisation) continue;
                    for (const auto& model : way.models) {
                        setting.models.push_back(model);
                        setting.way_of.push_back(setting.ways.size());
                    }
                    setting.ways.push_back(&way);
                }
                settings.push_back(std::move(setting));
            }
        }
        return settings;
    }

    /// A job is a model with all that come after it.
    static void measure(Setting& setting, const Value& options, Workbench& bench) {
        const auto seed = static_cast<std::uint64_t>(options["seed"].as_int());
        const auto n = setting.models.size();
        const auto results = bench.run(
            "pairs-" + setting.initialisation + "-" + label_of(Value::of(setting.alignment)), setting.models,
            [&](std::size_t i) {
                const Laboratory& lab =
                    *setting.ways.front()->laboratory;  // the ways differ in training alone
                if (!bench.has_model(setting.models[i]))
                    return Json{{"accuracy", nullptr}, {"signs", nullptr}, {"midpoint", nullptr}};
                const auto a = bench.model(setting.models[i]);
                Json row = {{"accuracy", lab.test_score(a).accuracy},
                            {"signs", Json::array()},
                            {"midpoint", Json::array()}};
                for (std::size_t j = i + 1; j < n; ++j) {
                    if (!bench.has_model(setting.models[j])) {
                        for (const char* key : {"signs", "midpoint"}) row[key].push_back(nullptr);
                        continue;
                    }
                    const auto b = lab.align(a, bench.model(setting.models[j]), setting.alignment, seed);
                    row["signs"].push_back(analysis::sign_consistency(a, b).overall);
                    row["midpoint"].push_back(lab.test_score(analysis::interpolate(a, b, 0.5)).accuracy);
                }
                return row;
            });
        setting.table.models = static_cast<std::int64_t>(n);
        const auto accuracy = numbers_in(results, "accuracy");
        for (std::size_t i = 0; i < n; ++i) {
            const auto signs = row_in(results[i], "signs", n - i - 1);
            const auto midpoints = row_in(results[i], "midpoint", n - i - 1);
            setting.trained.push_back(!std::isnan(accuracy[i]));
            for (std::size_t j = i + 1; j < n; ++j) {
                const double midpoint = midpoints[j - i - 1];
                setting.table.x.push_back(signs[j - i - 1]);
                // Beside what the two can do themselves: better trained models merge to higher accuracy anyway.
                setting.table.y.push_back(midpoint - 0.5 * (accuracy[i] + accuracy[j]));
                setting.midpoint.push_back(midpoint);
            }
        }
    }

    using Members = std::vector<std::int64_t>;

    /// The trained models of each way.
    static std::vector<Members> all_ways(const Setting& setting) {
        std::vector<Members> ways(setting.ways.size());
        for (std::size_t i = 0; i < setting.models.size(); ++i) {
            if (setting.trained[i]) ways[setting.way_of[i]].push_back(static_cast<std::int64_t>(i));
        }
        return ways;
    }

    /// The ways none of whose models diverged: those that can stand for each other.
    static std::vector<Members> whole_ways(const Setting& setting) {
        auto ways = all_ways(setting);
        std::erase_if(ways, [&](const Members& members) {
            return members.size() * setting.ways.size() != setting.models.size();
        });
        return ways;
    }

    static Members joined(const std::vector<Members>& ways) {
        Members all;
        for (const auto& members : ways) all.insert(all.end(), members.begin(), members.end());
        return all;
    }

    /// The ways with their models numbered as they come in `joined`.
    static std::vector<Members> numbered(std::vector<Members> ways) {
        std::int64_t next = 0;
        for (auto& members : ways) {
            for (auto& member : members) member = next++;
        }
        return ways;
    }

    /// The pairs among some of the models.
    static PairTable of_models(const Setting& setting, const Members& members) {
        PairTable table{static_cast<std::int64_t>(members.size()), {}, {}};
        for (std::size_t i = 0; i < members.size(); ++i) {
            for (std::size_t j = i + 1; j < members.size(); ++j) {
                const auto pair = pair_index(members[i], members[j], setting.table.models);
                table.x.push_back(setting.table.x[pair]);
                table.y.push_back(setting.table.y[pair]);
            }
        }
        return table;
    }

    /// The pairs inside each way of training.
    static std::vector<PairTable> cells(const Setting& setting) {
        std::vector<PairTable> all;
        for (const auto& members : all_ways(setting)) all.push_back(of_models(setting, members));
        return all;
    }

    static std::string words(const Setting& setting) {
        std::string text = setting.initialisation;
        text += " initialisation, ";
        text += setting.alignment == "none" ? "as trained" : setting.alignment;
        return text;
    }

    static Finding finding(const std::string& claim, const PairCorrelation& correlation,
                           const std::string& units) {
        Finding finding{
            .claim = claim,
            .source = "Li et al., NeurIPS 2024 (arXiv 2405.12489)",
            .published = "positive correlation",
            .ours = "r = " + estimate_text({correlation.value, correlation.low, correlation.high, 0}) + ", " +
                    p_text(correlation.p) + " over " + units,
            .numbers = {{"correlation", correlation.value},
                        {"low", correlation.low},
                        {"high", correlation.high},
                        {"p", correlation.p},
                        {"permutations", correlation.permutations}}};
        // Neither alone: the permutations know nothing of how far the units scatter, the interval nothing of chance.
        const bool settled = correlation.p < 0.01 && (correlation.low > 0 || correlation.high < 0);
        finding.seen = !settled                ? Finding::Seen::unsettled
                       : correlation.value > 0 ? Finding::Seen::yes
                                               : Finding::Seen::no;
        return finding;
    }

    static report::Section scatter(const std::vector<Setting>& settings) {
        report::Figure figure{.name = "signs-and-merging",
                              .title = "Sign consistency and what merging costs",
                              .caption =
                                  "Each point is a pair of models: the accuracy at their midpoint minus the "
                                  "mean accuracy of the two, on test samples.",
                              .x = {.label = "sign consistency (%)"},
                              .y = {.label = "midpoint − ends (accuracy, points)"}};
        for (const auto& setting : settings) {
            report::Series series{.name = words(setting),
                                  .x = known_of(setting.table.x),
                                  .y = known_of(setting.table.y),
                                  .style = report::Series::Style::points};
            for (double& x : series.x) x *= 100;
            for (double& y : series.y) y *= 100;
            figure.series.push_back(std::move(series));
        }
        return {.title = "Signs and merging", .figures = {figure}};
    }

    static report::Section table(const std::vector<Setting>& settings, const std::vector<Finding>& findings) {
        report::TextTable table{
            .name = "settings",
            .title = "Within each setting",
            .caption =
                "Pearson's r over pairs, with 95% bootstrap interval and the p of a Mantel test. All ways of "
                "training: whole ways are drawn and permuted. Trained alike: models, inside their way. "
                "Trainings "
                "that diverged are left out, and their way where ways are permuted.",
            .columns = {"initialisation", "alignment", "models", "signs (%)", "midpoint (%)",
                        "midpoint − ends "
                        "(points)",
                        "all ways of training", "trained alike"},
            .rows = {}};
        for (std::size_t i = 0; i < settings.size(); ++i) {
            const auto& setting = settings[i];
            table.rows.push_back({setting.initialisation, setting.alignment,
                                  std::to_string(joined(all_ways(setting)).size()),
                                  fixed(100 * known_mean(setting.table.x).value, 2),
                                  fixed(100 * known_mean(setting.midpoint).value, 2),
                                  fixed(100 * known_mean(setting.table.y).value, 2), findings[i].ours,
                                  findings[i + settings.size()].ours});
        }
        return {.title = "Settings", .tables = {table}};
    }
};

const StudyRegistration sign_consistency_vs_merge_registration{
    {.kind = "study",
     .name = "sign-consistency-vs-merge",
     .help = "accuracy at the midpoint of pairs of models against the share of parameters that agree in sign",
     .citation = "Li et al., NeurIPS 2024 (arXiv 2405.12489)",
     .options = {core::texts("initialisations", "shared: all models start alike; independent: each its own")
                     .at_least_items(1),
                 core::numbers("learning_rates", "of the clients' algorithm").above(0).at_least_items(1),
                 core::integers("epochs", "each with each learning rate").at_least(1).at_least_items(1),
                 core::integer("models", "of each way of training").at_least(2),
                 core::texts("alignments", "none, or matching methods as `thalweg align --method` has them")
                     .at_least_items(1),
                 core::integer("permutations", "of the models, in each test").at_least(1)}},
    [](const Value&) { return std::make_unique<SignConsistencyVsMerge>(); }};

}  // namespace

}  // namespace thalweg::study::sign_consistency_vs_merge
