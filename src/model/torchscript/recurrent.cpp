#include <torch/types.h>

#include "translator.hpp"

namespace thalweg::model::torchscript {

namespace {

/// lstm(input, [h0, c0], weights, biases, layers, dropout, train, bidirectional, batch_first): outputs, h, c.
void lstm(Call& call) {
    auto& draft = call.draft();
    if (call.count() != 9) call.refuse("packed sequences are not supported");
    if (call.flag(7)) call.refuse("only LSTMs of one direction are supported");
    for (const auto& state : call.tensors(1)) {
        const auto* writer = draft.writer(state.value);
        const auto* known = writer == nullptr ? nullptr : std::get_if<Constant>(&writer->kind);
        if (known == nullptr || draft.constant_of(known->index).count_nonzero().item<std::int64_t>() != 0)
            call.refuse("only an initial state of zeros is supported");
    }
    const bool biases = call.flag(3), batch_first = call.flag(8);
    const auto layers = static_cast<std::size_t>(call.integer(4));
    const auto dropout = call.number(5);
    const auto weights = call.items(2);
    const std::size_t each = biases ? 4 : 2;
    if (weights.size() != layers * each) call.refuse("LSTMs with projections are not supported");

    auto view = solid(draft, call.tensor(0));
    if (view.axes.size() != 3) call.refuse("it needs [batch, positions, features]");
    const std::size_t batch = batch_first ? 0 : 1, time = 1 - batch;
    if (view.axes[batch] != Ids{View::batch}) call.refuse_batch();
    int value = arrange(draft, view, {view.axes[time], view.axes[2]}).value;
    std::vector<int> last;
    for (std::size_t layer = 0; layer < layers; ++layer) {
        const auto* weight = &weights[layer * each];
        Lstm operation;
        operation.weight_input = call.parameter_of(weight[0], "weight");
        operation.weight_hidden = call.parameter_of(weight[1], "weight");
        if (biases) {
            operation.bias_input = call.parameter_of(weight[2], "bias");
            operation.bias_hidden = call.parameter_of(weight[3], "bias");
        }
        if (layer > 0 && dropout > 0.0) value = draft.emit(Dropout{dropout}, {value});
        value = draft.emit(operation, {value},
                           call.name_of(operation.weight_input) + "_l" + std::to_string(layer));
        const auto steps = draft.shape(value)[0];
        last.push_back(draft.slice(value, {1, steps - 1, steps, 1}));
    }
    auto outputs = plain(draft, value);
    if (!batch_first) std::swap(outputs.axes[0], outputs.axes[1]);
    call.write(std::move(outputs), 0);
    auto hidden = plain(draft, layers == 1 ? last[0] : draft.emit(Cat{1}, last));
    std::swap(hidden.axes[0], hidden.axes[1]);
    call.write(std::move(hidden), 1);  // the cells' states are nowhere: reading them is refused
}

}  // namespace

void add_recurrent(Table& table) {
    table["lstm"] = lstm;
}

}  // namespace thalweg::model::torchscript
