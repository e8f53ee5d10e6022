#include "modules.hpp"

#include <algorithm>
#include <set>
#include <utility>
#include <variant>

#include "thalweg/analysis/measures.hpp"

namespace thalweg::analysis {

namespace {

struct Named {
    std::set<std::size_t> entries;
    void entry(const char*, int index) {
        if (index >= 0) entries.insert(static_cast<std::size_t>(index));
    }
    void counter(const char*, int) {}
    template <class Value>
    void value(const char*, const Value&) {}
};

}  // namespace

std::vector<std::size_t> entries_of(const model::Operation& operation) {
    Named named;
    std::visit([&](const auto& kind) { kind.fields(kind, named); }, operation.kind);
    return {named.entries.begin(), named.entries.end()};
}

std::vector<Module> modules(const model::ModelGraph& graph) {
    std::vector<Module> found;
    std::set<std::size_t> taken;
    for (const auto& operation : graph.operations) {
        Module module{operation.name, {}};
        for (const std::size_t entry : entries_of(operation)) {
            if (taken.insert(entry).second) module.entries.push_back(entry);
        }
        if (!module.entries.empty()) found.push_back(std::move(module));
    }
    return found;
}

bool has_batch_norm(const model::ModelGraph& graph) {
    return std::any_of(graph.operations.begin(), graph.operations.end(), [](const auto& operation) {
        return std::holds_alternative<model::BatchNorm>(operation.kind);
    });
}

}  // namespace thalweg::analysis
