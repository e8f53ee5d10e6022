#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "checks.hpp"
#include "common.hpp"
#include "estimates.hpp"
#include "federated_run.hpp"
#include "thalweg/embedded/studies.hpp"
#include "units.hpp"

namespace thalweg::study::rounds_to_one_valley {

namespace {

using core::Value;

constexpr double none = std::numeric_limits<double>::quiet_NaN();
constexpr double one_valley_below = 2;  ///< points of error: stable in Frankle et al., ICML 2020

/// What is followed from round to round.
struct Quantity {
    const char* key;   ///< in a job's result
    const char* name;  ///< the figure's stem
    const char* title;
    const char* label;  ///< of the axis
    const char* what;   ///< for the caption
};
constexpr Quantity quantities[] = {
    {"barrier_sent", "barrier-as-sent", "Barrier between clients as they send their models",
     "error barrier (points)",
     "Largest excess of the test error on the line between two clients' models, as trained in that round; "
     "mean over "
     "pairs of clients"},
    {"barrier_aligned", "barrier-aligned", "Barrier between clients after the alignment",
     "error barrier (points)", "The same after the pipeline's alignment, where it has one"},
    {"signs_sent", "signs-as-sent", "Sign consistency between clients as they send their models",
     "sign consistency (%)",
     "Parameters whose signs agree between two clients' models, as trained in that round"},
    {"signs_aligned", "signs-aligned", "Sign consistency between clients after the alignment",
     "sign consistency (%)", "The same after the pipeline's alignment, where it has one"},
    {"variance_ratio", "variance-ratio", "Variance of the averaged model's units over the clients'",
     "variance ratio",
     "Variance of the pre-activations of the averaged model, before REPAIR, over the clients' mean "
     "(1 is healthy, 0 the collapse); mean over hidden layers"},
    {"accuracy", "accuracy", "Accuracy of the global model", "test accuracy (%)",
     "Test accuracy of the global model after the round"}};

/// The federations of one pipeline, by seed.
struct Runs {
    std::string pipeline;
    std::vector<std::string> labels{};
    std::vector<federation::Experiment> experiments{};
    std::vector<Json> results{};

    /// Of every seed in round r (from 0); NaN where the training diverged.
    std::vector<double> in_round(const std::string& key, std::size_t round) const {
        std::vector<double> all;
        for (const auto& result : results) {
            const Json& values = result.at(key);
            all.push_back(round < values.size() && values[round].is_number() ? values[round].get<double>()
                                                                             : none);
        }
        return all;
    }
    /// The first round from which on the barrier between clients as sent (mean over their pairs) is below the threshold, by
    /// seed; one more than there are rounds where there is none; NaN where the training diverged or no round was measured.
    /// Rounds that were not measured say nothing.
    std::vector<double> rounds_needed(std::size_t rounds) const {
        std::vector<double> all;
        for (const auto& result : results) {
            const Json& barriers = result.at("barrier_sent");
            double needed = none;
            for (std::size_t round = barriers.size() == rounds ? rounds : 0; round > 0; --round) {
                if (!barriers[round - 1].is_number()) continue;
                if (std::isnan(needed)) needed = static_cast<double>(rounds + 1);
                if (!(barriers[round - 1].get<double>() < one_valley_below)) break;
                needed = static_cast<double>(round);
            }
            all.push_back(needed);
        }
        return all;
    }
    /// In words: `in 3 of 8 federations; mean round among those 2.3`, `in none of 8 federations within 12 rounds`.
    std::string needed_text(std::size_t rounds) const {
        const auto needed = rounds_needed(rounds);
        std::vector<double> reached;
        for (const double round : needed) {
            if (round <= static_cast<double>(rounds)) reached.push_back(round);
        }
        const std::string federations = std::to_string(known_mean(needed).count) + " federations";
        if (reached.empty())
            return "in none of " + federations + " within " + std::to_string(rounds) + " rounds";
        return "in " + std::to_string(reached.size()) + " of " + federations + "; mean round among those " +
               estimate_text(mean_of(reached), 1);
    }
};

class RoundsToOneValley final : public Study {
  public:
    std::string_view configuration() const override { return embedded::studies::rounds_to_one_valley_yaml; }

    Result conduct(const Value& options, Workbench& bench) const override {
        auto all = plan(options, bench);
        const auto rounds = static_cast<std::size_t>(all.front().experiments.front().rounds);
        if (rounds < 2)
            options["experiment"].reject(
                "the study goes from round to round; give server.rounds of 2 or more");
        const auto laboratory = bench.laboratory(options["experiment"], {}, options["samples"]);
        core::collectively(bench.all(), [&] {
            for (std::size_t i = 0; i < all.size(); ++i)
                at_place(options["pipelines"].items()[i],
                         [&] { require_runnable(all[i].experiments.front(), *laboratory, bench); });
        });
        run(all, *laboratory, bench);
        Result result;
        for (const auto& runs : all) add_valley_findings(runs, rounds, result);
        for (std::size_t i = 1; i < all.size(); ++i) add_comparison(all[i], all.front(), rounds, result);
        result.summary = "Clients of independent initialisations, round by round: ";
        for (const auto& runs : all)
            result.summary +=
                runs.pipeline +
                " comes into one valley (mean error barrier over pairs of clients as sent below 2 "
                "points to the end) " +
                runs.needed_text(rounds) + ", accuracy after round 1 " + percent(runs, "accuracy", 0) +
                "%, after round " + std::to_string(rounds) + " " + percent(runs, "accuracy", rounds - 1) +
                (&runs == &all.back() ? "%." : "%; ");
        result.sections = {section(all, rounds), {.title = "By round", .tables = {table(all, rounds)}}};
        return result;
    }

  private:
    static std::vector<Runs> plan(const Value& options, Workbench& bench) {
        return core::collectively(bench.all(), [&] {
            std::vector<Runs> all;
            const auto seed = options["seed"].as_int();
            for (const auto& pipeline : options["pipelines"].items()) {
                Runs runs{pipeline.as_text()};
                for (std::int64_t i = 0; i < options["seeds"].as_int(); ++i) {
                    runs.labels.push_back(fmt::format("p{}-s{}", all.size(), i));
                    runs.experiments.push_back(at_place(pipeline, [&] {
                        return federation::make_experiment(
                            options["experiment"],
                            {"seed=" + std::to_string(seed * 1000 + i), fusion_assignment(runs.pipeline)});
                    }));
                }
                all.push_back(std::move(runs));
            }
            return all;
        });
    }

    static void run(std::vector<Runs>& all, const Laboratory& lab, Workbench& bench) {
        std::vector<std::string> labels;
        std::vector<const federation::Experiment*> experiments;
        for (const auto& runs : all) {
            for (std::size_t i = 0; i < runs.labels.size(); ++i) {
                labels.push_back(runs.labels[i]);
                experiments.push_back(&runs.experiments[i]);
            }
        }
        const auto results = bench.run("federations", labels, [&](std::size_t i) {
            return followed(run_federation(*experiments[i], lab, labels[i], bench));
        });
        std::size_t next = 0;
        for (auto& runs : all) {
            for (std::size_t i = 0; i < runs.labels.size(); ++i) runs.results.push_back(results[next++]);
        }
    }

    static Json followed(const std::vector<Json>& lines) {
        Json result;
        for (const auto& quantity : quantities) result[quantity.key] = Json::array();
        for (const auto& line : lines) {
            result["barrier_sent"].push_back(100 * number_at(line, {"barrier", "before", "error"}));
            result["barrier_aligned"].push_back(100 * number_at(line, {"barrier", "after", "error"}));
            result["signs_sent"].push_back(100 *
                                           number_at(line, {"sign_consistency", "client_client_before"}));
            result["signs_aligned"].push_back(100 * number_at(line, {"sign_consistency", "client_client"}));
            result["variance_ratio"].push_back(mean_at(line, {"variance_ratio", "before"}));
            result["accuracy"].push_back(100 * number_at(line, {"test", "accuracy"}));
        }
        return result;
    }

    static std::string percent(const Runs& runs, const std::string& key, std::size_t round) {
        return fixed(known_mean(runs.in_round(key, round)).value, 1);
    }

    static Finding finding(std::string claim, std::string source, std::string published, std::string ours,
                           Finding::Seen seen, const Estimate& estimate, double p) {
        Finding finding{.claim = std::move(claim),
                        .source = std::move(source),
                        .published = std::move(published),
                        .ours = std::move(ours),
                        .seen = seen,
                        .numbers = json_of(estimate)};
        if (!std::isnan(p)) finding.numbers["p"] = p;
        return finding;
    }

    static void add_valley_findings(const Runs& runs, std::size_t rounds, Result& result) {
        const auto second = known_mean(runs.in_round("barrier_sent", std::min<std::size_t>(1, rounds - 1)));
        result.findings.push_back(finding(
            runs.pipeline +
                ": from round 2 on, when clients start from one global model, they train in one valley "
                "(mean error barrier over pairs of clients as sent below 2 points in round 2)",
            "after Frankle et al., ICML 2020: copies of one trained net stay connected", "",
            "barrier " + percent(runs, "barrier_sent", 0) + " points in round 1, " +
                counted_text(second, runs.labels.size()) + " in round 2; below 2 to the end " +
                runs.needed_text(rounds),
            seen_below(second, one_valley_below), second, none));
        const auto risen =
            differences_of(runs.in_round("signs_sent", rounds - 1), runs.in_round("signs_sent", 0));
        const auto estimate = known_mean(risen);
        const double p = known_p(risen);
        result.findings.push_back(finding(
            runs.pipeline + ": clients agree in more signs in the last round than in the first",
            "Li et al., NeurIPS 2024 (arXiv 2405.12489): independent nets agree in half of their signs",
            "50% at first",
            percent(runs, "signs_sent", 0) + "% → " + percent(runs, "signs_sent", rounds - 1) + "%, " +
                counted_text(estimate, runs.labels.size(), 1) + " points, " + p_text(p, estimate.count),
            seen_above(estimate), estimate, p));
    }

    static void add_comparison(const Runs& runs, const Runs& reference, std::size_t rounds, Result& result) {
        const std::string ours = "question of this program";
        const auto sooner = differences_of(reference.rounds_needed(rounds), runs.rounds_needed(rounds));
        const auto rounds_saved = known_mean(sooner);
        double p = known_p(sooner);
        result.findings.push_back(finding(
            runs.pipeline +
                " brings clients into one valley (mean error barrier over their pairs below 2 points) in "
                "fewer rounds than " +
                reference.pipeline,
            ours, "",
            runs.needed_text(rounds) + "; with " + reference.pipeline + " " + reference.needed_text(rounds) +
                "; difference " + counted_text(rounds_saved, runs.labels.size(), 1) +
                " rounds (never counts as " + std::to_string(rounds + 1) + "), " +
                p_text(p, rounds_saved.count),
            seen_above(rounds_saved), rounds_saved, p));
        std::vector<std::size_t> looked_at{0};
        if (rounds > 1) looked_at.push_back(rounds - 1);
        for (const std::size_t round : looked_at) {
            const auto gains =
                differences_of(runs.in_round("accuracy", round), reference.in_round("accuracy", round));
            const auto gain = known_mean(gains);
            p = known_p(gains);
            result.findings.push_back(finding(
                runs.pipeline + " has a better global model than " + reference.pipeline + " after round " +
                    std::to_string(round + 1),
                ours, "",
                percent(runs, "accuracy", round) + "% against " + percent(reference, "accuracy", round) +
                    "%, " + counted_text(gain, runs.labels.size(), 1) + " points, " + p_text(p, gain.count),
                seen_above(gain), gain, p));
        }
    }

    static report::Section section(const std::vector<Runs>& all, std::size_t rounds) {
        report::Section section{.title = "Round by round"};
        const std::size_t seeds = all.front().labels.size();
        auto least = static_cast<std::int64_t>(seeds);
        // A training that diverged has no round at all.
        for (const auto& runs : all)
            least = std::min(least, known_mean(runs.in_round("accuracy", rounds - 1)).count);
        for (const auto& quantity : quantities) {
            report::Figure figure{.name = quantity.name,
                                  .title = quantity.title,
                                  .caption = std::string(quantity.what) +
                                             ". Mean over federations; band: 95% interval over " +
                                             counts_text(least, seeds, "seeds") + ".",
                                  .x = {.label = "round"},
                                  .y = {.label = quantity.label}};
            for (const auto& runs : all) {
                report::Series series{.name = runs.pipeline};
                for (std::size_t round = 0; round < rounds; ++round)
                    add_point(series, static_cast<double>(round + 1),
                              known_mean(runs.in_round(quantity.key, round)));
                figure.series.push_back(std::move(series));
            }
            section.figures.push_back(std::move(figure));
        }
        return section;
    }

    static report::TextTable table(const std::vector<Runs>& all, std::size_t rounds) {
        report::TextTable table{
            .name = "rounds",
            .title = "Round by round",
            .caption =
                "Mean over seeds with 95% interval; barriers in points of test error, signs in percent.",
            .columns = {"pipeline", "round", "barrier as sent", "barrier aligned", "signs as sent",
                        "signs aligned", "variance ratio", "accuracy (%)"},
            .rows = {}};
        for (const auto& runs : all) {
            for (std::size_t round = 0; round < rounds; ++round) {
                table.rows.push_back({runs.pipeline, std::to_string(round + 1)});
                for (const auto& quantity : quantities)
                    table.rows.back().push_back(
                        counted_text(known_mean(runs.in_round(quantity.key, round)), runs.labels.size()));
            }
        }
        return table;
    }
};

const StudyRegistration rounds_to_one_valley_registration{
    {.kind = "study",
     .name = "rounds-to-one-valley",
     .help =
         "barrier, signs and variance ratio between clients of independent initialisations, round by round",
     .citation = "Frankle et al., ICML 2020 (arXiv 1912.05671); Li et al., NeurIPS 2024 (arXiv 2405.12489)",
     .options = {core::texts("pipelines",
                             "fusion pipelines in the short form; the others are set beside the first")
                     .at_least_items(1),
                 core::integer("seeds",
                               "federations of each pipeline: partition, initialisations and batches")
                     .at_least(2)}},
    [](const Value&) { return std::make_unique<RoundsToOneValley>(); }};

}  // namespace

}  // namespace thalweg::study::rounds_to_one_valley
