#include "partition_record.hpp"

#include <algorithm>

namespace thalweg::federation {

namespace {
constexpr std::int64_t most_clients = 200, most_labels = 1000;
}

record::Json partition_record(const data::FederatedData& data) {
    const auto classes = data.dataset().classes();
    record::Json json{{"dataset", data.dataset().name()},
                      {"holdout", data.holdout() ? data.holdout()->size() : 0},
                      {"number_of_clients", data.clients()},
                      {"labels", record::Json::array()},
                      {"clients", record::Json::array()}};
    const bool labelled = classes <= most_labels;
    for (std::int64_t label = 0; labelled && label < classes; ++label)
        json["labels"].push_back(data.dataset().class_name(label));
    for (std::int64_t client = 0; client < std::min(most_clients, data.clients()); ++client) {
        record::Json entry{{"client", client}};
        if (const auto name = data.client_name(client); !name.empty()) entry["name"] = name;
        entry["samples"] = data.samples(client);
        if (labelled) entry["labels"] = data.label_histogram(client);
        json["clients"].push_back(std::move(entry));
    }
    return json;
}

}  // namespace thalweg::federation
