#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "architectures.hpp"
#include "checks.hpp"
#include "common.hpp"
#include "estimates.hpp"
#include "rows.hpp"
#include "thalweg/aggregator/matching.hpp"
#include "thalweg/aggregator/spheres.hpp"
#include "thalweg/analysis/flatness.hpp"
#include "thalweg/analysis/paths.hpp"
#include "thalweg/core/error.hpp"
#include "thalweg/embedded/studies.hpp"
#include "units.hpp"

namespace thalweg::study::toroid {

namespace {

using core::Value;

constexpr const char* paper = "Pittorino et al., ICML 2022 (arXiv 2202.03038)";

/// The paths between the two models of a pair.
struct PathKind {
    const char* key;
    const char* name;
};
constexpr std::array<PathKind, 7> paths{{{"line", "line, as trained"},
                                         {"line-matched", "line, matched"},
                                         {"line-toroid", "line, normalised and matched"},
                                         {"geodesic", "geodesic, normalised"},
                                         {"geodesic-matched", "geodesic, normalised and matched"},
                                         {"bend", "one bend, as trained"},
                                         {"bend-matched", "one bend, matched"}}};
constexpr std::size_t line = 0, line_matched = 1, line_toroid = 2, geodesic_matched = 4, bend = 5,
                      bend_matched = 6;

/// Models of one architecture trained one way, in pairs that share none; NaN where a training diverged.
struct Way {
    std::string name, architecture;
    std::shared_ptr<const Laboratory> laboratory;
    std::vector<std::string> pairs{}, models{};                   ///< labels; models 2i and 2i + 1 are pair i
    std::vector<double> train_error{}, test_error{}, energy{};    ///< by model, in percent
    std::vector<std::vector<double>> energies{};                  ///< [model][σ]
    std::vector<std::vector<double>> train_barrier{}, barrier{};  ///< [pair][path], points of error
    std::vector<std::vector<std::vector<double>>> curves{};       ///< [pair][path][t]: test error in percent
    std::vector<double> distance{};                               ///< [pair], normalised and matched
};

void append(std::vector<double>& all, const std::vector<double>& more) {
    all.insert(all.end(), more.begin(), more.end());
}

class Toroid final : public Study {
  public:
    std::string_view configuration() const override { return embedded::studies::toroid_yaml; }

    Result conduct(const Value& options, Workbench& bench) const override {
        require_matching(options["matching"], options);
        for (const auto& training : options["trainings"].items()) require_name(training["name"]);
        auto ways = train(options, bench);
        for (auto& way : ways) {
            measure_energy(way, options, bench);
            measure_paths(way, options, bench);
        }
        Result result;
        core::Random random(static_cast<std::uint64_t>(options["seed"].as_int()), "permutation test");
        for (const auto& item : options["architectures"].items()) {
            std::vector<const Way*> own;
            for (const auto& way : ways) {
                if (way.architecture == label_of(item["name"])) own.push_back(&way);
            }
            add_findings(own, random, options["permutations"].as_int(), result);
        }
        result.summary =
            "Error barriers between independently trained models, from the line between them as "
            "trained to the geodesic between them normalised and matched, for " +
            ways.front().architecture + ": " + result.findings[0].ours +
            ". Local energy and test error over models: " + result.findings[3].ours +
            ". Training error by way: " + training_errors(ways) + ".";
        result.sections = {path_section(ways, options), energy_section(ways, options)};
        return result;
    }

  private:
    /// The premise: the source's models make none.
    static std::string training_errors(const std::vector<Way>& ways) {
        std::string text;
        for (const auto& way : ways) {
            if (!text.empty()) text += "; ";
            text += way.name + " " + fixed(known_mean(way.train_error).value, 2) + "%";
        }
        return text;
    }

    static std::vector<Way> train(const Value& options, Workbench& bench) {
        std::vector<Way> ways;
        std::vector<Training> trainings;
        const auto seed = static_cast<std::uint64_t>(options["seed"].as_int());
        for (const auto& item : options["architectures"].items()) {
            for (const auto& training : options["trainings"].items()) {
                const auto architecture = open_architecture(item, options, bench, training["set"].items());
                if (aggregator::Spheres(architecture.laboratory->graph()).units() == 0)
                    item["model"].reject(
                        "this model has no hidden units that can be rescaled, so that it cannot be "
                        "normalised; take positively homogeneous activations (ReLU, leaky ReLU, PReLU)");
                Way way{.name = architecture.name + ", " + training["name"].as_text(),
                        .architecture = architecture.name,
                        .laboratory = architecture.laboratory};
                const auto stem = architecture.name + "-" + label_of(training["name"]);
                for (std::int64_t i = 0; i < options["pairs"].as_int(); ++i) {
                    way.pairs.push_back(stem + "-p" + std::to_string(i));
                    for (const char* member : {"a", "b"}) {
                        way.models.push_back(way.pairs.back() + member);
                        // No two share a start or an order of the samples: as units of one test, ways with the same
                        // numbers would be copies of each other.
                        const auto own = seed * 1000000 + trainings.size();
                        trainings.push_back({.label = way.models.back(),
                                             .laboratory = way.laboratory,
                                             .seed = own,
                                             .initialisation = own});
                    }
                }
                ways.push_back(std::move(way));
            }
        }
        bench.train(trainings);
        return ways;
    }

    static void measure_energy(Way& way, const Value& options, Workbench& bench) {
        const auto seed = static_cast<std::uint64_t>(options["seed"].as_int());
        const Laboratory& lab = *way.laboratory;
        std::vector<double> sigmas;
        for (const auto& sigma : options["sigmas"].items()) sigmas.push_back(sigma.as_number());
        const auto results = bench.run("energy", way.models, [&](std::size_t i) {
            if (!bench.has_model(way.models[i]))
                return Json{{"train_error", nullptr}, {"test_error", nullptr}, {"energies", nullptr}};
            const auto parameters = bench.model(way.models[i]);
            const auto energy = analysis::local_energy(lab.graph(), parameters, *lab.train, sigmas,
                                                       options["repeats"].as_int(), seed, bench.alone());
            Json row = {{"train_error", 100 * (1 - energy.at.accuracy)},
                        {"test_error", 100 * (1 - lab.test_score(parameters).accuracy)},
                        {"energies", Json::array()}};
            for (const auto& point : energy.points) row["energies"].push_back(100 * point.energy);
            return row;
        });
        way.train_error = numbers_in(results, "train_error");
        way.test_error = numbers_in(results, "test_error");
        for (const auto& row : results) {
            way.energies.push_back(row_in(row, "energies", sigmas.size()));
            way.energy.push_back(way.energies.back().back());
        }
    }

    static void measure_paths(Way& way, const Value& options, Workbench& bench) {
        const auto seed = static_cast<std::uint64_t>(options["seed"].as_int());
        const Laboratory& lab = *way.laboratory;
        const auto& graph = lab.graph();
        const aggregator::Spheres spheres(graph);
        const auto results = bench.run("paths", way.pairs, [&](std::size_t pair) {
            Json row = {{"distance", nullptr}, {"train", nullptr}, {"test", nullptr}, {"curves", nullptr}};
            const auto &first = way.models[2 * pair], &second = way.models[2 * pair + 1];
            if (!bench.has_model(first) || !bench.has_model(second)) return row;
            const auto a = bench.model(first), b = bench.model(second);
            // By one method, so that what is normalised differs in that alone.
            const auto matching = options["matching"].as_text();
            const auto matched = lab.align(a, b, matching, seed);
            auto round_a = a.clone(), round_b = b.clone();
            for (auto* model : {&round_a, &round_b}) {
                spheres.fold_batch_norms(*model);
                spheres.normalise(*model);
            }
            const auto round_matched = lab.align(round_a, round_b, matching, seed);
            row["distance"] = aggregator::distance(round_a, round_matched);
            std::vector<std::unique_ptr<analysis::Path>> all;
            all.push_back(analysis::line_path(a, b));
            all.push_back(analysis::line_path(a, matched));
            all.push_back(analysis::line_path(round_a, round_matched));
            all.push_back(analysis::geodesic_path(graph, round_a, round_b));
            all.push_back(analysis::geodesic_path(graph, round_a, round_matched));
            for (const auto* end : {&b, &matched}) all.push_back(bent(lab, a, *end, options, row));
            for (const char* key : {"train", "test", "curves"}) row[key] = Json::array();
            for (const auto& path : all) {
                if (path == nullptr) {
                    for (const char* key : {"train", "test", "curves"}) row[key].push_back(nullptr);
                    continue;
                }
                const auto curve =
                    analysis::path_curve(graph, *path, {{"train", lab.train.get()}, {"test", lab.test.get()}},
                                         {.points = options["points"].as_int()}, nullptr, bench.alone());
                row["train"].push_back(100 * curve.splits[0].second.error_barrier);
                row["test"].push_back(100 * curve.splits[1].second.error_barrier);
                Json errors = Json::array();
                for (const double accuracy : curve.splits[1].second.accuracy)
                    errors.push_back(100 * (1 - accuracy));
                row["curves"].push_back(errors);
            }
            return row;
        });
        way.distance = numbers_in(results, "distance");
        const auto points = static_cast<std::size_t>(options["points"].as_int());
        for (const auto& row : results) {
            way.train_barrier.push_back(row_in(row, "train", paths.size()));
            way.barrier.push_back(row_in(row, "test", paths.size()));
            way.curves.emplace_back();
            for (std::size_t path = 0; path < paths.size(); ++path) {
                const Json curve = row["curves"].is_null() ? Json() : row["curves"][path];
                way.curves.back().push_back(row_in({{"errors", curve}}, "errors", points));
            }
        }
    }

    /// A path whose bend is trained; nullptr where that diverged, and `row` says why.
    static std::unique_ptr<analysis::Path> bent(const Laboratory& lab, const model::Parameters& a,
                                                const model::Parameters& end, const Value& options,
                                                Json& row) {
        const auto seed = static_cast<std::uint64_t>(options["seed"].as_int());
        try {
            return analysis::polygon_path(
                a,
                analysis::train_bend(lab.graph(), a, end, "polygon", *lab.train,
                                     {.epochs = options["bend_epochs"].as_int()}, seed),
                end);
        } catch (const core::RunError& diverged) {
            row["diverged"] = diverged.what();
            return nullptr;
        }
    }

    /// Barrier of path `from` minus that of `to`, pair by pair.
    static Finding smaller(const std::vector<const Way*>& ways, std::size_t from, std::size_t to,
                           const std::string& claim, const std::string& published) {
        std::vector<double> before, after;
        for (const auto* way : ways) {
            append(before, column(way->barrier, from));
            append(after, column(way->barrier, to));
        }
        const auto units = differences_of(before, after);
        const auto estimate = known_mean(units);
        const double p = known_p(units);
        return {.claim = ways.front()->architecture + ": " + claim,
                .source = paper,
                .published = published,
                .ours = fixed(known_mean(before).value, 1) + " → " + fixed(known_mean(after).value, 1) +
                        " points of test error, " + estimate_text(estimate, 1) + " less, " +
                        p_text(p, estimate.count),
                .seen = seen_by(p, estimate.value),
                .numbers = json_of(estimate, p)};
    }

    /// Judged inside ways of training: between them, x and y both follow the way, and there are few. `tables`: one a way.
    static Finding correlated(const std::string& claim, const std::string& published,
                              std::vector<UnitTable> tables, const std::string& units, core::Random& random,
                              std::int64_t permutations) {
        UnitTable all;
        for (auto& table : tables) {
            table = known_units(table);
            append(all.x, table.x);
            append(all.y, table.y);
        }
        const auto found = unit_correlation(tables, random, permutations);
        const double pooled = rank_correlation(all.x, all.y);
        return {.claim = claim,
                .source = paper,
                .published = published,
                .ours = "rank correlation " + estimate_text({found.value, found.low, found.high, 0}) +
                        " inside ways of training, " + std::to_string(found.units) + " " + units + ", " +
                        p_text(found.p) + "; " + fixed(pooled, 2) +
                        " over all ways, which is not judged: ways differ in both",
                .seen = seen_by(found.p, found.value),
                .numbers = {{"correlation", found.value},
                            {"low", found.low},
                            {"high", found.high},
                            {"units", found.units},
                            {"p", found.p},
                            {"over all ways", pooled}}};
    }

    /// The units that are known in both.
    static UnitTable known_units(const UnitTable& table) {
        UnitTable known;
        for (std::size_t i = 0; i < table.x.size(); ++i) {
            if (std::isnan(table.x[i]) || std::isnan(table.y[i])) continue;
            known.x.push_back(table.x[i]);
            known.y.push_back(table.y[i]);
        }
        return known;
    }

    static void add_findings(const std::vector<const Way*>& ways, core::Random& random,
                             std::int64_t permutations, Result& result) {
        const std::string name = ways.front()->architecture;
        result.findings.push_back(
            smaller(ways, line, geodesic_matched,
                    "the geodesic between normalised, matched models has a lower barrier "
                    "than the line between them as trained",
                    "barriers along geodesics are small"));
        result.findings.push_back(smaller(ways, line_toroid, geodesic_matched,
                                          "and than the line between the same normalised, matched models",
                                          "geodesics stay on the normalised models"));
        result.findings.push_back(
            smaller(ways, line_matched, geodesic_matched,
                    "and than the line between models matched as trained, so that it is not "
                    "matching alone",
                    "symmetries of scale matter, too"));
        std::vector<UnitTable> errors, distances, barriers;
        std::vector<double> bent, bent_matched;
        for (const auto* way : ways) {
            std::vector<double> pair_energy;
            for (std::size_t pair = 0; pair < way->pairs.size(); ++pair)
                pair_energy.push_back(0.5 * (way->energy[2 * pair] + way->energy[2 * pair + 1]));
            errors.push_back({way->energy, way->test_error});
            distances.push_back({pair_energy, way->distance});
            barriers.push_back({pair_energy, column(way->barrier, geodesic_matched)});
            append(bent, column(way->train_barrier, bend));
            append(bent_matched, column(way->train_barrier, bend_matched));
        }
        result.findings.push_back(
            correlated(name + ": models of higher local energy (sharper) have more test error",
                       "flatness and generalisation are correlated", errors, "models", random, permutations));
        result.findings.push_back(correlated(name + ": flatter minima are closer to each other",
                                             "flatter minima are closer", distances, "pairs", random,
                                             permutations));
        result.findings.push_back(correlated(name + ": flatter minima have lower barriers between them",
                                             "barriers between flat minima are small", barriers, "pairs",
                                             random, permutations));
        result.findings.push_back(one_bend(name, bent, bent_matched));
    }

    static Finding one_bend(const std::string& name, const std::vector<double>& barriers,
                            const std::vector<double>& matched) {
        const auto estimate = known_mean(barriers);
        return {
            .claim = name +
                     ": one bend connects models as trained with less than 1 point of training error above "
                     "their own",
            .source = paper,
            .published = "zero error along paths with one bend",
            .ours = "barrier " + estimate_text(estimate, 2) +
                    " points of training error; between matched models " +
                    estimate_text(known_mean(matched), 2),
            .seen = estimate.high < 1  ? Finding::Seen::yes
                    : estimate.low > 1 ? Finding::Seen::no
                                       : Finding::Seen::unsettled,
            .numbers = json_of(estimate, std::numeric_limits<double>::quiet_NaN())};
    }

    static report::Section path_section(const std::vector<Way>& ways, const Value& options) {
        report::Section section{.title = "Paths"};
        report::TextTable table{
            .name = "path-barriers",
            .title = "Error barriers by path",
            .caption =
                "Largest excess of the error over the line between the ends', in points, on test "
                "(training) samples; mean over pairs, test with 95% interval. The source's models make no "
                "training error: ours, see there.",
            .columns = {"models", "pairs", "training error (%)", "test error (%)"},
            .rows = {}};
        for (const auto& path : paths) table.columns.emplace_back(path.name);
        report::Figure bars{.name = "barriers",
                            .title = "Error barriers by path",
                            .caption =
                                "Largest excess of the test error over the line between the ends'; mean "
                                "over pairs that share no model, with 95% interval.",
                            .x = {.label = "path"},
                            .y = {.label = "test error barrier (points)"}};
        for (const auto& path : paths) bars.categories.emplace_back(path.name);
        for (const auto& way : ways) {
            table.rows.push_back({way.name, std::to_string(known_of(column(way.barrier, line)).size()),
                                  estimate_text(known_mean(way.train_error), 2),
                                  estimate_text(known_mean(way.test_error), 1)});
            report::Series series{.name = way.name, .style = report::Series::Style::bars};
            for (std::size_t p = 0; p < paths.size(); ++p) {
                const auto estimate = known_mean(column(way.barrier, p));
                table.rows.back().push_back(estimate_text(estimate, 1) + " (" +
                                            fixed(known_mean(column(way.train_barrier, p)).value, 1) + ")");
                add_point(series, static_cast<double>(p), estimate);
            }
            bars.series.push_back(std::move(series));
            section.figures.push_back(curve_figure(way, options));
        }
        section.figures.insert(section.figures.begin(), std::move(bars));
        section.tables.push_back(std::move(table));
        return section;
    }

    static report::Figure curve_figure(const Way& way, const Value& options) {
        report::Figure figure{.name = "paths-" + way.pairs.front().substr(0, way.pairs.front().rfind("-p")),
                              .title = "Paths between " + way.name,
                              .caption = "Test error along the paths, mean over " +
                                         std::to_string(known_of(column(way.barrier, line)).size()) +
                                         " pairs of models.",
                              .x = {.label = "t: from one model to the other"},
                              .y = {.label = "test error (%)"}};
        const auto points = static_cast<std::size_t>(options["points"].as_int());
        for (std::size_t p = 0; p < paths.size(); ++p) {
            report::Series series{.name = paths[p].name};
            for (std::size_t i = 0; i < points; ++i) {
                std::vector<double> errors;
                for (const auto& curves : way.curves) errors.push_back(curves[p][i]);
                series.x.push_back(static_cast<double>(i) / static_cast<double>(points - 1));
                series.y.push_back(known_mean(errors).value);
            }
            figure.series.push_back(std::move(series));
        }
        return figure;
    }

    static report::Section energy_section(const std::vector<Way>& ways, const Value& options) {
        const auto& sigmas = options["sigmas"].items();
        report::Figure points{.name = "energy-and-error",
                              .title = "Local energy and test error",
                              .caption =
                                  "Each point is a model: how much its training error rises, on average, "
                                  "when every parameter is multiplied by 1 + σz, σ = " +
                                  sigmas.back().as_text() + ", z normal; and its error on test samples.",
                              .x = {.label = "local energy (points of training error)"},
                              .y = {.label = "test error (%)"}};
        report::Figure curves{.name = "energy",
                              .title = "Local energy",
                              .caption =
                                  "Rise of the training error under multiplicative noise of strength σ; "
                                  "mean over models, band: 95% interval over them.",
                              .x = {.label = "σ: noise ÷ parameter"},
                              .y = {.label = "local energy (points of training error)"}};
        report::TextTable table{
            .name = "energies",
            .title = "Local energy by way of training",
            .caption =
                "Mean over models with 95% interval; energies in points of training "
                "error at the strengths σ.",
            .columns = {"models", "count", "training error (%)", "test error (%)", "distance"},
            .rows = {}};
        for (const auto& sigma : sigmas) table.columns.push_back("σ = " + sigma.as_text());
        for (const auto& way : ways) {
            points.series.push_back({.name = way.name,
                                     .x = way.energy,
                                     .y = way.test_error,
                                     .style = report::Series::Style::points});
            report::Series series{.name = way.name};
            table.rows.push_back({way.name, std::to_string(known_of(way.energy).size()),
                                  estimate_text(known_mean(way.train_error), 2),
                                  estimate_text(known_mean(way.test_error), 2),
                                  estimate_text(known_mean(way.distance), 2)});
            for (std::size_t s = 0; s < sigmas.size(); ++s) {
                const auto estimate = known_mean(column(way.energies, s));
                add_point(series, sigmas[s].as_number(), estimate);
                table.rows.back().push_back(estimate_text(estimate, 2));
            }
            curves.series.push_back(std::move(series));
        }
        return {.title = "Flatness", .figures = {points, curves}, .tables = {table}};
    }
};

const StudyRegistration toroid_registration{
    {.kind = "study",
     .name = "toroid",
     .help = "barriers along lines, geodesics and one-bend paths once symmetries are removed, and flatness "
             "beside "
             "test error",
     .citation = paper,
     .options = {architectures_option("what is trained; their activations are positively homogeneous"),
                 core::objects(
                     "trainings",
                     {core::text("name", "in files, figures and tables"),
                      core::texts("set", "of the experiment: `clients.batch_size=16`").by_default("[]")},
                     "ways of training, which find minima of different flatness")
                     .at_least_items(1),
                 core::integer("pairs", "of models, trained each way; no model is in two").at_least(2),
                 core::text("matching", "method by which normalised models are matched"),
                 core::numbers("sigmas",
                               "strengths of the noise of local energy; findings are about the last")
                     .above(0)
                     .at_least_items(1),
                 core::integer("repeats", "of that noise").at_least(1),
                 core::integer("points", "of every path").at_least(3),
                 core::integer("bend_epochs", "of training a bend").at_least(1),
                 core::integer("permutations", "of models or pairs, in each test").at_least(1)}},
    [](const Value&) { return std::make_unique<Toroid>(); }};

}  // namespace

}  // namespace thalweg::study::toroid
