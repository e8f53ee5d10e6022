#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>

#include "checks.hpp"
#include "common.hpp"
#include "estimates.hpp"
#include "rows.hpp"
#include "thalweg/analysis/measures.hpp"
#include "thalweg/analysis/support.hpp"
#include "thalweg/embedded/studies.hpp"
#include "units.hpp"

namespace thalweg::study::transport_width {

namespace {

using core::Value;

constexpr const char* paper = "Ferbach et al., AISTATS 2024 (arXiv 2310.19103)";

/// Pairs of MLPs of one depth and width, trained one way. Pair i has the same seeds everywhere. NaN where a training diverged.
struct Cell {
    std::int64_t depth = 0, width = 0;
    std::string training;
    std::shared_ptr<const Laboratory> laboratory;
    std::vector<std::string> pairs{};
    std::vector<double> accuracy{};              ///< [pair]: mean of the two, in percent
    std::vector<std::vector<double>> barrier{};  ///< [pair][method]: points of test error
    std::vector<std::vector<double>> loss{};     ///< the same of the loss, in nats
    /// [pair][hidden layer]: effective dimensions, means of the two models
    std::vector<std::vector<double>> weights{}, outputs{}, inputs{};
    /// Of a pair: that of the layer's outputs WΣWᵀ in the hidden layer where it is largest.
    std::vector<double> dimension() const {
        std::vector<double> numbers;
        for (const auto& layers : outputs) {
            const auto known = known_of(layers);
            numbers.push_back(known.empty() ? std::numeric_limits<double>::quiet_NaN()
                                            : *std::max_element(known.begin(), known.end()));
        }
        return numbers;
    }
};

std::string net_name(std::int64_t depth) {
    return depth == 1 ? "two-layer net" : std::to_string(depth) + " hidden layers";
}

class TransportWidth final : public Study {
  public:
    std::string_view configuration() const override { return embedded::studies::transport_width_yaml; }

    Result conduct(const Value& options, Workbench& bench) const override {
        for (const auto& method : options["methods"].items()) require_matching(method, options);
        require_different(options["methods"]);
        require_rising(options["widths"]);
        for (const auto& training : options["trainings"].items()) require_name(training["name"]);
        auto cells = train(options, bench);
        for (auto& cell : cells) measure(cell, options, bench);
        Result result;
        for (const auto& depth : options["depths"].items()) {
            const auto own = of_depth(cells, depth.as_int());
            for (std::size_t method = 0; method < methods(options).size(); ++method)
                result.findings.push_back(falls(own, method, options));
            compare_methods(own, options, result);
            result.findings.push_back(activations_are_fewer(own));
            if (options["trainings"].items().size() > 1) result.findings.push_back(dimension_decides(own));
        }
        result.summary = "Barriers between matched MLPs over their width, " +
                         net_name(options["depths"].items()[0].as_int()) + ", " + methods(options)[0] + ": " +
                         result.findings[0].ours + ".";
        result.sections = {barrier_section(cells, options), dimension_section(cells, options)};
        return result;
    }

  private:
    static std::vector<std::string> methods(const Value& options) {
        std::vector<std::string> names;
        for (const auto& method : options["methods"].items()) names.push_back(method.as_text());
        return names;
    }

    static std::vector<const Cell*> of_depth(const std::vector<Cell>& cells, std::int64_t depth) {
        std::vector<const Cell*> own;
        for (const auto& cell : cells) {
            if (cell.depth == depth) own.push_back(&cell);
        }
        return own;
    }

    static std::vector<Cell> train(const Value& options, Workbench& bench) {
        std::vector<Cell> cells;
        std::vector<Training> trainings;
        const auto seed = static_cast<std::uint64_t>(options["seed"].as_int());
        for (const auto& depth : options["depths"].items()) {
            for (const auto& training : options["trainings"].items()) {
                for (const auto& width : options["widths"].items()) {
                    const std::vector<std::int64_t> hidden(static_cast<std::size_t>(depth.as_int()),
                                                           width.as_int());
                    std::vector<Value> changes{assignment("model.hidden", Value::of(hidden))};
                    const auto& set = training["set"].items();
                    changes.insert(changes.end(), set.begin(), set.end());
                    Cell cell{
                        .depth = depth.as_int(),
                        .width = width.as_int(),
                        .training = training["name"].as_text(),
                        .laboratory = bench.laboratory(options["experiment"], changes, options["samples"])};
                    const auto stem =
                        "d" + depth.as_text() + "-w" + width.as_text() + "-" + label_of(training["name"]);
                    for (std::int64_t i = 0; i < options["pairs"].as_int(); ++i) {
                        cell.pairs.push_back(stem + "-p" + std::to_string(i));
                        for (const std::uint64_t member : {0, 1}) {
                            const auto own = seed * 1000 + 2 * static_cast<std::uint64_t>(i) + member;
                            trainings.push_back({.label = cell.pairs.back() + (member == 0 ? "a" : "b"),
                                                 .laboratory = cell.laboratory,
                                                 .seed = own,
                                                 .initialisation = own});
                        }
                    }
                    cells.push_back(std::move(cell));
                }
            }
        }
        bench.train(trainings);
        return cells;
    }

    static void measure(Cell& cell, const Value& options, Workbench& bench) {
        const auto seed = static_cast<std::uint64_t>(options["seed"].as_int());
        const Laboratory& lab = *cell.laboratory;
        std::vector<std::string> all{"none"};
        for (const auto& method : methods(options)) all.push_back(method);
        const auto results = bench.run("barriers", cell.pairs, [&](std::size_t pair) {
            if (!bench.has_model(cell.pairs[pair] + "a") || !bench.has_model(cell.pairs[pair] + "b"))
                return Json{{"accuracy", nullptr}, {"barrier", nullptr}, {"loss", nullptr},
                            {"weights", nullptr},  {"outputs", nullptr}, {"inputs", nullptr}};
            const auto a = bench.model(cell.pairs[pair] + "a"), b = bench.model(cell.pairs[pair] + "b");
            Json row = {{"accuracy", 50 * (lab.test_score(a).accuracy + lab.test_score(b).accuracy)},
                        {"barrier", Json::array()},
                        {"loss", Json::array()}};
            for (const auto& method : all) {
                const auto curve = analysis::barrier(lab.graph(), a, lab.align(a, b, method, seed), *lab.test,
                                                     options["points"].as_int(), bench.alone());
                row["barrier"].push_back(100 * curve.error_barrier);
                row["loss"].push_back(curve.loss_barrier);
            }
            auto layers = analysis::support(lab.graph(), a, *lab.calibration, bench.alone());
            auto others = analysis::support(lab.graph(), b, *lab.calibration, bench.alone());
            // The classifier is not permuted.
            for (std::size_t layer = 0; layer + 1 < layers.size(); ++layer) {
                row["weights"].push_back(0.5 * (layers[layer].weights + others[layer].weights));
                row["outputs"].push_back(
                    0.5 * (layers[layer].outputs_covariance + others[layer].outputs_covariance));
                row["inputs"].push_back(0.5 *
                                        (layers[layer].inputs_covariance + others[layer].inputs_covariance));
            }
            return row;
        });
        cell.accuracy = numbers_in(results, "accuracy");
        const auto layers = static_cast<std::size_t>(cell.depth);
        for (const auto& row : results) {
            cell.barrier.push_back(row_in(row, "barrier", all.size()));
            cell.loss.push_back(row_in(row, "loss", all.size()));
            cell.weights.push_back(row_in(row, "weights", layers));
            cell.outputs.push_back(row_in(row, "outputs", layers));
            cell.inputs.push_back(row_in(row, "inputs", layers));
        }
    }

    /// `sign` −1: the claim is that the units are negative.
    static Finding finding(const std::string& claim, const std::string& published,
                           const std::vector<double>& units, double sign, const std::string& before,
                           const std::string& after, int digits = 2) {
        const auto estimate = known_mean(units);
        const double p = known_p(units);
        return {.claim = claim,
                .source = paper,
                .published = published,
                .ours = before + counted_text(estimate, units.size(), digits) + after + ", " +
                        p_text(p, estimate.count),
                .seen = seen_by(p, sign * estimate.value),
                .numbers = json_of(estimate, p)};
    }

    /// Slopes over log₂ width, of each pair, mean over ways of training.
    static Finding falls(const std::vector<const Cell*>& cells, std::size_t method, const Value& options) {
        std::vector<double> units(cells.front()->pairs.size(), 0.0);
        const auto& trainings = options["trainings"].items();
        for (const auto& training : trainings) {
            for (std::size_t pair = 0; pair < units.size(); ++pair) {
                std::vector<double> x, y;
                for (const auto* cell : cells) {
                    if (cell->training != training["name"].as_text()) continue;
                    x.push_back(std::log2(static_cast<double>(cell->width)));
                    y.push_back(cell->barrier[pair][method + 1]);
                }
                units[pair] += slope(x, y) / static_cast<double>(trainings.size());
            }
        }
        return finding(net_name(cells.front()->depth) + ", " + methods(options)[method] +
                           ": the barrier falls with width",
                       "vanishes as width grows", units, -1, "", " points of error for each doubling");
    }

    /// The last method against the first, pair by pair, mean over widths and ways of training.
    static void compare_methods(const std::vector<const Cell*>& cells, const Value& options, Result& result) {
        const auto names = methods(options);
        if (names.size() < 2) return;
        std::vector<double> units(cells.front()->pairs.size(), 0.0);
        for (const auto* cell : cells) {
            for (std::size_t pair = 0; pair < units.size(); ++pair)
                units[pair] +=
                    (cell->barrier[pair].back() - cell->barrier[pair][1]) / static_cast<double>(cells.size());
        }
        auto compared =
            finding(net_name(cells.front()->depth) + ": " + names.back() + " leaves a lower barrier than " +
                        names.front() + ", mean over widths",
                    "weights count where activations are", units, -1, "difference ", " points of error");
        if (names.front().starts_with("weight_matching") && names.back().starts_with("covariance_matching"))
            compared.ours +=
                "; not of the covariance alone: covariance_matching looks at incoming weights in one pass, "
                "weight_matching at all of a unit's weights until nothing moves";
        result.findings.push_back(std::move(compared));
    }

    static Finding activations_are_fewer(const std::vector<const Cell*>& cells) {
        std::vector<double> units(cells.front()->pairs.size(), 0.0);
        std::vector<double> outputs(units.size(), 0.0), weights(units.size(), 0.0);
        for (const auto* cell : cells) {
            for (std::size_t pair = 0; pair < units.size(); ++pair) {
                const double layers = static_cast<double>(cell->outputs[pair].size() * cells.size());
                for (std::size_t layer = 0; layer < cell->outputs[pair].size(); ++layer) {
                    units[pair] +=
                        std::log2(cell->outputs[pair][layer] / cell->weights[pair][layer]) / layers;
                    outputs[pair] += cell->outputs[pair][layer] / layers;
                    weights[pair] += cell->weights[pair][layer] / layers;
                }
            }
        }
        return finding(
            net_name(cells.front()->depth) +
                ": the support is lower-dimensional where the data are (WΣWᵀ) than the weights alone "
                "(WᵀW) say",
            "covariance of activations has a low effective dimension", units, -1,
            fixed(known_mean(outputs).value, 1) + " beside " + fixed(known_mean(weights).value, 1) +
                " dimensions, ",
            " doublings");
    }

    /// Among ways of training at one width: the difference of the first method's barrier times that of the logarithm of the
    /// dimension, each pair's own, mean over widths (and over pairs of ways of training: twice their covariance). A product
    /// and no slope: where the dimension hardly differs, it decides little instead of much.
    static Finding dimension_decides(const std::vector<const Cell*>& cells) {
        const std::size_t pairs = cells.front()->pairs.size();
        std::vector<double> units(pairs, 0.0), apart(pairs, 0.0);
        double products = 0;
        for (const auto* a : cells) {
            for (const auto* b : cells) {
                if (a->width != b->width || a->training >= b->training) continue;
                const auto first = a->dimension(), second = b->dimension();
                for (std::size_t pair = 0; pair < pairs; ++pair) {
                    const double doublings = std::log2(first[pair] / second[pair]);
                    units[pair] += (a->barrier[pair][1] - b->barrier[pair][1]) * doublings;
                    apart[pair] += std::abs(doublings);
                }
                ++products;
            }
        }
        for (std::size_t pair = 0; pair < pairs; ++pair) {
            units[pair] /= products;
            apart[pair] /= products;
        }
        return finding(net_name(cells.front()->depth) +
                           ": at one width, models of a lower-dimensional support (by way of training) have "
                           "lower barriers",
                       "the dimension of the support governs the width that is needed", units, 1,
                       "dimensions differ by " + fixed(known_mean(apart).value, 2) +
                           " doublings, their difference times the barriers' is ",
                       " points of error × doublings");
    }

    /// How many pairs estimates are of.
    static std::string counted(const std::vector<Cell>& cells) {
        auto least = static_cast<std::int64_t>(cells.front().pairs.size());
        for (const auto& cell : cells) least = std::min(least, known_mean(cell.accuracy).count);
        return counts_text(least, cells.front().pairs.size(), "pairs");
    }

    static report::Series over_width(const std::vector<const Cell*>& cells, const std::string& training,
                                     const std::string& name,
                                     const std::function<std::vector<double>(const Cell&)>& of) {
        report::Series series{.name = name};
        for (const auto* cell : cells) {
            if (cell->training != training) continue;
            const auto estimate = known_mean(of(*cell));
            add_point(series, static_cast<double>(cell->width), estimate);
        }
        return series;
    }

    static report::Section barrier_section(const std::vector<Cell>& cells, const Value& options) {
        report::Section section{.title = "Barriers"};
        report::TextTable table{
            .name = "widths",
            .title = "Barriers by width",
            .caption =
                "Points of test error; the loss barrier in nats in brackets; mean over "
                "pairs, error with 95% interval.",
            .columns = {"hidden layers", "training", "width", "accuracy (%)", "as trained"},
            .rows = {}};
        for (const auto& method : methods(options)) table.columns.push_back(method);
        for (const auto& cell : cells) {
            table.rows.push_back({std::to_string(cell.depth), cell.training, std::to_string(cell.width),
                                  fixed(known_mean(cell.accuracy).value, 2)});
            for (std::size_t m = 0; m <= methods(options).size(); ++m)
                table.rows.back().push_back(
                    counted_text(known_mean(column(cell.barrier, m)), cell.pairs.size(), 1) + " (" +
                    fixed(known_mean(column(cell.loss, m)).value, 3) + ")");
        }
        for (const auto& training : options["trainings"].items()) {
            const auto name = training["name"].as_text();
            report::Figure figure{.name = "barrier-by-width-" + label_of(training["name"]),
                                  .title = "Barrier and width, " + name,
                                  .caption =
                                      "Largest excess of the test error over the line between the ends', "
                                      "between two models of independent initialisation. Mean over pairs; "
                                      "band: 95% interval over " +
                                      counted(cells) + ".",
                                  .x = {.label = "width of hidden layers (units)", .logarithmic = true},
                                  .y = {.label = "test error barrier (points)"}};
            for (const auto& depth : options["depths"].items()) {
                const auto own = of_depth(cells, depth.as_int());
                for (std::size_t m = 0; m <= methods(options).size(); ++m)
                    figure.series.push_back(over_width(
                        own, name,
                        net_name(depth.as_int()) + ", " + (m == 0 ? "as trained" : methods(options)[m - 1]),
                        [m](const Cell& cell) { return column(cell.barrier, m); }));
            }
            section.figures.push_back(std::move(figure));
        }
        section.tables.push_back(std::move(table));
        return section;
    }

    static report::Section dimension_section(const std::vector<Cell>& cells, const Value& options) {
        report::Figure figure{.name = "dimension-by-width",
                              .title = "Effective dimension of the support",
                              .caption =
                                  "(Σλ)² ÷ Σλ² of the covariance WΣWᵀ of a hidden layer's outputs, in the "
                                  "hidden layer where it is largest. Mean over pairs; band: 95% interval "
                                  "over " +
                                  counted(cells) + ".",
                              .x = {.label = "width of hidden layers (units)", .logarithmic = true},
                              .y = {.label = "effective dimension"}};
        report::Figure beside{.name = "barrier-and-dimension",
                              .title = "Barrier beside effective dimension",
                              .caption = "Each point is a width: the barrier after matching (" +
                                         methods(options)[0] +
                                         ") and the effective dimension, means over pairs.",
                              .x = {.label = "effective dimension of the support"},
                              .y = {.label = "test error barrier (points)"}};
        report::TextTable table{
            .name = "dimensions",
            .title = "Effective dimension by layer",
            .caption =
                "Mean over models: of WᵀW, of WΣWᵀ (the layer's outputs), and of the "
                "layer's inputs.",
            .columns = {"hidden layers", "training", "width", "layer", "weights", "outputs", "inputs"},
            .rows = {}};
        for (const auto& depth : options["depths"].items()) {
            const auto own = of_depth(cells, depth.as_int());
            for (const auto& training : options["trainings"].items()) {
                const auto name = training["name"].as_text();
                const auto label = net_name(depth.as_int()) + ", " + name;
                figure.series.push_back(
                    over_width(own, name, label, [](const Cell& cell) { return cell.dimension(); }));
                auto points =
                    over_width(own, name, label, [](const Cell& cell) { return column(cell.barrier, 1); });
                points.x = figure.series.back().y;
                points.style = report::Series::Style::points;
                beside.series.push_back(std::move(points));
            }
        }
        for (const auto& cell : cells) {
            for (std::size_t layer = 0; layer < cell.outputs.front().size(); ++layer)
                table.rows.push_back({std::to_string(cell.depth), cell.training, std::to_string(cell.width),
                                      std::to_string(layer + 1),
                                      fixed(known_mean(column(cell.weights, layer)).value, 1),
                                      fixed(known_mean(column(cell.outputs, layer)).value, 1),
                                      fixed(known_mean(column(cell.inputs, layer)).value, 1)});
        }
        return {.title = "Support", .figures = {figure, beside}, .tables = {table}};
    }
};

const StudyRegistration transport_width_registration{
    {.kind = "study",
     .name = "transport-width",
     .help =
         "barriers between matched MLPs over their width, beside the effective dimension of their support",
     .citation = paper,
     .options =
         {core::integers("depths", "numbers of hidden layers").at_least(1).at_least_items(1),
          core::integers("widths", "of all hidden layers, rising").at_least(2).at_least_items(2),
          core::objects("trainings",
                        {core::text("name", "in files, figures and tables"),
                         core::texts("set", "of the experiment: `clients.algorithm.weight_decay=0.001`")
                             .by_default("[]")},
                        "ways of training, whose models have supports of different dimensions")
              .at_least_items(1),
          core::integer("pairs", "of models in each cell").at_least(2),
          core::texts("methods", "matching methods; the first and the last are compared").at_least_items(1),
          core::integer("points", "of each line").at_least(3)}},
    [](const Value&) { return std::make_unique<TransportWidth>(); }};

}  // namespace

}  // namespace thalweg::study::transport_width
