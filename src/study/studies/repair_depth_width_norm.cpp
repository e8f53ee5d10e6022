#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <map>

#include "checks.hpp"
#include "common.hpp"
#include "estimates.hpp"
#include "folding.hpp"
#include "thalweg/analysis/measures.hpp"
#include "thalweg/analysis/paths.hpp"
#include "thalweg/embedded/studies.hpp"

namespace thalweg::study::repair_depth_width_norm {

namespace {

using core::Value;

constexpr const char* paper = "Jordan et al., ICLR 2023 (arXiv 2211.08403)";
constexpr const char* naive = "none";
constexpr double half =
    50;  ///< percent of the ends' accuracy above chance: a midpoint below it has collapsed

/// By pair; NaN where a training failed.
struct Outcomes {
    std::vector<double> midpoint;  ///< test accuracy
    std::vector<double> loss_barrier, error_barrier;
};

/// One architecture with one way to deal with its norm, and what its pairs came to.
struct Cell {
    std::int64_t depth = 0, width = 0;
    std::string norm;                        ///< none, folded, reset, layer
    std::shared_ptr<const Laboratory> lab;   ///< that models are trained in
    std::shared_ptr<const Laboratory> flat;  ///< that they are measured in
    std::vector<std::string> models;         ///< labels; pair i is of 2i and 2i + 1
    std::vector<double> accuracy;            ///< of the models
    std::vector<double> ends;                ///< mean accuracy of a pair's two
    std::map<std::string, Outcomes> by_method;

    std::string training() const { return norm == "folded" || norm == "reset" ? "batch" : norm; }
    std::string finish() const { return norm == "reset" ? "reset_batch_norm" : "repair"; }
    std::string remedy() const { return norm == "reset" ? "reset" : "REPAIR"; }
    std::string shape() const { return std::to_string(depth) + "x" + std::to_string(width); }
    const Outcomes& of(const std::string& matching, bool mended) const {
        return by_method.at(matching + (mended ? "+" : ""));
    }
    /// Accuracy that merging costs, by pair.
    std::vector<double> deficit(const std::string& matching, bool mended) const {
        return differences_of(ends, of(matching, mended).midpoint);
    }
    /// How much of the ends' accuracy above chance the midpoint keeps, by pair; NaN where the ends have none.
    std::vector<double> kept(const std::string& matching, bool mended) const {
        const double chance = 1 / static_cast<double>(lab->graph().classes());
        std::vector<double> all;
        for (std::size_t i = 0; i < ends.size(); ++i)
            all.push_back(ends[i] > chance ? (of(matching, mended).midpoint[i] - chance) / (ends[i] - chance)
                                           : std::numeric_limits<double>::quiet_NaN());
        return all;
    }
};

/// Where on an axis of the study a cell stands.
struct Axis {
    std::string name, label;
    std::vector<const Cell*> cells;
};

class RepairDepthWidthNorm final : public Study {
  public:
    std::string_view configuration() const override {
        return embedded::studies::repair_depth_width_norm_yaml;
    }

    Result conduct(const Value& options, Workbench& bench) const override {
        for (const auto& matching : options["matchings"].items()) require_matching(matching, options);
        require_different(options["matchings"]);
        if (options["points"].as_int() % 2 == 0)
            options["points"].reject(
                "an even number of points has none at the middle of the line; take an odd one");
        std::vector<Cell> cells = cells_of(options);
        train(cells, options, bench);
        for (auto& cell : cells) measure(cell, options, bench);
        const Axis depth = axis(cells, options, "depths", "depth", "hidden layers");
        const Axis width = axis(cells, options, "widths", "width", "units in each layer");
        const Axis norm = axis(cells, options, "norms", "norm", "norm");
        const std::string matching = options["matchings"].items().front().as_text();

        Result result;
        add_depth_findings(depth, matching, result);
        add_width_finding(width, matching, result);
        for (const Cell* cell : norm.cells) add_norm_finding(*cell, matching, result);
        const Cell& deepest = *ends_of(depth).second;
        result.summary = "Accuracy at the midpoint of two nets of " + deepest.shape() + " (ends " +
                         percent(deepest.ends) + "): naive " + percent(deepest.of(naive, false).midpoint) +
                         ", matched " + percent(deepest.of(matching, false).midpoint) +
                         ", matched and REPAIRed " + percent(deepest.of(matching, true).midpoint) + "%.";
        result.sections = {section(depth, options),
                           section(width, options),
                           norm_section(norm, options),
                           {.title = "All cells", .tables = {table(cells, options)}}};
        return result;
    }

  private:
    static Cell cell_at(const Value& options, const std::string& axis, const Value& value) {
        if (axis == "depths") return {value.as_int(), options["depth_width"].as_int(), "folded"};
        if (axis == "widths") return {options["width_depth"].as_int(), value.as_int(), "folded"};
        return {options["norm_depth"].as_int(), options["norm_width"].as_int(), value.as_text()};
    }

    static Cell* find(std::vector<Cell>& cells, const Cell& like) {
        const auto found = std::find_if(cells.begin(), cells.end(), [&](const Cell& cell) {
            return cell.depth == like.depth && cell.width == like.width && cell.norm == like.norm;
        });
        return found == cells.end() ? nullptr : &*found;
    }

    static std::vector<Cell> cells_of(const Value& options) {
        std::vector<Cell> cells;
        for (const char* axis : {"depths", "widths", "norms"}) {
            for (const auto& value : options[axis].items()) {
                Cell cell = cell_at(options, axis, value);
                static const std::array<const char*, 4> known{"none", "folded", "reset", "layer"};
                if (std::find(known.begin(), known.end(), cell.norm) == known.end())
                    value.reject("'" + cell.norm + "' is none of none, folded, reset, layer");
                if (find(cells, cell) == nullptr) cells.push_back(std::move(cell));
            }
        }
        return cells;
    }

    static Axis axis(std::vector<Cell>& cells, const Value& options, const std::string& key,
                     const std::string& name, const std::string& label) {
        Axis axis{name, label, {}};
        for (const auto& value : options[key].items())
            axis.cells.push_back(find(cells, cell_at(options, key, value)));
        return axis;
    }

    static std::shared_ptr<const Laboratory> open(const Cell& cell, const std::string& norm,
                                                  const Value& options, Workbench& bench) {
        const std::vector<std::int64_t> hidden(static_cast<std::size_t>(cell.depth), cell.width);
        return bench.laboratory(
            options["experiment"],
            {assignment("model.hidden", Value::of(hidden)), assignment("model.norm", Value::of(norm))},
            options["samples"]);
    }

    static void train(std::vector<Cell>& cells, const Value& options, Workbench& bench) {
        std::vector<Training> trainings;
        std::map<std::string, std::size_t> index;
        const auto seed = static_cast<std::uint64_t>(options["seed"].as_int());
        for (auto& cell : cells) {
            cell.lab = open(cell, cell.training(), options, bench);
            cell.flat = cell.norm == "folded" ? open(cell, "none", options, bench) : cell.lab;
            for (std::int64_t i = 0; i < 2 * options["pairs"].as_int(); ++i) {
                const auto own = seed * 1000 + static_cast<std::uint64_t>(i);
                cell.models.push_back(cell.shape() + "-" + cell.training() + "-m" + std::to_string(i));
                if (!index.emplace(cell.models.back(), trainings.size()).second) continue;
                trainings.push_back({.label = cell.models.back(),
                                     .laboratory = cell.lab,
                                     .seed = own,
                                     .initialisation = own});
            }
        }
        const auto accuracy = numbers_in(bench.train(trainings), "accuracy");
        for (auto& cell : cells) {
            for (const auto& model : cell.models) cell.accuracy.push_back(accuracy[index.at(model)]);
        }
    }

    static std::vector<std::string> matchings(const Value& options) {
        std::vector<std::string> all{naive};
        for (const auto& matching : options["matchings"].items()) all.push_back(matching.as_text());
        return all;
    }

    /// A job is a pair, merged in every way.
    static void measure(Cell& cell, const Value& options, Workbench& bench) {
        std::vector<std::string> labels;
        for (std::int64_t i = 0; i < options["pairs"].as_int(); ++i)
            labels.push_back("pair-" + std::to_string(i));
        const auto seed = static_cast<std::uint64_t>(options["seed"].as_int());
        const auto results = bench.run("pairs-" + cell.shape() + "-" + cell.norm, labels, [&](std::size_t i) {
            return measured_pair(cell, i, seed, options, bench);
        });
        for (const auto& result : results) {
            cell.ends.push_back(number_in(result, "ends"));
            for (const auto& matching : matchings(options)) {
                for (const char* mended : {"", "+"}) {
                    auto& outcomes = cell.by_method[matching + mended];
                    const Json& row = result["methods"][matching + mended];
                    outcomes.midpoint.push_back(number_in(row, "midpoint"));
                    outcomes.loss_barrier.push_back(number_in(row, "loss_barrier"));
                    outcomes.error_barrier.push_back(number_in(row, "error_barrier"));
                }
            }
        }
    }

    static Json measured_pair(const Cell& cell, std::size_t pair, std::uint64_t seed, const Value& options,
                              Workbench& bench) {
        constexpr double none = std::numeric_limits<double>::quiet_NaN();
        const bool trained = !std::isnan(cell.accuracy[2 * pair]) && !std::isnan(cell.accuracy[2 * pair + 1]);
        Json result = {{"ends", 0.5 * (cell.accuracy[2 * pair] + cell.accuracy[2 * pair + 1])},
                       {"methods", Json::object()}};
        const auto a = trained ? ready(cell, cell.models[2 * pair], bench) : model::Parameters();
        const auto b = trained ? ready(cell, cell.models[2 * pair + 1], bench) : model::Parameters();
        for (const auto& matching : matchings(options)) {
            const auto moved = trained ? cell.flat->align(a, b, matching, seed) : model::Parameters();
            for (const bool mended : {false, true}) {
                Json& row = result["methods"][matching + (mended ? "+" : "")];
                row = {{"midpoint", none}, {"loss_barrier", none}, {"error_barrier", none}};
                if (!trained) continue;
                const auto curve = analysis::linear_curve(
                    cell.flat->graph(), a, moved, {{"test", cell.flat->test.get()}},
                    {.points = options["points"].as_int(), .finish = mended ? cell.finish() : "none"},
                    cell.flat->calibration, bench.alone());
                const auto& test = curve.splits.front().second;
                row = {{"midpoint", test.accuracy[test.accuracy.size() / 2]},
                       {"loss_barrier", test.loss_barrier},
                       {"error_barrier", test.error_barrier}};
            }
        }
        return result;
    }

    static model::Parameters ready(const Cell& cell, const std::string& label, const Workbench& bench) {
        const auto model = bench.model(label);
        return cell.norm == "folded" ? folded_mlp(cell.lab->graph(), model, cell.flat->graph()) : model;
    }

    static std::string percent(const std::vector<double>& fractions) {
        return fixed(known_mean(fractions, 100).value, 1);
    }

    static void add_depth_findings(const Axis& depth, const std::string& matching, Result& result) {
        const auto [first, last] = ends_of(depth);
        const Cell &shallow = *first, &deep = *last;
        const auto kept = [&](const Cell& cell, bool mended) {
            return known_mean(cell.kept(matching, mended), 100);
        };
        const auto above = kept(shallow, false), below = kept(deep, false), mended = kept(deep, true);
        const auto lost =
            known_mean(differences_of(deep.deficit(matching, false), shallow.deficit(matching, false)), 100);
        result.findings.push_back(
            {.claim = "Matching alone collapses with depth: the midpoint loses more than half of the ends' "
                      "accuracy above "
                      "chance in nets of " +
                      deep.shape() + ", and not in those of " + shallow.shape(),
             .source = paper,
             .published = "width 128, MNIST: loses 1.3 points with 2 hidden layers, 4.7 with 5, 17.1 with "
                          "10, 47.5 with "
                          "20; Fashion-MNIST with 10: 61.0",
             .ours = "keeps " + estimate_text(below, 1) + "% with " + deep.shape() + ", " +
                     estimate_text(above, 1) + "% with " + shallow.shape() + "; loses " +
                     percent(deep.deficit(matching, false)) + " and " +
                     percent(shallow.deficit(matching, false)) + " points, difference " +
                     estimate_text(lost, 1),
             .seen = collapse(above, below),
             .numbers = {{"kept in the deepest", json_of(below)},
                         {"kept in the shallowest", json_of(above)},
                         {"lost more", json_of(lost)}}});
        const auto gained = known_mean(
            differences_of(deep.of(matching, true).midpoint, deep.of(matching, false).midpoint), 100);
        result.findings.push_back(
            {.claim = "REPAIR after matching survives depth: the midpoint of nets of " + deep.shape() +
                      " keeps more than half of the ends' accuracy above chance",
             .source = paper,
             .published =
                 "width 128, MNIST: +14.1 points with 10 hidden layers, +44.0 with 20; Fashion-MNIST with "
                 "10: 26.7% → 70.1%",
             .ours = "keeps " + estimate_text(mended, 1) + "%; " +
                     percent(deep.of(matching, false).midpoint) + "% → " +
                     percent(deep.of(matching, true).midpoint) + "%, " + estimate_text(gained, 1) + " points",
             .seen = seen_above(mended, half),
             .numbers = {{"kept in the deepest", json_of(mended)}, {"gained", json_of(gained)}}});
        const auto reduction = known_mean(reductions(deep, matching), 100);
        result.findings.push_back(
            {.claim = "REPAIR takes more than 60% of the error barrier of matched nets of " + deep.shape(),
             .source = paper,
             .published = "60% to 100% relative barrier reduction over architectures and tasks",
             .ours = estimate_text(reduction, 1) + "%",
             .seen = seen_above(reduction, 60),
             .numbers = json_of(reduction)});
    }

    /// The axis's least and its largest cell, in whatever order they are listed.
    static std::pair<const Cell*, const Cell*> ends_of(const Axis& axis) {
        const auto [least, largest] =
            std::minmax_element(axis.cells.begin(), axis.cells.end(), [](const Cell* a, const Cell* b) {
                return std::pair(a->depth, a->width) < std::pair(b->depth, b->width);
            });
        return {*least, *largest};
    }

    /// More than half is lost in the deepest, and not in the shallowest.
    static Finding::Seen collapse(const Estimate& shallow, const Estimate& deep) {
        if (deep.high < half && shallow.low > half) return Finding::Seen::yes;
        if (deep.low > half || shallow.high < half) return Finding::Seen::no;
        return Finding::Seen::unsettled;
    }

    /// Relative reduction of the error barrier by REPAIR, by pair.
    static std::vector<double> reductions(const Cell& cell, const std::string& matching) {
        std::vector<double> all;
        const auto &before = cell.of(matching, false).error_barrier,
                   &after = cell.of(matching, true).error_barrier;
        for (std::size_t i = 0; i < before.size(); ++i)
            all.push_back(analysis::relative_reduction(before[i], after[i]));
        return all;
    }

    static void add_width_finding(const Axis& width, const std::string& matching, Result& result) {
        const auto [first, last] = ends_of(width);
        const Cell &narrow = *first, &wide = *last;
        const auto gain =
            known_mean(differences_of(narrow.deficit(matching, true), wide.deficit(matching, true)), 100);
        result.findings.push_back(
            {.claim = "Width helps REPAIRed merging: nets of " + wide.shape() + " lose less than nets of " +
                      narrow.shape(),
             .source = paper,
             .published =
                 "Fashion-MNIST, 10 hidden layers: loses 17.6 points at width 128, 16.0 at 512, 6.9 at 2048",
             .ours = "loses " + percent(narrow.deficit(matching, true)) + " and " +
                     percent(wide.deficit(matching, true)) + " points; difference " + estimate_text(gain, 1),
             .seen = seen_above(gain),
             .numbers = json_of(gain)});
    }

    static void add_norm_finding(const Cell& cell, const std::string& matching, Result& result) {
        static const std::map<std::string, std::pair<std::string, std::string>> words{
            {"none", {"without norm", "VGG11, CIFAR-10: 67.3% → 84.9%"}},
            {"folded", {"whose batch norm was folded", "MLPs, see depth"}},
            {"reset", {"with batch norm (its statistics taken anew)", "ResNet20, CIFAR-10: 12.7% → 67.6%"}},
            {"layer", {"with layer norm", "ResNet20, CIFAR-10: 50.7% → 73.5%"}}};
        const auto& [name, published] = words.at(cell.norm);
        const auto gained = known_mean(
            differences_of(cell.of(matching, true).midpoint, cell.of(matching, false).midpoint), 100);
        result.findings.push_back({.claim = "Nets of " + cell.shape() + " " + name + ": " + cell.remedy() +
                                            " raises the matched midpoint",
                                   .source = paper,
                                   .published = published,
                                   .ours = percent(cell.of(matching, false).midpoint) + "% → " +
                                           percent(cell.of(matching, true).midpoint) + "%, " +
                                           estimate_text(gained, 1) + " points",
                                   .seen = seen_above(gained),
                                   .numbers = json_of(gained)});
    }

    static std::string method_name(const std::string& matching, bool mended) {
        std::string name = matching == naive ? "naive" : matching;
        std::replace(name.begin(), name.end(), '_', ' ');
        if (mended) name += " + REPAIR";
        return name;
    }

    static std::string pairs_text(const Value& options) {
        return std::to_string(options["pairs"].as_int()) + " pairs of models";
    }

    /// What `pick` says of each cell of the axis, one line a method.
    template <typename Pick>
    static std::vector<report::Series> lines(const Axis& axis, const Value& options, const Pick& pick) {
        std::vector<report::Series> all;
        for (const auto& matching : matchings(options)) {
            for (const bool mended : {false, true}) {
                report::Series series{.name = method_name(matching, mended)};
                if (!mended) series.style = report::Series::Style::dashed;
                for (const Cell* cell : axis.cells) {
                    const auto at = static_cast<double>(axis.name == "depth" ? cell->depth : cell->width);
                    add_point(series, at, known_mean(pick(*cell, matching, mended), 100));
                }
                all.push_back(std::move(series));
            }
        }
        return all;
    }

    static report::Section section(const Axis& axis, const Value& options) {
        report::Figure midpoint{.name = "midpoint-by-" + axis.name,
                                .title = "Midpoint accuracy by " + axis.name,
                                .caption =
                                    "Test accuracy of the average of two independently trained nets, folded "
                                    "batch norm. Band: 95% "
                                    "interval over " +
                                    pairs_text(options) + ".",
                                .x = {.label = axis.label, .logarithmic = axis.name == "width"},
                                .y = {.label = "test accuracy (%)"}};
        midpoint.series = lines(axis, options, [](const Cell& cell, const auto& matching, bool mended) {
            return cell.of(matching, mended).midpoint;
        });
        report::Series ends{.name = "the nets themselves"};
        for (const Cell* cell : axis.cells)
            add_point(ends, static_cast<double>(axis.name == "depth" ? cell->depth : cell->width),
                      known_mean(cell->ends, 100));
        midpoint.series.push_back(std::move(ends));  // last: a method has one colour in both figures
        report::Figure barrier{
            .name = "barrier-by-" + axis.name,
            .title = "Error barrier by " + axis.name,
            .caption =
                "Largest excess of the test error on the line between two nets over the line between their "
                "errors. Band: 95% interval over " +
                pairs_text(options) + ".",
            .x = midpoint.x,
            .y = {.label = "error barrier (points)"}};
        barrier.series = lines(axis, options, [](const Cell& cell, const auto& matching, bool mended) {
            return cell.of(matching, mended).error_barrier;
        });
        report::Section made{.title = "By " + axis.name, .figures = {midpoint, barrier}};
        made.tables.push_back(axis.name == "depth" ? published_depths() : published_widths());
        return made;
    }

    static report::Section norm_section(const Axis& axis, const Value& options) {
        report::Figure figure{
            .name = "midpoint-by-norm",
            .title = "Midpoint accuracy by norm",
            .caption =
                "Test accuracy of the average of two nets of " + axis.cells.front()->shape() +
                ". `reset`: batch norm is kept, and its statistics are taken anew where the others are "
                "REPAIRed. Bars: 95% interval over " +
                pairs_text(options) + ".",
            .x = {.label = "norm"},
            .y = {.label = "test accuracy (%)"}};
        for (const Cell* cell : axis.cells) figure.categories.push_back(cell->norm);
        for (const auto& matching : matchings(options)) {
            for (const bool mended : {false, true}) {
                report::Series series{.name = method_name(matching, mended),
                                      .style = report::Series::Style::bars};
                for (std::size_t i = 0; i < axis.cells.size(); ++i)
                    add_point(series, static_cast<double>(i),
                              known_mean(axis.cells[i]->of(matching, mended).midpoint, 100));
                figure.series.push_back(std::move(series));
            }
        }
        return {.title = "By norm", .figures = {figure}};
    }

    static report::TextTable published_depths() {
        return {.name = "published-by-depth",
                .title = "Published, MNIST",
                .caption =
                    "Midpoint accuracy (%) of nets of width 128, activation matching, batch norm folded, 50 "
                    "epochs; from the source's figure.",
                .columns = {"hidden layers", "ends", "naive", "matched", "+ REPAIR", "closed form"},
                .rows = {{"2", "98.1", "39.6", "96.8", "97.5", "97.4"},
                         {"5", "98.2", "10.6", "93.5", "95.9", "95.2"},
                         {"10", "98.3", "9.7", "81.2", "95.3", "94.7"},
                         {"20", "98.1", "8.9", "50.6", "94.6", "94.8"}}};
    }

    static report::TextTable published_widths() {
        return {
            .name = "published-by-width",
            .title = "Published, Fashion-MNIST",
            .caption =
                "Midpoint accuracy (%) of nets of 10 hidden layers, activation matching, batch norm folded.",
            .columns = {"width", "ends", "naive", "matched", "+ REPAIR"},
            .rows = {{"128", "87.7", "10", "26.7", "70.1"},
                     {"512", "89.5", "10", "14.9", "73.5"},
                     {"2048", "89.9", "10", "72.6", "83.0"}}};
    }

    static report::TextTable table(const std::vector<Cell>& cells, const Value& options) {
        report::TextTable table{.name = "cells",
                                .title = "All cells",
                                .caption =
                                    "Mean over pairs with 95% interval, test samples; REPAIR is a reset of "
                                    "the statistics where the "
                                    "norm is `reset`. Reduction: of the error barrier by REPAIR.",
                                .columns = {"layers", "width", "norm", "method", "ends (%)", "midpoint (%)",
                                            "error barrier (points)", "loss barrier", "reduction (%)"},
                                .rows = {}};
        for (const auto& cell : cells) {
            for (const auto& matching : matchings(options)) {
                for (const bool mended : {false, true}) {
                    const auto& outcomes = cell.of(matching, mended);
                    table.rows.push_back(
                        {std::to_string(cell.depth), std::to_string(cell.width), cell.norm,
                         method_name(matching, mended), percent(cell.ends),
                         estimate_text(known_mean(outcomes.midpoint, 100), 1),
                         estimate_text(known_mean(outcomes.error_barrier, 100), 1),
                         estimate_text(known_mean(outcomes.loss_barrier), 3),
                         mended ? estimate_text(known_mean(reductions(cell, matching), 100), 1) : ""});
                }
            }
        }
        return table;
    }
};

const StudyRegistration repair_depth_width_norm_registration{
    {.kind = "study",
     .name = "repair-depth-width-norm",
     .help =
         "midpoints and barriers of pairs of MLPs, naive, matched and REPAIRed, over depth, width and norm",
     .citation = paper,
     .options = {core::texts("matchings",
                             "matching methods as `thalweg align --method` has them; findings are of the "
                             "first")
                     .at_least_items(1),
                 core::integer("pairs", "of models in each cell").at_least(2),
                 core::integer("points", "on each line, odd").at_least(3),
                 core::integers("depths", "hidden layers of depth_width units, batch norm folded")
                     .at_least(1)
                     .at_least_items(1),
                 core::integer("depth_width", "see depths").at_least(1),
                 core::integers("widths", "units in each of width_depth layers, batch norm folded")
                     .at_least(1)
                     .at_least_items(1),
                 core::integer("width_depth", "see widths").at_least(1),
                 core::texts("norms",
                             "none; folded: batch norm, folded after training; reset: batch norm, statistics "
                             "taken anew; layer; in norm_depth layers of norm_width units")
                     .at_least_items(1),
                 core::integer("norm_depth", "see norms").at_least(1),
                 core::integer("norm_width", "see norms").at_least(1)}},
    [](const Value&) { return std::make_unique<RepairDepthWidthNorm>(); }};

}  // namespace

}  // namespace thalweg::study::repair_depth_width_norm
