#include <algorithm>

#include "thalweg/core/text.hpp"
#include "thalweg/federation/federation.hpp"
#include "thalweg/record/json.hpp"

namespace thalweg::federation {

using record::Json;
using record::json_at;
using record::json_text;
using record::Table;

namespace {

/// A number of the record; JSON has no NaN or infinity, so a loss that is not finite stands there as null.
std::string number_in(const Json& json) {
    return json.is_number() ? record::number(json.get<double>()) : "not finite";
}

std::string percent_in(const Json& json) {
    return json.is_number() ? record::percent(json.get<double>()) : "–";
}

std::string text_in(const Json& json) {
    return json.is_string() ? json.get<std::string>() : "–";
}

std::string rounds_table(const std::vector<Json>& rounds) {
    Table table({"round", "clients", "training loss", "test loss", "test accuracy", "seconds"});
    for (const auto& line : rounds) {
        const Json& test = json_at(line, {"test"});
        const bool tested = test.is_object() && !test.empty();
        table.row({std::to_string(line["round"].get<std::int64_t>()),
                   std::to_string(json_at(line, {"cohort"}).size()),
                   number_in(json_at(line, {"train", "loss"})),
                   tested ? number_in(json_at(test, {"loss"})) : "–", percent_in(json_at(test, {"accuracy"})),
                   number_in(json_at(line, {"seconds", "total"}))});
    }
    return table.text();
}

/// Up to ten clients are listed one by one, more as a range.
void add_clients(Table& table, const Json& clients) {
    constexpr std::size_t listed = 10;
    if (clients.size() <= listed) {
        for (const auto& client : clients) {
            table.row({"client " + json_text(json_at(client, {"client"})) + " alone (" +
                           json_text(json_at(client, {"samples"})) + " samples)",
                       percent_in(json_at(client, {"accuracy"})), number_in(json_at(client, {"loss"}))});
        }
        return;
    }
    std::vector<double> accuracies;
    for (const auto& client : clients) {
        if (const Json& accuracy = json_at(client, {"accuracy"}); accuracy.is_number())
            accuracies.push_back(accuracy.get<double>());
    }
    if (accuracies.empty()) return;
    std::sort(accuracies.begin(), accuracies.end());
    table.row({"clients alone (" + std::to_string(clients.size()) + "): lowest",
               record::percent(accuracies.front()), ""});
    table.row({"    median", record::percent(accuracies[accuracies.size() / 2]), ""});
    table.row({"    highest", record::percent(accuracies.back()), ""});
}

std::string ladder_table(const Json& ladder) {
    Table table({"model", "test accuracy", "test loss"});
    add_clients(table, json_at(ladder, {"clients"}));
    table.rule();
    for (const auto& step : json_at(ladder, {"steps"})) {
        table.row({text_in(json_at(step, {"name"})), percent_in(json_at(step, {"accuracy"})),
                   number_in(json_at(step, {"loss"}))});
    }
    table.rule();
    table.row({"ensemble of the clients' logits (upper mark)",
               percent_in(json_at(ladder, {"ensemble", "accuracy"})),
               number_in(json_at(ladder, {"ensemble", "loss"}))});
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
