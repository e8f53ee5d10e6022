#include "lmc_result.hpp"

#include <cmath>

#include "thalweg/core/text.hpp"

namespace thalweg::app {

namespace {

/// The barriers of another curve, under `barrier`, and which share of them is gone, under `reduction`; null when it was not
/// measured.
void add_reduction(Json& json, const LmcResult& result, const std::optional<analysis::Curve>& other,
                   const std::string& barrier, const std::string& reduction, bool losses_compare) {
    for (const auto& key : {barrier, reduction}) {
        json[key] = nullptr;
        if (!other) continue;
        for (const auto* name : {"train", "test"}) json[key][name] = nullptr;
    }
    for (std::size_t s = 0; other && s < result.curve.splits.size(); ++s) {
        const auto& [name, after] = result.curve.splits[s];
        const auto& before = other->splits[s].second;
        json[barrier][name] = {{"loss", before.loss_barrier}, {"error", before.error_barrier}};
        json[reduction][name] = {
            {"loss", losses_compare
                         ? Json(analysis::relative_reduction(before.loss_barrier, after.loss_barrier))
                         : Json()},
            {"error", analysis::relative_reduction(before.error_barrier, after.error_barrier)}};
    }
}

}  // namespace

Json result_json(const LmcResult& result) {
    const auto& curve = result.curve;
    Json json;
    json["path"] = result.path;
    json["lambdas"] = curve.lambdas;
    const std::size_t middle = curve.lambdas.size() / 2;
    for (const auto* name : {"train", "test"}) {  // null: not measured
        json[name] = nullptr;
        json["barrier"][name] = nullptr;
    }
    for (const auto& [name, split] : curve.splits) {
        json[name] = {{"loss", split.loss}, {"accuracy", split.accuracy}};
        json["barrier"][name] = {{"loss", split.loss_barrier}, {"error", split.error_barrier}};
    }
    const auto& quoted = result.quoted().second;
    if (curve.lambdas.size() % 2 == 1) {
        json["midpoint"] = {{"loss", quoted.loss[middle]}, {"accuracy", quoted.accuracy[middle]}};
    } else {
        json["midpoint"] = nullptr;  // an even number of points has none
    }
    json["endpoints"] = {{"a", {{"loss", quoted.loss.front()}, {"accuracy", quoted.accuracy.front()}}},
                         {"b", {{"loss", quoted.loss.back()}, {"accuracy", quoted.accuracy.back()}}}};
    json["sign_consistency"] = result.sign_consistency;
    json["variance_ratio"] = curve.variance_ratio;
    add_reduction(json, result, result.before, "barrier_before", "relative_reduction", !result.normalised());
    add_reduction(json, result, result.unmended, "barrier_unmended", "reduction_by_finish", true);
    json["layers"] = Json::array();
    for (const auto& layer : result.layers) {
        json["layers"].push_back(
            {{"name", layer.layer},
             {"loss", layer.loss_barrier},
             {"error", layer.error_barrier},
             {"midpoint", {{"loss", layer.loss_at_middle}, {"error", layer.error_at_middle}}}});
    }
    return json;
}

namespace {

std::string layers_text(const LmcResult& result) {
    if (result.layers.empty()) return "";
    record::Table table({result.normalised() ? "layer alone, normalised" : "layer alone",
                         result.quoted().first + " loss barrier", "error barrier", "at ½: loss", "error"});
    for (const auto& layer : result.layers) {
        table.row({layer.layer, record::number(layer.loss_barrier), record::percent(layer.error_barrier),
                   record::number(layer.loss_at_middle), record::percent(layer.error_at_middle)});
    }
    return "\n" + table.text();
}

/// `, 93.1% less`; nothing where there was no barrier.
std::string less(double before, double after) {
    const double share = analysis::relative_reduction(before, after);
    if (std::isnan(share)) return "";
    return ", " + record::percent(std::abs(share), 1) + (share < 0 ? " more" : " less");
}

/// A line for each split: the barriers of another curve, and how much of them is gone.
std::string reduction_text(const LmcResult& result, const std::optional<analysis::Curve>& other,
                           const std::string& what, bool losses_compare) {
    std::string text;
    for (std::size_t i = 0; other && i < result.curve.splits.size(); ++i) {
        const auto& before = other->splits[i].second;
        const auto& after = result.curve.splits[i].second;
        text += what + ": " + result.curve.splits[i].first;
        if (losses_compare) {
            text += " loss " + record::number(before.loss_barrier) +
                    less(before.loss_barrier, after.loss_barrier) + ";";
        }
        text += " error " + record::percent(before.error_barrier) +
                less(before.error_barrier, after.error_barrier) + "\n";
    }
    return text;
}

}  // namespace

std::string result_text(const LmcResult& result) {
    const auto& curve = result.curve;
    std::vector<std::string> header{result.path == "line" ? "λ" : "t on the " + result.path};
    for (const auto& [name, split] : curve.splits) {
        header.push_back(name + " loss");
        header.push_back(name + " accuracy");
    }
    record::Table table(header);
    for (std::size_t i = 0; i < curve.lambdas.size(); ++i) {
        std::vector<std::string> cells{record::number(curve.lambdas[i])};
        for (const auto& [name, split] : curve.splits) {
            cells.push_back(record::number(split.loss[i]));
            cells.push_back(record::percent(split.accuracy[i]));
        }
        table.row(std::move(cells));
    }
    std::string text = table.text();
    for (const auto& [name, split] : curve.splits) {
        text += name + " barrier: loss " + record::number(split.loss_barrier) + ", error " +
                record::percent(split.error_barrier) + "\n";
    }
    text += reduction_text(result, result.before, "before, on the line between the models as given",
                           !result.normalised());
    if (result.moved)  // else the two are one
        text += reduction_text(result, result.unmended, "without the finish, on the same path", true);
    text += "sign consistency" + std::string(result.normalised() ? " of the normalised models" : "") + ": " +
            record::percent(result.sign_consistency) + "\n";
    if (!curve.variance_ratio.empty()) {
        std::vector<std::string> ratios;
        for (const auto ratio : curve.variance_ratio) ratios.push_back(record::number(ratio));
        text += "variance ratio at the midpoint, by layer: " + core::join(ratios) + "\n";
    }
    return text + layers_text(result);
}

namespace {

report::Figure curve_figure(const LmcResult& result, bool of_loss, const std::string& caption) {
    report::Figure figure{.name = of_loss ? "lmc-loss" : "lmc-error",
                          .title = of_loss ? "Loss between the models" : "Error between the models",
                          .caption = caption};
    figure.x = {.label = result.path == "line" ? "λ (A at 0, B at 1)"
                                               : "t on the " + result.path + " (A at 0, B at 1)"};
    figure.y = {.label = of_loss ? "loss (nats)" : "error (%)"};
    const auto add = [&](const analysis::Curve& curve, const std::string& suffix,
                         report::Series::Style style) {
        for (const auto& [name, split] : curve.splits) {
            report::Series series{.name = name + suffix, .x = curve.lambdas, .y = split.loss, .style = style};
            if (!of_loss) {
                for (std::size_t p = 0; p < series.y.size(); ++p) series.y[p] = 100 * (1 - split.accuracy[p]);
            }
            figure.series.push_back(std::move(series));
        }
    };
    add(result.curve, "", report::Series::Style::line);
    if (result.before && !(of_loss && result.normalised()))
        add(*result.before, ", line between the models as given", report::Series::Style::dashed);
    // Where nothing but the finish was asked for, that is the line already drawn.
    if (result.unmended && result.moved)
        add(*result.unmended, ", without the finish", report::Series::Style::dashed);
    return figure;
}

}  // namespace

report::Document document_of(const LmcResult& result, const LmcArguments& arguments,
                             const std::string& data) {
    report::Document document{.kind = "lmc", .title = "Between " + arguments.a + " and " + arguments.b};
    const auto& [name, quoted] = result.quoted();
    document.summary = "On the " + name + " set of " + data + " the loss barrier is " +
                       record::number(quoted.loss_barrier) + " and the error barrier " +
                       record::percent(quoted.error_barrier) + ".";
    document.facts["path"] = result.path;
    document.facts["alignment"] = arguments.align;
    document.facts["finish"] = arguments.curve.finish;
    document.facts[result.normalised() ? "sign consistency of the normalised models" : "sign consistency"] =
        result.sign_consistency;
    std::string caption = std::to_string(result.curve.lambdas.size()) + " points, every sample of each set.";
    if (result.normalised()) caption += " Both models normalised: the logits of each divided by one number.";
    if (result.stale_norms) {
        caption +=
            " Batch norms between the ends use the statistics of the line's middle: "
            "--finish reset_batch_norm takes them anew.";
    }
    document.sections.push_back(
        {.title = "Curves",
         .figures = {curve_figure(result, false, caption), curve_figure(result, true, caption)}});
    if (result.layers.empty()) return document;
    report::Figure figure{.name = "lmc-layers", .title = "Barrier of each layer alone"};
    figure.caption = "One layer goes from A to B, the others stay A's; " + name + " set" +
                     (result.normalised() ? ", models normalised." : ".");
    figure.y = {.label = "error barrier (points)"};
    report::Series series{.name = "error barrier", .x = {}, .y = {}, .style = report::Series::Style::bars};
    for (const auto& layer : result.layers) {
        figure.categories.push_back(layer.layer);
        series.x.push_back(static_cast<double>(series.x.size()));
        series.y.push_back(100 * layer.error_barrier);
    }
    figure.x = {.label = "layer"};
    figure.series.push_back(std::move(series));
    document.sections.push_back({.title = "Layers", .figures = {std::move(figure)}});
    return document;
}

}  // namespace thalweg::app
