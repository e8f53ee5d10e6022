#include <algorithm>
#include <cmath>
#include <limits>

#include "architectures.hpp"
#include "checks.hpp"
#include "common.hpp"
#include "estimates.hpp"
#include "rows.hpp"
#include "thalweg/aggregator/matching.hpp"
#include "thalweg/analysis/measures.hpp"
#include "thalweg/embedded/studies.hpp"
#include "units.hpp"

namespace thalweg::study::initialisation {

namespace {

using core::Value;

constexpr const char* paper = "Benzing et al., 2022 (arXiv 2209.07509)";
using Grid = std::vector<std::vector<double>>;

/// Pairs of models of one architecture and learning rate; no model is in two pairs, so that pairs are the units. NaN where a
/// training diverged.
struct Way {
    std::string name, architecture;
    double lr = 0;
    std::shared_ptr<const Laboratory> laboratory;
    std::vector<std::string> pairs;            ///< labels
    std::vector<std::vector<Grid>> average{};  ///< [method][pair][found at][applied at]: accuracy in percent
    Grid kept{}, shuffled{}, ends{};  ///< [pair][applied at]: no and a random permutation; the two's mean
};

std::vector<double> of_pairs(const std::vector<Grid>& grids, std::size_t found, std::size_t applied) {
    std::vector<double> numbers;
    for (const auto& grid : grids) numbers.push_back(grid[found][applied]);
    return numbers;
}

Grid grid_in(const Json& grid, std::size_t steps) {
    if (grid.is_null())
        return Grid(steps, std::vector<double>(steps, std::numeric_limits<double>::quiet_NaN()));
    return grid.get<Grid>();
}

class Initialisation final : public Study {
  public:
    std::string_view configuration() const override { return embedded::studies::initialisation_yaml; }

    Result conduct(const Value& options, Workbench& bench) const override {
        for (const auto& method : options["methods"].items()) require_matching(method, options);
        require_different(options["methods"]);
        require_rising(options["learning_rates"]);
        const auto steps = steps_of(options);
        auto ways = train(options, steps, bench);
        for (auto& way : ways) measure(way, options, steps, bench);
        Result result;
        for (const auto& way : ways) result.findings.push_back(above_chance(way));
        compare_architectures(ways, result);
        compare_rates(ways, result);
        result.summary =
            "Accuracy of the average of two initial models, one permuted as their trained selves "
            "were matched: ";
        for (const auto& way : ways) {
            result.summary +=
                way.name + " " +
                counted_text(known_mean(of_pairs(way.average[0], steps.size() - 1, 0)), way.pairs.size(), 1) +
                "%";
            result.summary += &way == &ways.back() ? "." : ", ";
        }
        result.sections = {initial_section(ways, options, steps), grid_section(ways, options, steps)};
        return result;
    }

  private:
    /// The steps that are looked at, the last one of training at the end.
    static std::vector<std::int64_t> steps_of(const Value& options) {
        const Value* last = steps_in(options);
        if (last == nullptr) {
            const Value& experiment = options["experiment"];
            const Value* clients = experiment.find("clients");
            (clients == nullptr ? experiment : *clients)
                .reject(
                    "the study initialisation counts in optimizer steps; give experiment.clients.steps "
                    "instead of epochs");
        }
        std::vector<std::int64_t> steps{0};
        for (const auto& item : options["steps"].items()) {
            if (item.as_int() <= steps.back() || item.as_int() >= last->as_int())
                item.reject("steps rise, and lie between 0 and experiment.clients.steps (" + last->as_text() +
                            "), which are looked at in any case");
            steps.push_back(item.as_int());
        }
        steps.push_back(last->as_int());
        return steps;
    }

    static std::vector<Way> train(const Value& options, const std::vector<std::int64_t>& steps,
                                  Workbench& bench) {
        std::vector<Way> ways;
        std::vector<Training> trainings;
        const auto seed = static_cast<std::uint64_t>(options["seed"].as_int());
        for (const auto& item : options["architectures"].items()) {
            for (const auto& lr : options["learning_rates"].items()) {
                const auto architecture =
                    open_architecture(item, options, bench, {assignment("clients.algorithm.lr", lr)});
                Way way{.name = architecture.name + ", lr " + lr.as_text(),
                        .architecture = architecture.name,
                        .lr = lr.as_number(),
                        .laboratory = architecture.laboratory};
                for (std::int64_t i = 0; i < options["pairs"].as_int(); ++i) {
                    way.pairs.push_back(architecture.name + "-lr" + label_of(lr) + "-p" + std::to_string(i));
                    for (const std::uint64_t member : {0, 1}) {
                        const auto own = seed * 1000 + 2 * static_cast<std::uint64_t>(i) + member;
                        trainings.push_back({.label = way.pairs.back() + (member == 0 ? "a" : "b"),
                                             .laboratory = way.laboratory,
                                             .seed = own,
                                             .initialisation = own,
                                             .snapshots = steps});
                    }
                }
                ways.push_back(std::move(way));
            }
        }
        bench.train(trainings);
        return ways;
    }

    static void measure(Way& way, const Value& options, const std::vector<std::int64_t>& steps,
                        Workbench& bench) {
        const auto seed = static_cast<std::uint64_t>(options["seed"].as_int());
        const auto& methods = options["methods"].items();
        const Laboratory& lab = *way.laboratory;
        const auto percent = [&](const model::Parameters& a, const model::Parameters& b) {
            return 100 * lab.test_score(analysis::interpolate(a, b, 0.5)).accuracy;
        };
        const auto results = bench.run("averages", way.pairs, [&](std::size_t pair) {
            if (!bench.has_model(way.pairs[pair] + "a") || !bench.has_model(way.pairs[pair] + "b"))
                return Json{
                    {"average", nullptr}, {"kept", nullptr}, {"shuffled", nullptr}, {"ends", nullptr}};
            std::vector<model::Parameters> a, b;
            for (const auto step : steps) {
                a.push_back(bench.snapshot(way.pairs[pair] + "a", step));
                b.push_back(bench.snapshot(way.pairs[pair] + "b", step));
            }
            core::Random random(seed, "control", 0, static_cast<std::int64_t>(pair));
            const auto any = symmetry::random_permutations(lab.setting.symmetries, random);
            Json row = {{"average", Json::array()},
                        {"kept", Json::array()},
                        {"shuffled", Json::array()},
                        {"ends", Json::array()}};
            for (std::size_t s = 0; s < steps.size(); ++s) {
                row["kept"].push_back(percent(a[s], b[s]));
                row["shuffled"].push_back(
                    percent(a[s], symmetry::permute(b[s], lab.setting.symmetries, any)));
                row["ends"].push_back(50 * (lab.test_score(a[s]).accuracy + lab.test_score(b[s]).accuracy));
            }
            for (const auto& method : methods) {
                Grid grid;
                for (std::size_t t = 0; t < steps.size(); ++t) {
                    const auto match = aggregator::align(
                        method.as_text(), {lab.graph(), lab.setting.symmetries, a[t], b[t], lab.calibration},
                        seed);
                    grid.emplace_back();
                    for (std::size_t s = 0; s < steps.size(); ++s)
                        grid.back().push_back(percent(
                            a[s], aggregator::moved_model(lab.graph(), lab.setting.symmetries, b[s], match)));
                }
                row["average"].push_back(grid);
            }
            return row;
        });
        way.average.resize(methods.size());
        for (const auto& row : results) {
            for (std::size_t m = 0; m < methods.size(); ++m)
                way.average[m].push_back(
                    grid_in(row["average"].is_null() ? Json() : row["average"][m], steps.size()));
            way.kept.push_back(row_in(row, "kept", steps.size()));
            way.shuffled.push_back(row_in(row, "shuffled", steps.size()));
            way.ends.push_back(row_in(row, "ends", steps.size()));
        }
    }

    /// Of the initial models, permuted as the trained ones were matched by the first method.
    static std::vector<double> initial_averages(const Way& way) {
        return of_pairs(way.average[0], way.average[0][0].size() - 1, 0);
    }

    /// What merging the trained, matched models costs: the ends' mean minus the midpoint, in points.
    static std::vector<double> costs(const Way& way) {
        const auto last = way.ends[0].size() - 1;
        return differences_of(column(way.ends, last), of_pairs(way.average[0], last, last));
    }

    static double chance(const Way& way) {
        return 100 / static_cast<double>(way.laboratory->graph().classes());
    }

    static Finding above_chance(const Way& way) {
        const auto accuracy = initial_averages(way);
        std::vector<double> excess;
        for (const double value : accuracy) excess.push_back(value - chance(way));
        const auto estimate = known_mean(accuracy);
        const double p = known_p(excess);
        const auto gains = differences_of(accuracy, column(way.shuffled, 0));
        const auto gain = known_mean(gains);
        return {
            .claim = way.name +
                     ": the average of two initial models, one permuted as their trained selves are "
                     "matched, is above chance",
            .source = paper,
            .published =
                is_mlp(*way.laboratory)
                    ? "fully connected nets: significantly above chance"
                    : "convolutional nets: the hypothesis does not hold; initial averages not stated "
                      "in the abstract",
            .ours = counted_text(estimate, way.pairs.size(), 1) + "% against " + fixed(chance(way), 0) +
                    "%, " + p_text(p, estimate.count) + "; a random permutation in its place: " +
                    fixed(known_mean(column(way.shuffled, 0)).value, 1) + "%",
            .seen = estimate.low > chance(way) && gain.low > 0 ? Finding::Seen::yes
                    : estimate.high < chance(way)              ? Finding::Seen::no
                                                               : Finding::Seen::unsettled,
            .numbers = {{"accuracy", json_of(estimate, p)}, {"over_random", json_of(gain, known_p(gains))}}};
    }

    static Finding comparison(const std::string& claim, const std::string& published,
                              const std::vector<double>& units, const std::string& beside) {
        const auto estimate = known_mean(units);
        const double p = known_p(units);
        const bool settled = p < 0.01 || estimate.low > 0 || estimate.high < 0;
        return {.claim = claim,
                .source = paper,
                .published = published,
                .ours = "difference " + counted_text(estimate, units.size(), 1) + " points (" + beside +
                        "), " + p_text(p, estimate.count),
                .seen = !settled             ? Finding::Seen::unsettled
                        : estimate.value > 0 ? Finding::Seen::yes
                                             : Finding::Seen::no,
                .numbers = json_of(estimate, p)};
    }

    static std::string both(const std::vector<double>& a, const std::vector<double>& b) {
        return fixed(known_mean(a).value, 1) + " and " + fixed(known_mean(b).value, 1);
    }

    /// The first architecture against each other one. Pair i of one has nothing to do with pair i of the other but the order
    /// of its samples; the differences are independent all the same.
    static void compare_architectures(const std::vector<Way>& ways, Result& result) {
        for (const auto& a : ways) {
            if (a.architecture != ways.front().architecture) continue;
            for (const auto& b : ways) {
                if (b.architecture == a.architecture || b.lr != a.lr) continue;
                const bool as_published = is_mlp(*a.laboratory) && !is_mlp(*b.laboratory);
                result.findings.push_back(comparison(
                    b.name + ": permuted initial averages stay below those of " + a.architecture,
                    as_published ? "not stated in the abstract; the hypothesis holds for fully connected "
                                   "nets, not for convolutional ones"
                                 : "",
                    differences_of(initial_averages(a), initial_averages(b)),
                    both(initial_averages(a), initial_averages(b)) + "%"));
                result.findings.push_back(comparison(
                    b.name +
                        ": the midpoint of matched, trained models costs more accuracy than "
                        "with " +
                        a.architecture,
                    as_published ? "solutions lie in one valley with fully connected nets, not with "
                                   "convolutional ones"
                                 : "",
                    differences_of(costs(b), costs(a)), both(costs(b), costs(a))));
            }
        }
    }

    static void compare_rates(const std::vector<Way>& ways, Result& result) {
        for (std::size_t i = 0; i + 1 < ways.size(); ++i) {
            const auto &slow = ways[i], &fast = ways[i + 1];
            if (slow.architecture != fast.architecture || slow.architecture == ways.front().architecture)
                continue;
            result.findings.push_back(comparison(
                fast.architecture + ": the midpoint of matched, trained models costs more at learning rate " +
                    fixed(fast.lr, 3) + " than at " + fixed(slow.lr, 3),
                is_mlp(*fast.laboratory)
                    ? ""
                    : "convolutional nets: especially at large learning rates SGD finds diverse modes",
                differences_of(costs(fast), costs(slow)), both(costs(fast), costs(slow))));
        }
    }

    static std::vector<std::string> names_of(const std::vector<std::int64_t>& steps) {
        std::vector<std::string> names;
        for (const auto step : steps) names.push_back(std::to_string(step));
        return names;
    }

    static report::Section initial_section(const std::vector<Way>& ways, const Value& options,
                                           const std::vector<std::int64_t>& steps) {
        const std::size_t pairs = ways.front().pairs.size();
        auto least = static_cast<std::int64_t>(pairs);
        for (const auto& way : ways) least = std::min(least, known_mean(column(way.ends, 0)).count);
        report::Figure figure{.name = "initial-averages",
                              .title = "Averages of initial models",
                              .caption =
                                  "Test accuracy of the average of two untrained models, one permuted as "
                                  "the two were matched after so many steps of training (" +
                                  options["methods"].items()[0].as_text() +
                                  "). Mean over pairs; band: 95% interval over " +
                                  counts_text(least, pairs, "pairs") + ".",
                              .x = {.label = "steps of training before the permutation is found"},
                              .y = {.label = "test accuracy of the average (%)"},
                              .categories = names_of(steps)};
        for (const auto& way : ways) {
            report::Series series{.name = way.name};
            for (std::size_t t = 0; t < steps.size(); ++t) {
                const auto estimate = known_mean(of_pairs(way.average[0], t, 0));
                add_point(series, static_cast<double>(t), estimate);
            }
            figure.series.push_back(std::move(series));
        }
        figure.series.push_back({.name = "chance",
                                 .x = {0, static_cast<double>(steps.size() - 1)},
                                 .y = {chance(ways.front()), chance(ways.front())},
                                 .style = report::Series::Style::dashed});
        return {.title = "At initialisation", .figures = {figure}, .tables = {table(ways, options)}};
    }

    static report::TextTable table(const std::vector<Way>& ways, const Value& options) {
        report::TextTable table{
            .name = "averages",
            .title = "Averages of initial and of trained models",
            .caption =
                "Test accuracy (%), mean over pairs with 95% interval. The permutation is found between "
                "the trained models.",
            .columns = {"models", "pairs", "trained", "trained, as they are"},
            .rows = {}};
        for (const auto& method : options["methods"].items())
            table.columns.push_back("trained, " + method.as_text());
        table.columns.emplace_back("initial, as they are");
        table.columns.emplace_back("initial, random permutation");
        for (const auto& method : options["methods"].items())
            table.columns.push_back("initial, " + method.as_text());
        const auto last = ways.front().ends[0].size() - 1;
        const auto text = [](const std::vector<double>& numbers) {
            return estimate_text(known_mean(numbers), 1);
        };
        for (const auto& way : ways) {
            const auto trained = known_mean(column(way.ends, last));
            table.rows.push_back({way.name, std::to_string(trained.count), estimate_text(trained, 1),
                                  text(column(way.kept, last))});
            auto& row = table.rows.back();
            for (const auto& grids : way.average) row.push_back(text(of_pairs(grids, last, last)));
            row.push_back(text(column(way.kept, 0)));
            row.push_back(text(column(way.shuffled, 0)));
            for (const auto& grids : way.average) row.push_back(text(of_pairs(grids, last, 0)));
        }
        return table;
    }

    static report::Section grid_section(const std::vector<Way>& ways, const Value& options,
                                        const std::vector<std::int64_t>& steps) {
        report::Section section{.title = "Found at one step, applied at another"};
        const auto& methods = options["methods"].items();
        for (const auto& way : ways) {
            for (std::size_t m = 0; m < methods.size(); ++m) {
                report::Grid grid{.row_names = names_of(steps),
                                  .column_names = names_of(steps),
                                  .values = {},
                                  .label = "test accuracy of the average (%)"};
                for (std::size_t t = 0; t < steps.size(); ++t) {
                    grid.values.emplace_back();
                    for (std::size_t s = 0; s < steps.size(); ++s)
                        grid.values.back().push_back(known_mean(of_pairs(way.average[m], t, s)).value);
                }
                section.figures.push_back(
                    {.name = way.pairs.front().substr(0, way.pairs.front().rfind("-p")) + "-" +
                             std::to_string(m + 1),
                     .title = way.name + ": " + methods[m].as_text(),
                     .caption =
                         "Test accuracy of the average of two models after s steps, one permuted as the "
                         "two were matched after t steps. Mean over " +
                         std::to_string(known_mean(column(way.ends, 0)).count) + " pairs.",
                     .x = {.label = "s: steps of the models averaged"},
                     .y = {.label = "t: steps of the models matched"},
                     .grid = std::move(grid)});
            }
        }
        return section;
    }
};

const StudyRegistration initialisation_registration{
    {.kind = "study",
     .name = "initialisation",
     .help = "are two initial models above chance when averaged as their trained selves are matched?",
     .citation = paper,
     .options =
         {architectures_option("what is trained; others are compared with the first"),
          core::numbers("learning_rates", "of the clients' algorithm, rising").above(0).at_least_items(1),
          core::integer("pairs", "of each architecture and learning rate; no model is in two").at_least(2),
          core::integers("steps",
                         "of training, at which models are matched and averaged, beside 0 and "
                         "the last"),
          core::texts("methods",
                      "matching methods, `activation_matching(kernel=cosine)`; findings are "
                      "about the first")
              .at_least_items(1)}},
    [](const Value&) { return std::make_unique<Initialisation>(); }};

}  // namespace

}  // namespace thalweg::study::initialisation
