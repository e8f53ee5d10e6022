#include "thalweg/federation/instability.hpp"

#include "../measuring.hpp"
#include "thalweg/core/error.hpp"

namespace thalweg::app {

namespace {

struct InstabilityArguments {
    ConfigArguments config;
    std::vector<std::int64_t> steps;
    federation::InstabilityOptions options;
    ModelArguments samples;  ///< `--holdout` alone
    std::string out;
};

Json split_json(const analysis::SplitCurve& split) {
    return {{"loss", split.loss},
            {"accuracy", split.accuracy},
            {"loss_barrier", split.loss_barrier},
            {"error_barrier", split.error_barrier}};
}

Json instability_json(const federation::InstabilityResult& result, const InstabilityArguments& arguments) {
    Json json{{"last", result.last}, {"finish", arguments.options.finish}, {"steps", Json::array()}};
    for (const auto& step : result.steps) {
        Json entry{{"step", step.step},
                   {"train_barrier", step.train_barrier},
                   {"test_barrier", step.test_barrier},
                   {"loss_barrier", step.loss_barrier},
                   {"stable", step.stable},
                   {"curves", Json::array()}};
        for (const auto& curve : step.curves) {
            Json one{{"lambdas", curve.lambdas}};
            for (const auto& [name, split] : curve.splits) one[name] = split_json(split);
            entry["curves"].push_back(std::move(one));
        }
        json["steps"].push_back(std::move(entry));
    }
    return json;
}

std::string instability_text(const federation::InstabilityResult& result) {
    record::Table table(
        {"fork at step", "train error barrier", "test error barrier", "test loss barrier", ""});
    for (const auto& step : result.steps) {
        table.row({std::to_string(step.step), record::percent(step.train_barrier),
                   record::percent(step.test_barrier), record::number(step.loss_barrier),
                   step.stable ? "stable" : "unstable"});
    }
    return table.text() + "of " + std::to_string(result.last) + " steps\n";
}

report::Document instability_document(const federation::InstabilityResult& result,
                                      const InstabilityArguments& arguments) {
    report::Document document{.kind = "instability", .title = "Instability of " + arguments.config.config};
    document.summary =
        "Two copies of one training see the same batches up to a step and others from there on; the "
        "barrier between their ends.";
    document.facts["steps of the training"] = result.last;
    document.facts["finish"] = arguments.options.finish;
    report::Figure figure{.name = "instability", .title = "Error barrier by fork step"};
    figure.caption = "Mean over " + std::to_string(arguments.options.repeats) + " other order(s); below " +
                     record::percent(arguments.options.stable_below) + " counts as stable.";
    figure.x = {.label = "step at which the copies part"};
    figure.y = {.label = "error barrier (points)"};
    report::Series train{.name = "train", .x = {}, .y = {}}, test{.name = "test", .x = {}, .y = {}};
    for (const auto& step : result.steps) {
        for (auto* series : {&train, &test}) series->x.push_back(static_cast<double>(step.step));
        train.y.push_back(100 * step.train_barrier);
        test.y.push_back(100 * step.test_barrier);
    }
    figure.series = {std::move(train), std::move(test)};
    document.sections.push_back({.title = "Fork step", .figures = {std::move(figure)}});
    return document;
}

void instability(const Context& context, const InstabilityArguments& arguments) {
    require_folder(context, arguments.out);
    const auto experiment = arguments.config.load(context);
    const auto setting = federation::open_setting(experiment, context.communicator);
    auto options = arguments.options;
    options.calibration = core::collectively(context.communicator, [&] {
        auto samples = arguments.samples;
        samples.seed = experiment.seed;
        return options.finish == "none" ? nullptr : samples.calibration(*setting.dataset);
    });
    record::Progress progress(context.is_root, 1, "training");
    const auto result =
        federation::instability(experiment, setting, arguments.steps, options, context.communicator,
                                [&](double fraction) { progress.update(fraction, "trainings"); });
    progress.finish();
    deliver(context, arguments.samples.json, instability_json(result, arguments), instability_text(result),
            instability_document(result, arguments), arguments.out);
}

}  // namespace

void add_instability(CLI::App& program, Context& context) {
    auto* command = program.add_subcommand(
        "instability", "trains two copies that part at a step, and measures the barrier between their ends");
    auto arguments = std::make_shared<InstabilityArguments>();
    arguments->config.add_to(*command);
    command->add_option("--step", arguments->steps, "where the copies part: steps, separated by commas")
        ->delimiter(',')
        ->allow_extra_args(false)
        ->required();
    command->add_option("--points", arguments->options.points, "points on the line between them")
        ->capture_default_str()
        ->check(CLI::Range(3, 1001));
    command->add_option("--repeats", arguments->options.repeats, "other orders for each step")
        ->capture_default_str()
        ->check(CLI::PositiveNumber);
    command
        ->add_option("--finish", arguments->options.finish,
                     "at every point between them: none, repair, rescale, reset_batch_norm")
        ->capture_default_str()
        ->check(CLI::IsMember({"none", "repair", "rescale", "reset_batch_norm"}));
    command->add_option("--out", arguments->out, "folder for report.html, result.json and the figures");
    arguments->samples.add_holdout_to(*command, "--finish");
    arguments->samples.add_json_to(*command);
    command->footer(
        "Example:\n  thalweg instability configs/reproduce/merge-mlp-128.yaml clients.epochs=2 --step "
        "0,50,200");
    command->callback([&context, arguments] {
        context.action = [&context, arguments] { instability(context, *arguments); };
    });
}

}  // namespace thalweg::app
