#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "measure_drawing.hpp"

// Figures of the landscape about the global model: valley, plane, flatness, curvature.
namespace thalweg::report {

namespace {

void valley_curves(Section& section, const RunRecord& run, const Measure& measure) {
    Figure loss{.name = "valley-loss",
                .title = "The valley around the global model: loss",
                .caption = "Along random directions, mean over them.",
                .x = {.label = "λ (θ + λε)"},
                .y = {.label = "loss (nats)"}};
    Figure accuracy = loss;
    accuracy.name = "valley-accuracy";
    accuracy.title = "The valley around the global model: accuracy";
    accuracy.y.label = "test accuracy (%)";
    for (const auto& [round, json] : first_and_last(run, {measure.name})) {
        const std::vector<double> lambdas = numbers(record::json_at(*json, {"lambdas"}));
        const std::string name = fmt::format("round {:.0f}", round);
        const auto add = [&](Figure& figure, std::vector<double> values) {
            if (values.size() == lambdas.size() && !values.empty())
                figure.series.push_back({.name = name, .x = lambdas, .y = std::move(values)});
        };
        add(loss, numbers(record::json_at(*json, {"loss"})));
        add(accuracy, numbers(record::json_at(*json, {"accuracy"}), 100));
    }
    add_figure(section, measure.named(std::move(loss)));
    add_figure(section, measure.named(std::move(accuracy)));
}

}  // namespace

void draw_valley(Section& section, const RunRecord& run, const Measure& measure) {
    valley_curves(section, run, measure);
    Figure asymmetry{
        .name = "valley-asymmetry",
        .title = "Asymmetry of the valley",
        .caption = "Mean error at λ < 0 minus that at λ > 0, with its 95% interval over directions.",
        .x = {.label = "round"},
        .y = {.label = "asymmetry (points)"}};
    Series series{.name = "asymmetry"};
    for (const auto& [round, measures] : run.measured) {
        const double value = number_or_gap_at(measures, measure.at("asymmetry"), 100);
        if (std::isnan(value)) continue;
        const auto interval = numbers(record::json_at(measures, measure.at("asymmetry_interval")), 100);
        series.x.push_back(round);
        series.y.push_back(value);
        series.low.push_back(interval.size() == 2 ? interval[0] : std::nan(""));
        series.high.push_back(interval.size() == 2 ? interval[1] : std::nan(""));
    }
    if (series.x.size() == 1) series.style = Series::Style::points;
    if (has_values(series)) asymmetry.series.push_back(std::move(series));
    add_figure(section, measure.named(std::move(asymmetry)));
}

/// Of the last round that has one.
void draw_surface(Section& section, const RunRecord& run, const Measure& measure) {
    double round = 0;
    const Json* last = last_of(run, {measure.name}, round);
    if (last == nullptr) return;
    const auto add = [&](const char* key, const char* label, double scale) {
        Grid grid{.rows = numbers(record::json_at(*last, {"y"})),
                  .columns = numbers(record::json_at(*last, {"x"})),
                  .label = label};
        bool sound = grid.rows.size() > 1 && grid.columns.size() > 1;
        for (const Json& row : record::json_at(*last, {key})) {
            grid.values.push_back(numbers(row, scale));
            sound = sound && grid.values.back().size() == grid.columns.size();
        }
        if (!sound || grid.values.size() != grid.rows.size()) return;
        grid.contours = std::string(key) == "loss" ? loss_contours(grid.values) : accuracy_contours();
        add_figure(section,
                   measure.named({.name = std::string("surface-") + key,
                                  .title = fmt::format("The plane about the global model, round {:.0f}: {}",
                                                       round, key),
                                  .caption = "Along two random directions, the same draws in every round.",
                                  .x = {.label = "first direction (filter norms)"},
                                  .y = {.label = "second direction (filter norms)"},
                                  .grid = std::move(grid)}));
    };
    add("loss", "loss (nats)", 1);
    add("accuracy", "test accuracy (%)", 100);
}

/// Of the first and the last round.
void draw_flatness(Section& section, const RunRecord& run, const Measure& measure) {
    Figure energy{.name = "flatness",
                  .title = "Local energy around the global model",
                  .caption =
                      "The rise of the error when every weight θ becomes θ(1 + σz), z normal; the band is "
                      "one standard error.",
                  .x = {.label = "noise σ (relative to each weight)"},
                  .y = {.label = "rise of the error (points)"}};
    Figure loss = energy;
    loss.name = "flatness-loss";
    loss.title = "Local energy around the global model: loss";
    loss.caption = "The rise of the loss when every weight θ becomes θ(1 + σz), z normal.";
    loss.y.label = "rise of the loss (nats)";
    for (const auto& entry : first_and_last(run, {measure.name})) {
        Series rise{.name = fmt::format("round {:.0f}", entry.first)};
        Series of_loss = rise;
        for (const Json& point : record::json_at(*entry.second, {"points"})) {
            const double value = number_at(point, {"energy"}, 100),
                         error = number_at(point, {"standard_error"}, 100);
            rise.x.push_back(number_at(point, {"sigma"}));
            rise.y.push_back(value);
            rise.low.push_back(value - error);
            rise.high.push_back(value + error);
            of_loss.x.push_back(rise.x.back());
            of_loss.y.push_back(number_at(point, {"loss_rise"}));
        }
        add_series(energy, std::move(rise));
        add_series(loss, std::move(of_loss));
    }
    add_figure(section, measure.named(std::move(energy)));
    add_figure(section, measure.named(std::move(loss)));
}

namespace {

void density(Section& section, const RunRecord& run, const Measure& measure) {
    Figure figure{.name = "hessian-density",
                  .title = "Spectral density of the Hessian",
                  .caption = "Stochastic Lanczos quadrature at the global model.",
                  .x = {.label = "eigenvalue (nats per squared unit)"},
                  .y = {.label = "density", .logarithmic = true, .low = 1e-10}};
    for (const auto& [round, json] : first_and_last(run, measure.at("density"))) {
        Series series{.name = fmt::format("round {:.0f}", round),
                      .x = numbers(record::json_at(*json, {"grid"})),
                      .y = numbers(record::json_at(*json, {"density"}))};
        if (series.x.size() == series.y.size() && has_values(series))
            figure.series.push_back(std::move(series));
    }
    add_figure(section, measure.named(std::move(figure)));
}

/// With a band of one standard error over the probes.
void trace(Section& section, const RunRecord& run, const Measure& measure) {
    Series series{.name = "trace"};
    for (const auto& [round, measures] : run.measured) {
        const double value = number_or_gap_at(measures, measure.at("trace", "value"));
        if (std::isnan(value)) continue;
        const double error = number_at(measures, measure.at("trace", "standard_error"));
        series.x.push_back(round);
        series.y.push_back(value);
        series.low.push_back(value - error);
        series.high.push_back(value + error);
    }
    Figure figure{.name = "hessian-trace",
                  .title = "Trace of the Hessian",
                  .caption = "Hutchinson's estimate at the global model; the band is one standard error.",
                  .x = {.label = "round"},
                  .y = {.label = "trace (nats per squared unit)"}};
    add_series(figure, std::move(series));
    add_figure(section, measure.named(std::move(figure)));
}

/// Rounds whose eigenvalues are lower bounds, in words.
std::string unconverged(const RunRecord& run, const Measure& measure) {
    std::size_t measured = 0, open = 0;
    for (const auto& entry : run.measured) {
        const Json& converged = record::json_at(entry.second, measure.at("converged"));
        if (!converged.is_boolean()) continue;
        ++measured;
        open += converged.get<bool>() ? 0 : 1;
    }
    if (open == 0) return "";
    return fmt::format(" Lanczos did not converge in {} of {} rounds: there the values are not settled.",
                       open, measured);
}

}  // namespace

void draw_hessian(Section& section, const RunRecord& run, const Measure& measure) {
    const Path path = measure.at("eigenvalues");
    Figure figure{.name = "hessian",
                  .title = "Eigenvalues of the Hessian",
                  .caption =
                      "Curvature of the loss at the global model: the largest, and the smallest of the "
                      "Lanczos run that found them." +
                      unconverged(run, measure),
                  .x = {.label = "round"},
                  .y = {.label = "eigenvalue (nats per squared unit)"}};
    std::size_t most = 0;
    for (const auto& entry : run.measured) most = std::max(most, record::json_at(entry.second, path).size());
    for (std::size_t k = 0; k < std::min<std::size_t>(most, 5); ++k)
        add_series(figure, over_measured(run, fmt::format("λ{}", k + 1), [&, k](const Json& measures) {
                       const auto values = numbers(record::json_at(measures, path));
                       if (k >= values.size()) return std::nan("");
                       // What was not finite is a gap, not a round that was not measured.
                       return std::isnan(values[k]) ? std::numeric_limits<double>::infinity() : values[k];
                   }));
    add_series(figure, over_measured(run, "smallest", [&](const Json& measures) {
                   return number_or_gap_at(measures, measure.at("smallest"));
               }));
    add_figure(section, measure.named(std::move(figure)));
    trace(section, run, measure);
    density(section, run, measure);
}

}  // namespace thalweg::report
