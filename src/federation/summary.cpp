#include <algorithm>

#include "thalweg/core/text.hpp"
#include "thalweg/federation/federation.hpp"

namespace thalweg::federation {

using record::Json;
using record::Table;

namespace {

/// A number of the record; JSON has no NaN or infinity, so a loss that is not finite stands there as null.
std::string number_in(const Json& json) {
    return json.is_number() ? record::number(json.get<double>()) : "not finite";
}

std::string rounds_table(const std::vector<Json>& rounds) {
    Table table({"round", "clients", "training loss", "test loss", "test accuracy", "seconds"});
    for (const auto& line : rounds) {
        const bool tested = line.contains("test");
        table.row({std::to_string(line["round"].get<std::int64_t>()), std::to_string(line["cohort"].size()),
                   number_in(line["train"]["loss"]), tested ? number_in(line["test"]["loss"]) : "–",
                   tested ? record::percent(line["test"]["accuracy"].get<double>()) : "–",
                   number_in(line["seconds"]["total"])});
    }
    return table.text();
}

/// Up to ten clients are listed one by one, more as a range.
void add_clients(Table& table, const Json& clients) {
    constexpr std::size_t listed = 10;
    if (clients.size() <= listed) {
        for (const auto& client : clients) {
            table.row({"client " + std::to_string(client["client"].get<std::int64_t>()) + " alone (" +
                           std::to_string(client["samples"].get<std::int64_t>()) + " samples)",
                       record::percent(client["accuracy"].get<double>()), number_in(client["loss"])});
        }
        return;
    }
    std::vector<double> accuracies;
    for (const auto& client : clients) accuracies.push_back(client["accuracy"].get<double>());
    std::sort(accuracies.begin(), accuracies.end());
    table.row({"clients alone (" + std::to_string(clients.size()) + "): lowest",
               record::percent(accuracies.front()), ""});
    table.row({"    median", record::percent(accuracies[accuracies.size() / 2]), ""});
    table.row({"    highest", record::percent(accuracies.back()), ""});
}

std::string ladder_table(const Json& ladder) {
    Table table({"model", "test accuracy", "test loss"});
    add_clients(table, ladder["clients"]);
    table.rule();
    for (const auto& step : ladder["steps"]) {
        table.row({step["name"].get<std::string>(), record::percent(step["accuracy"].get<double>()),
                   number_in(step["loss"])});
    }
    table.rule();
    table.row({"ensemble of the clients' logits (upper mark)",
               record::percent(ladder["ensemble"]["accuracy"].get<double>()),
               number_in(ladder["ensemble"]["loss"])});
    return table.text();
}

}  // namespace

std::string summary(const std::vector<Json>& rounds) {
    if (rounds.empty()) return "";
    std::string text;
    const auto measured = std::find_if(rounds.rbegin(), rounds.rend(),
                                       [](const Json& line) { return line.contains("ladder"); });
    if (rounds.size() > 1 || measured == rounds.rend()) text += rounds_table(rounds);
    if (measured != rounds.rend()) {
        if (!text.empty()) text += "\n";
        if (rounds.size() > 1) {
            text += "What each step bought in round " +
                    std::to_string((*measured)["round"].get<std::int64_t>()) + ":\n";
        }
        text += ladder_table((*measured)["ladder"]);
    }
    return text;
}

}  // namespace thalweg::federation
