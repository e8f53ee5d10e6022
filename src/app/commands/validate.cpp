#include "../context.hpp"
#include "thalweg/federation/federation.hpp"

namespace thalweg::app {

namespace {

struct ValidateArguments {
    ConfigArguments config;
    bool no_data = false;
    bool json = false;
};

void validate(const Context& context, const ValidateArguments& arguments) {
    const auto experiment = arguments.config.load(context);
    // Partition and model are tried on the data itself: more shards than samples is only seen there.
    if (!arguments.no_data) federation::Federation federation(experiment, context.communicator);
    if (arguments.json) {
        context.print(to_json(experiment.config));
    } else {
        context.print(core::to_yaml(experiment.config));
    }
}

}  // namespace

void add_validate(CLI::App& program, Context& context) {
    auto* command = program.add_subcommand(
        "validate", "checks a configuration without running it; prints it with every default");
    auto arguments = std::make_shared<ValidateArguments>();
    arguments->config.add_to(*command);
    command->add_flag("--no-data", arguments->no_data,
                      "do not open the data (partition and input shape go unchecked)");
    command->add_flag("--json", arguments->json, "as JSON instead of YAML");
    command->footer("Example:\n  thalweg validate configs/quickstart.yaml clients.epochs=2");
    command->callback(
        [&context, arguments] { context.action = [&context, arguments] { validate(context, *arguments); }; });
}

}  // namespace thalweg::app
