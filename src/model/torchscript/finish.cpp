// From the draft to the graph: what is unused goes, entries get their roles, starts and Python's names.
#include <torch/types.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <optional>

#include "draft.hpp"
#include "thalweg/core/error.hpp"

namespace thalweg::model::torchscript {

namespace {

/// What a tensor of the state is for, by the first operation that says so.
struct Use {
    Role role = Role::free;
    Initial initial;
};
using Uses = std::map<int, Use>;

Initial uniform(double fan) {
    return {Initial::Kind::uniform, 1.0 / std::sqrt(std::max(fan, 1.0))};
}
Initial filled(double value) {
    return {Initial::Kind::constant, value};
}

/// PyTorch's defaults by the kind of operation.
class Roles {
  public:
    Roles(Uses& uses, const State& state) : uses_(uses), state_(state) {}

    void operator()(const Linear& linear) {
        const auto initial = uniform(static_cast<double>(tensor(linear.weight).size(1)));
        note(linear.weight, Role::weight, initial);
        note(linear.bias, Role::bias, initial);
    }
    void operator()(const Convolution& conv) {
        const auto& weight = tensor(conv.weight);
        const auto initial =
            uniform(static_cast<double>(weight.numel()) / static_cast<double>(weight.size(0)));
        note(conv.weight, Role::weight, initial);
        note(conv.bias, Role::bias, initial);
    }
    void operator()(const BatchNorm& norm) {
        affine(norm);
        note(norm.running_mean, Role::running_mean, filled(0));
        note(norm.running_var, Role::running_var, filled(1));
    }
    void operator()(const LayerNorm& norm) { affine(norm); }
    void operator()(const GroupNorm& norm) { affine(norm); }
    void operator()(const PRelu& prelu) { note(prelu.weight, Role::slope, filled(0.25)); }
    void operator()(const Embedding& embedding) {
        note(embedding.weight, Role::embedding, {Initial::Kind::normal, 1.0});
    }
    void operator()(const Lstm& lstm) {
        const auto initial = uniform(static_cast<double>(tensor(lstm.weight_hidden).size(1)));
        note(lstm.weight_input, Role::weight, initial);
        note(lstm.weight_hidden, Role::weight, initial);
        note(lstm.bias_input, Role::bias, initial);
        note(lstm.bias_hidden, Role::bias, initial);
    }
    /// PyTorch has no default for these: draws as large as the file's values are.
    void operator()(const Parameter& parameter) {
        const auto values = tensor(parameter.weight).to(at::kDouble);
        const auto size = values.numel() == 0 ? 0.0 : std::sqrt(values.square().mean().item<double>());
        note(parameter.weight, Role::free, {Initial::Kind::normal, size});
    }
    template <class Other>
    void operator()(const Other&) {}

  private:
    const at::Tensor& tensor(int index) const {
        return state_.tensors.at(static_cast<std::size_t>(index)).tensor;
    }
    template <class Norm>
    void affine(const Norm& norm) {
        note(norm.weight, Role::norm_scale, filled(1));
        note(norm.bias, Role::norm_shift, filled(0));
    }
    void note(int index, Role role, Initial initial) {
        if (index < 0) return;
        const auto [place, is_new] = uses_.try_emplace(index, Use{role, initial});
        if (!is_new && place->second.role == Role::free) place->second = {role, initial};
    }
    Uses& uses_;
    const State& state_;
};

struct Renumber {
    const std::map<int, int>& entries;
    void entry(const char*, int& index) const {
        if (index >= 0) index = entries.at(index);
    }
    void counter(const char*, int&) const {}
    template <class Other>
    void value(const char*, Other&) const {}
};

/// `norm.num_batches_tracked` of `norm.running_mean`, or -1.
int tracked(const State& state, int running_mean) {
    if (running_mean < 0) return -1;
    const auto& mean = state.tensors[static_cast<std::size_t>(running_mean)].name;
    const auto name = mean.substr(0, mean.rfind('.') == std::string::npos ? 0 : mean.rfind('.') + 1) +
                      "num_batches_tracked";
    for (const auto& item : state.order) {
        const auto& tensor = state.tensors[item.tensor].tensor;
        if (item.name == name && tensor.dim() == 0 && tensor.scalar_type() == at::kLong)
            return static_cast<int>(item.tensor);
    }
    return -1;
}

}  // namespace

ImportedModel Draft::finish(int output, const core::Value& spec) const {
    // What the output needs, in order.
    std::vector<bool> live(shapes_.size(), false);
    live[static_cast<std::size_t>(output)] = true;
    for (auto i = operations_.size(); i-- > 0;) {
        if (!live[i + 1]) continue;
        for (const int input : operations_[i].inputs) live[static_cast<std::size_t>(input)] = true;
    }
    Uses uses;
    Roles roles(uses, state_);
    std::vector<int> counters;  // numbers in the state
    for (std::size_t i = 0; i < operations_.size(); ++i) {
        if (!live[i + 1]) continue;
        std::visit(roles, operations_[i].kind);
        const auto* norm = std::get_if<BatchNorm>(&operations_[i].kind);
        const int counter = norm == nullptr ? -1 : tracked(state_, norm->running_mean);
        if (counter >= 0 && std::find(counters.begin(), counters.end(), counter) == counters.end())
            counters.push_back(counter);
    }
    std::sort(counters.begin(), counters.end());

    GraphBuilder builder(shapes_.front());
    std::map<int, int> entries;
    for (const auto& [index, use] : uses) {  // in the state's order
        const auto& item = state_.tensors[static_cast<std::size_t>(index)];
        entries[index] = builder.entry(item.name, item.tensor.sizes().vec(), use.role, use.initial);
    }
    for (const int counter : counters)
        builder.counter(state_.tensors[static_cast<std::size_t>(counter)].name);
    std::vector<int> values(shapes_.size(), 0);
    Renumber renumber{entries};
    for (std::size_t i = 0; i < operations_.size(); ++i) {
        if (!live[i + 1]) continue;
        auto kind = operations_[i].kind;
        if (auto* norm = std::get_if<BatchNorm>(&kind)) {
            const auto place =
                std::find(counters.begin(), counters.end(), tracked(state_, norm->running_mean));
            norm->counter = place == counters.end() ? -1 : static_cast<int>(place - counters.begin());
        }
        if (auto* constant = std::get_if<Constant>(&kind))
            constant->index = builder.constant(constants_[static_cast<std::size_t>(constant->index)]);
        std::visit([&](auto& operation) { operation.fields(operation, renumber); }, kind);
        std::vector<int> inputs;
        for (const int input : operations_[i].inputs)
            inputs.push_back(values[static_cast<std::size_t>(input)]);
        values[i + 1] = builder.append(operations_[i].name, std::move(kind), std::move(inputs));
    }

    ImportedModel model;
    model.graph = std::move(builder).build(spec);
    model.parameters = Parameters(model.graph.layout);
    for (const auto& [index, use] : uses) {
        const auto& item = state_.tensors[static_cast<std::size_t>(index)];
        model.parameters.view(item.name).copy_(item.tensor);
    }
    for (std::size_t i = 0; i < counters.size(); ++i) {
        const auto& tensor = state_.tensors[static_cast<std::size_t>(counters[i])].tensor;
        model.parameters.counters.select(0, static_cast<std::int64_t>(i)).copy_(tensor);
    }
    for (const auto& item : state_.order) {
        const int index = static_cast<int>(item.tensor);
        const auto& tensor = state_.tensors[item.tensor];
        const auto counter = std::find(counters.begin(), counters.end(), index);
        if (uses.count(index) > 0) {
            model.graph.state.push_back(
                {item.name, StateItem::Kind::entry, *model.graph.layout->find(tensor.name)});
        } else if (counter != counters.end()) {
            model.graph.state.push_back(
                {item.name, StateItem::Kind::counter, static_cast<std::size_t>(counter - counters.begin())});
        } else {
            model.graph.state.push_back({item.name, StateItem::Kind::fixed, model.graph.fixed.size()});
            model.graph.fixed.push_back(tensor.tensor);
        }
    }
    return model;
}

}  // namespace thalweg::model::torchscript
