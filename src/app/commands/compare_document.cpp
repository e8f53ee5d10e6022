#include "compare_document.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "thalweg/core/text.hpp"
#include "thalweg/record/table.hpp"

namespace thalweg::app {

namespace {

using federation::CompareRow;
using report::Figure;
using report::Series;

constexpr double nan = std::numeric_limits<double>::quiet_NaN();

struct View {
    const federation::Comparison& comparison;
    const federation::CompareOptions& options;
    std::int64_t rounds;

    std::vector<double> values(std::size_t pipeline, std::int64_t round, double CompareRow::*number) const {
        std::vector<double> found;
        for (const auto& row : comparison.rows) {
            if (row.round == round && row.pipeline == static_cast<std::int64_t>(pipeline))
                found.push_back(row.*number);
        }
        return found;
    }
};

/// Mean ± standard error; without ends where there is one seed.
void add_point(Series& series, double x, const std::vector<double>& values, double scale) {
    const auto spread = federation::spread_of(values);
    series.x.push_back(x);
    series.y.push_back(spread.mean * scale);
    series.low.push_back(std::isfinite(spread.error) ? (spread.mean - spread.error) * scale : nan);
    series.high.push_back(std::isfinite(spread.error) ? (spread.mean + spread.error) * scale : nan);
}

Figure by_pipeline(const View& view, const std::string& name, const std::string& title,
                   const std::string& label, double CompareRow::*number, double scale) {
    Figure figure{
        .name = name,
        .title = title,
        .caption = view.options.seeds > 1
                       ? fmt::format("Mean and standard error over {} seeds, round {}; each seed a point.",
                                     view.options.seeds, view.rounds)
                       : fmt::format("One seed, round {}.", view.rounds),
        .x = {.label = "pipeline"},
        .y = {.label = label},
        .categories = view.options.pipelines};
    Series mean{.name = "mean over seeds", .style = Series::Style::bars};
    Series each{.name = "each seed", .style = Series::Style::points};
    for (std::size_t p = 0; p < view.options.pipelines.size(); ++p) {
        const auto values = view.values(p, view.rounds, number);
        add_point(mean, static_cast<double>(p), values, scale);
        for (const double value : values) {
            each.x.push_back(static_cast<double>(p));
            each.y.push_back(value * scale);
        }
    }
    figure.series.push_back(std::move(mean));
    if (view.options.seeds > 1) figure.series.push_back(std::move(each));
    return figure;
}

Figure by_round(const View& view) {
    Figure figure{.name = "accuracy-rounds",
                  .title = "Test accuracy over rounds",
                  .caption = view.options.follow < 0
                                 ? "Each pipeline goes on from its own model."
                                 : "All pipelines fuse the same clients, which go on from " +
                                       view.options.pipelines[static_cast<std::size_t>(view.options.follow)] +
                                       ".",
                  .x = {.label = "round"},
                  .y = {.label = "test accuracy (%)"}};
    for (std::size_t p = 0; p < view.options.pipelines.size(); ++p) {
        Series series{.name = view.options.pipelines[p]};
        for (std::int64_t round = 1; round <= view.rounds; ++round)
            add_point(series, static_cast<double>(round), view.values(p, round, &CompareRow::accuracy), 100);
        figure.series.push_back(std::move(series));
    }
    return figure;
}

std::string text_of(const std::vector<double>& values, double scale, int digits) {
    const auto spread = federation::spread_of(values);
    if (!std::isfinite(spread.mean)) return "–";
    const auto text = [&](double value) { return fmt::format("{:.{}f}", value * scale, digits); };
    return text(spread.mean) + (std::isfinite(spread.error) ? " ± " + text(spread.error) : "");
}

/// A stage may take microseconds or minutes.
std::string seconds_of(const std::vector<double>& values) {
    const auto spread = federation::spread_of(values);
    if (!std::isfinite(spread.mean)) return "–";
    return fmt::format("{:.3g}", spread.mean) +
           (std::isfinite(spread.error) ? fmt::format(" ± {:.1g}", spread.error) : "");
}

report::TextTable last_round_table(const View& view) {
    report::TextTable table{.name = "pipelines",
                            .title = fmt::format("Round {}", view.rounds),
                            .columns = {"pipeline", "accuracy (%)", "loss (nats)", "barrier (points)",
                                        "variance ratio", "time (s)", "to the first (points)"}};
    const auto first = view.values(0, view.rounds, &CompareRow::accuracy);
    for (std::size_t p = 0; p < view.options.pipelines.size(); ++p) {
        const auto values = [&](double CompareRow::*number) { return view.values(p, view.rounds, number); };
        const auto difference = federation::paired_difference(values(&CompareRow::accuracy), first);
        std::string apart =
            p == 0 || !std::isfinite(difference.mean) ? "–" : fmt::format("{:+.2f}", 100 * difference.mean);
        if (p > 0 && std::isfinite(difference.low))
            apart += fmt::format(" [{:+.2f}, {:+.2f}]", 100 * difference.low, 100 * difference.high);
        table.rows.push_back({view.options.pipelines[p], text_of(values(&CompareRow::accuracy), 100, 2),
                              text_of(values(&CompareRow::loss), 1, 3),
                              text_of(values(&CompareRow::barrier), 100, 2),
                              text_of(values(&CompareRow::variance_ratio), 1, 3),
                              seconds_of(values(&CompareRow::seconds)), apart});
    }
    table.caption =
        "Mean ± standard error over seeds; differences are paired, with 95% intervals (Student's t).";
    return table;
}

report::TextTable all_rows(const View& view) {
    report::TextTable table{.name = "rows",
                            .title = "All rows",
                            .columns = {"seed", "round", "pipeline", "accuracy", "loss", "barrier",
                                        "variance ratio", "time (s)", "error"}};
    const auto text = [](double value) {
        return std::isfinite(value) ? record::number(value) : std::string("–");
    };
    for (const auto& row : view.comparison.rows)
        table.rows.push_back({std::to_string(row.seed), std::to_string(row.round),
                              view.options.pipelines[static_cast<std::size_t>(row.pipeline)],
                              text(row.accuracy), text(row.loss), text(row.barrier), text(row.variance_ratio),
                              text(row.seconds), row.error});
    return table;
}

bool any(const View& view, double CompareRow::*number) {
    return std::any_of(view.comparison.rows.begin(), view.comparison.rows.end(),
                       [&](const CompareRow& row) { return std::isfinite(row.*number); });
}

std::string summary(const View& view) {
    std::size_t best = 0;
    const auto mean = [&](std::size_t p) {
        return federation::spread_of(view.values(p, view.rounds, &CompareRow::accuracy)).mean;
    };
    for (std::size_t p = 1; p < view.options.pipelines.size(); ++p) {
        if (mean(p) > mean(best) || !std::isfinite(mean(best))) best = p;
    }
    return "Highest mean accuracy in round " + std::to_string(view.rounds) + ": " +
           view.options.pipelines[best] + ", " +
           text_of(view.values(best, view.rounds, &CompareRow::accuracy), 100, 2) + "%.";
}

}  // namespace

report::Document comparison_document(const federation::Comparison& comparison,
                                     const federation::CompareOptions& options,
                                     const federation::Experiment& experiment) {
    const View view{comparison, options, experiment.rounds};
    report::Document document{.kind = "compare", .title = experiment.name, .summary = summary(view)};
    document.facts = {{"pipelines", options.pipelines.size()},
                      {"seeds", options.seeds},
                      {"first seed", experiment.seed},
                      {"rounds", experiment.rounds}};
    report::Section results{.title = "Pipelines", .tables = {last_round_table(view)}};
    results.figures.push_back(by_pipeline(view, "accuracy", "Test accuracy by pipeline", "test accuracy (%)",
                                          &CompareRow::accuracy, 100));
    if (experiment.rounds > 1) results.figures.push_back(by_round(view));
    report::Section more{.title = "Barriers, variance and time"};
    if (any(view, &CompareRow::barrier))
        more.figures.push_back(by_pipeline(view, "barrier",
                                           "Error barrier between clients after the alignments",
                                           "error barrier (points)", &CompareRow::barrier, 100));
    if (any(view, &CompareRow::variance_ratio))
        more.figures.push_back(by_pipeline(view, "variance-ratio", "Variance ratio after the reduction",
                                           "variance ratio", &CompareRow::variance_ratio, 1));
    more.figures.push_back(
        by_pipeline(view, "seconds", "Time to fuse, on one rank", "time (s)", &CompareRow::seconds, 1));
    document.sections = {
        std::move(results),
        std::move(more),
        {.title = "Every seed and round", .tables = {all_rows(view)}, .folded = true},
        {.title = "Configuration", .code = core::to_yaml(experiment.config), .folded = true}};
    return document;
}

}  // namespace thalweg::app
