#include <algorithm>
#include <numeric>

#include "../context.hpp"
#include "thalweg/clients/training.hpp"
#include "thalweg/core/text.hpp"
#include "thalweg/federation/federation.hpp"
#include "thalweg/federation/plan.hpp"

namespace thalweg::app {

namespace {

struct PartitionArguments {
    ConfigArguments config;
    std::string export_to;
    std::int64_t shown = 50;
    bool json = false;
};

at::Tensor to_tensor(const std::vector<std::int64_t>& values) {
    at::Tensor tensor = at::empty({static_cast<std::int64_t>(values.size())}, at::kLong);
    std::copy(values.begin(), values.end(), tensor.data_ptr<std::int64_t>());
    return tensor;
}

/// Everything an independent program needs to train the same clients on the same batches: training-set indices of every
/// client (`client_K`), of the hold-out, and for every round and member the positions in that list in the order they
/// are seen (`round_R/client_K`).
void export_plan(const federation::Experiment& experiment, const model::ModelGraph& graph,
                 const data::FederatedData& data, const std::string& path) {
    std::vector<std::pair<std::string, at::Tensor>> tensors;
    for (std::int64_t client = 0; client < data.clients(); ++client) {
        const auto indices = data.indices(client);
        tensors.emplace_back("client_" + std::to_string(client),
                             to_tensor(std::vector<std::int64_t>(indices.begin(), indices.end())));
    }
    const auto holdout = data.holdout_indices();
    tensors.emplace_back("holdout", to_tensor(std::vector<std::int64_t>(holdout.begin(), holdout.end())));
    const clients::LocalTrainer trainer(graph, experiment.plan, experiment.seed);
    for (std::int64_t round = 1; round <= experiment.rounds; ++round) {
        for (const auto& member : federation::plan_round(experiment, data, round, 1)) {
            tensors.emplace_back(
                "round_" + std::to_string(round) + "/client_" + std::to_string(member.client),
                to_tensor(trainer.sample_order(member.samples, member.client, round)));
        }
    }
    model::save_tensors(path, tensors, {{"config", core::to_flow(experiment.config)}});
}

constexpr std::int64_t most_columns = 20;

/// `' ' 17%, e 9%, t 7%`: the labels a client has most of.
std::string most_frequent(const data::Dataset& dataset, const std::vector<std::int64_t>& histogram) {
    std::vector<std::size_t> order(histogram.size());
    std::iota(order.begin(), order.end(), std::size_t{0});
    std::stable_sort(order.begin(), order.end(),
                     [&](std::size_t a, std::size_t b) { return histogram[a] > histogram[b]; });
    const auto total = std::accumulate(histogram.begin(), histogram.end(), std::int64_t{0});
    std::vector<std::string> words;
    for (const std::size_t label : order) {
        if (words.size() == 5 || histogram[label] == 0) break;
        const double share = static_cast<double>(histogram[label]) / static_cast<double>(total);
        words.push_back(dataset.class_name(static_cast<std::int64_t>(label)) + " " +
                        record::percent(share, 0));
    }
    return core::join(words);
}

/// A column for every label as long as there are few, else how many different ones a client has and the most
/// frequent.
std::string histogram_table(const data::FederatedData& data, std::int64_t shown) {
    const auto classes = data.dataset().classes();
    const bool wide = classes <= most_columns, named = !data.client_name(0).empty();
    std::vector<std::string> header{"client"};
    if (named) header.emplace_back("name");
    header.emplace_back("samples");
    if (!wide) header.insert(header.end(), {"labels", "most frequent"});
    for (std::int64_t label = 0; wide && label < classes; ++label) {
        header.push_back(data.dataset().class_name(label));
    }
    record::Table table(header);
    for (std::int64_t client = 0; client < std::min(shown, data.clients()); ++client) {
        const auto histogram = data.label_histogram(client);
        std::vector<std::string> cells{std::to_string(client)};
        if (named) cells.push_back(data.client_name(client));
        cells.push_back(std::to_string(data.samples(client)));
        if (wide) {
            for (const auto count : histogram) cells.push_back(std::to_string(count));
        } else {
            const auto held = std::count_if(histogram.begin(), histogram.end(), [](auto n) { return n > 0; });
            cells.push_back(std::to_string(held));
            cells.push_back(most_frequent(data.dataset(), histogram));
        }
        table.row(std::move(cells));
    }
    std::string text = table.text();
    if (shown < data.clients()) {
        text += "… and " + std::to_string(data.clients() - shown) +
                " more clients (--clients N shows more, --json all)\n";
    }
    return text;
}

std::string size_summary(const data::FederatedData& data) {
    std::vector<std::int64_t> sizes;
    for (std::int64_t client = 0; client < data.clients(); ++client) sizes.push_back(data.samples(client));
    std::sort(sizes.begin(), sizes.end());
    std::int64_t total = 0;
    for (const auto size : sizes) total += size;
    return std::to_string(data.clients()) + " clients, " + std::to_string(total) + " samples; a client has " +
           std::to_string(sizes.front()) + " to " + std::to_string(sizes.back()) + ", median " +
           std::to_string(sizes[sizes.size() / 2]) + "\n";
}

Json partition_json(const data::FederatedData& data) {
    Json clients = Json::array();
    for (std::int64_t client = 0; client < data.clients(); ++client) {
        Json entry{{"client", client}};
        if (const auto name = data.client_name(client); !name.empty()) entry["name"] = name;
        entry["samples"] = data.samples(client);
        entry["labels"] = data.label_histogram(client);
        clients.push_back(std::move(entry));
    }
    return {{"dataset", data.dataset().name()},
            {"classes", data.dataset().classes()},
            {"holdout", data.holdout() ? data.holdout()->size() : 0},
            {"clients", std::move(clients)}};
}

void partition(const Context& context, const PartitionArguments& arguments) {
    if (!arguments.export_to.empty()) require_writable(context, arguments.export_to);
    const auto experiment = arguments.config.load(context);
    const federation::Federation federation(experiment, context.communicator);
    core::collectively(context.communicator, [&] {
        if (!context.is_root) return;
        const auto& data = federation.data();
        if (!arguments.export_to.empty())
            export_plan(experiment, federation.graph(), data, arguments.export_to);
        if (arguments.json) {
            context.print(partition_json(data));
        } else {
            context.print(histogram_table(data, arguments.shown) + size_summary(data));
        }
    });
}

}  // namespace

void add_partition(CLI::App& program, Context& context) {
    auto* command =
        program.add_subcommand("partition", "who holds what: the label histogram of every client");
    auto arguments = std::make_shared<PartitionArguments>();
    arguments->config.add_to(*command);
    command->add_option("--clients", arguments->shown, "rows of the table")
        ->capture_default_str()
        ->check(CLI::PositiveNumber);
    command->add_option(
        "--export", arguments->export_to,
        "write every client's sample indices and batch orders to a .pt or .safetensors file for Python");
    command->add_flag("--json", arguments->json, "one JSON document on stdout");
    command->footer(
        "Example:\n  thalweg partition configs/quickstart.yaml 'data.partition={scheme: dirichlet, alpha: "
        "0.1, clients: 5}'");
    command->callback([&context, arguments] {
        context.action = [&context, arguments] { partition(context, *arguments); };
    });
}

}  // namespace thalweg::app
