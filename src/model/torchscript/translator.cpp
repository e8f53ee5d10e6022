#include "translator.hpp"

#include <torch/types.h>

#include <algorithm>
#include <cmath>

#include "thalweg/core/error.hpp"
#include "thalweg/core/text.hpp"

namespace thalweg::model::torchscript {

namespace {

constexpr const char* by_the_way =
    "a list or number of it depends on the size of the batch, or differs from run to run";

std::optional<double> as_number(const c10::IValue& number) {
    if (number.isDouble()) return number.toDouble();
    if (number.isInt()) return static_cast<double>(number.toInt());
    if (number.isBool()) return number.toBool() ? 1.0 : 0.0;
    if (number.isTensor() && number.toTensor().dim() == 0)
        return number.toTensor().to(at::kDouble).item<double>();
    return {};
}

/// A constant without the batch: along axes that have it all parts must be equal.
std::optional<at::Tensor> one_sample(at::Tensor tensor, const Extents& extents) {
    for (std::size_t i = 0; i < extents.size(); ++i) {
        if (!extents[i].batch) continue;
        if (extents[i].count != 1) return {};
        const auto axis = static_cast<std::int64_t>(i);
        const auto first = tensor.narrow(axis, 0, 1);
        if (!tensor.equal(first.expand_as(tensor))) return {};
        tensor = first;
    }
    return tensor;
}

}  // namespace

const Table& handlers() {
    static const Table table = [] {
        Table all;
        for (const auto add : {add_activations, add_arithmetic, add_layers, add_norms, add_pools,
                               add_recurrent, add_products, add_shapes})
            add(all);
        return all;
    }();
    return table;
}

Translator::Translator(std::filesystem::path path, const Trace& trace, const Sizes& input_shape)
    : draft(trace.state, input_shape),
      path_(std::move(path)),
      trace_(trace),
      views_(trace.values.size()),
      lists_(trace.values.size()) {
    views_[static_cast<std::size_t>(trace.input)] = plain(draft, 0);
}

int Translator::run(std::int64_t classes) {
    for (const auto& node : trace_.nodes) {
        Call call(*this, node);
        if (node.kind == "prim::ListUnpack") {
            const auto& list = lists_.at(static_cast<std::size_t>(node.inputs.at(0)));
            for (std::size_t i = 0; i < node.outputs.size(); ++i) call.write(list.at(i), i);
            continue;
        }
        std::string name = node.kind.starts_with("aten::") ? node.kind.substr(6) : node.kind;
        if (handlers().count(name) == 0 && name.ends_with('_')) name.pop_back();
        const auto found = handlers().find(name);
        if (found == handlers().end()) {
            std::vector<std::string> names;
            for (const auto& [known, handler] : handlers()) {
                if (known.front() != '_') names.push_back(known);  // the others are PyTorch's own business
            }
            call.refuse("it has no counterpart here. Supported: " + core::join(names));
        }
        try {
            found->second(call);
        } catch (const core::UsageError& error) {
            const std::string text = error.what();
            if (text.starts_with(path_.string())) throw;
            call.refuse(text);
        }
    }
    const Node output{"the output", {trace_.output}, {}, {}};
    Call call(*this, output);
    View result;
    if (!in_order(draft, call.tensor(0), result) || draft.shape(result.value) != Sizes{classes}) {
        Sizes sizes;
        for (const auto& extent : call.tensor(0).extents()) sizes.push_back(extent.batch ? -1 : extent.count);
        throw core::UsageError(path_.string() + ": the module's output has the shape " +
                               core::shape_text(sizes) +
                               " (-1: an axis with the batch in it), but logits [N, " +
                               std::to_string(classes) + "] are needed, one for each class.");
    }
    return result.value;
}

View Translator::constant_view(const Value& value, const Call& call) {
    auto tensor = value.constant.isTensor() ? value.constant.toTensor() : at::Tensor();
    auto other = value.other.isTensor() ? value.other.toTensor() : at::Tensor();
    if (!value.constant.isTensor()) {
        if (!value.constant.isInt() && !value.constant.isDouble() && !value.constant.isBool())
            call.refuse("it reads something that is no tensor");
        tensor = at::scalar_tensor(value.constant.toScalar(), at::kDouble);
        other = at::scalar_tensor(value.other.toScalar(), at::kDouble);
    }
    Extents extents;
    bool same = tensor.dim() == other.dim();
    for (std::int64_t i = 0; same && i < tensor.dim(); ++i) {
        const bool batch = tensor.size(i) != other.size(i);
        same = !batch || (tensor.size(i) == first_batch && other.size(i) == second_batch);
        extents.push_back({batch ? 1 : tensor.size(i), batch});
    }
    const auto first = same ? one_sample(tensor, extents) : std::nullopt;
    const auto second = same ? one_sample(other, extents) : std::nullopt;
    if (!first || !second || !first->equal(*second))
        call.refuse("it reads a constant that depends on the batch's size, or differs from run to run");
    if (first->is_complex()) call.refuse("it reads complex numbers");
    const auto kept = first->scalar_type() == at::kBool ? first->to(at::kFloat) : *first;
    View view = without_batch(draft, draft.constant(kept));
    for (std::size_t i = 0; i < extents.size(); ++i) {
        if (extents[i].batch) view.axes[i] = {View::batch};
    }
    return view;
}

View Translator::view_of(int index, const Call& call) {
    const auto& value = trace_.values.at(static_cast<std::size_t>(index));
    auto& known = views_[static_cast<std::size_t>(index)];
    if (known) return *known;
    if (value.kind == Value::Kind::constant) {
        known = constant_view(value, call);
    } else if (value.kind == Value::Kind::state) {
        const auto& state = trace_.state.tensors[value.state];
        known = without_batch(draft, state.parameter && !state.frozen
                                         ? draft.parameter(value.state, state.tensor.sizes().vec())
                                         : draft.constant(state.tensor));
    } else {
        call.refuse("it reads a list, or a value that is not available here, where a tensor is expected");
    }
    return *known;
}

const Value& Call::value(std::size_t input) const {
    return translator_.trace_.values.at(static_cast<std::size_t>(node_.inputs.at(input)));
}

const c10::IValue& Call::constant(std::size_t input) const {
    const auto& known = value(input);
    if (known.kind != Value::Kind::constant) refuse("its input " + std::to_string(input) + " is no constant");
    return known.constant;
}

bool Call::is_none(std::size_t input) const {
    if (input >= count()) return true;
    const auto& known = value(input);
    return known.kind == Value::Kind::constant && known.constant.isNone();
}

std::int64_t Call::integer(std::size_t input) const {
    const auto& known = constant(input);
    const auto& other = value(input).other;
    const auto read = [](const c10::IValue& number) -> std::int64_t {
        return number.isBool() ? std::int64_t{number.toBool()} : number.toInt();
    };
    if (!known.isInt() && !known.isBool())
        refuse("its input " + std::to_string(input) + " is not a whole number");
    if (read(known) != read(other)) refuse(by_the_way);
    return read(known);
}

std::int64_t Call::integer_or(std::size_t input, std::int64_t fallback) const {
    return is_none(input) ? fallback : integer(input);
}

double Call::number(std::size_t input) const {
    const auto known = maybe_number(input);
    if (!known) refuse("its input " + std::to_string(input) + " is not a number known beforehand");
    return *known;
}

bool Call::varies(std::size_t input) const {
    const auto& known = value(input);
    if (known.kind != Value::Kind::constant) return false;
    const auto first = as_number(known.constant), second = as_number(known.other);
    return first && first != second && !(std::isnan(*first) && second && std::isnan(*second));
}

std::optional<double> Call::maybe_number(std::size_t input) const {
    if (value(input).kind != Value::Kind::constant) return {};
    if (varies(input)) refuse(by_the_way);
    return as_number(value(input).constant);
}

std::vector<double> Call::numbers(std::size_t input) const {
    const auto& known = constant(input);
    if (!known.isDoubleList()) return {number(input)};
    if (known.toDoubleVector() != value(input).other.toDoubleVector()) refuse(by_the_way);
    return known.toDoubleVector();
}

Sizes Call::integers(std::size_t input) const {
    if (value(input).kind == Value::Kind::list) {
        Sizes all;
        for (const int item : value(input).items) {
            const auto& known = translator_.trace_.values.at(static_cast<std::size_t>(item));
            if (known.kind != Value::Kind::constant || !known.constant.isInt() ||
                known.constant.toInt() != known.other.toInt())
                refuse(by_the_way);
            all.push_back(known.constant.toInt());
        }
        return all;
    }
    const auto& known = constant(input);
    if (known.isInt()) return {integer(input)};
    if (!known.isIntList()) refuse("its input " + std::to_string(input) + " is not a list of whole numbers");
    const auto list = known.toIntVector();
    if (list != value(input).other.toIntVector()) refuse(by_the_way);
    return list;
}

Sizes Call::integers(std::size_t input, std::size_t rank) const {
    auto list = integers(input);
    if (list.size() == 1) list.resize(rank, list[0]);
    if (list.size() != rank) refuse("its input " + std::to_string(input) + " has not a number for each axis");
    return list;
}

std::optional<std::string> Call::maybe_text(std::size_t input) const {
    if (input >= count() || value(input).kind != Value::Kind::constant || !value(input).constant.isString())
        return {};
    return value(input).constant.toStringRef();
}

std::optional<at::Tensor> Call::maybe_constant(std::size_t input) const {
    return constant_of(node_.inputs.at(input));
}

std::optional<at::Tensor> Call::constant_of(int index) const {
    const auto& known = translator_.trace_.values.at(static_cast<std::size_t>(index));
    if (known.kind != Value::Kind::constant || !known.constant.isTensor()) return {};
    const auto& first = known.constant.toTensor();
    const auto& second = known.other.toTensor();
    if (first.sizes() != second.sizes() || !first.equal(second)) return {};
    return first;
}

View Call::tensor(std::size_t input) const {
    return translator_.view_of(node_.inputs.at(input), *this);
}

std::vector<int> Call::items(std::size_t input) const {
    if (value(input).kind != Value::Kind::list)
        refuse("its input " + std::to_string(input) + " is not a list");
    return value(input).items;
}

std::vector<View> Call::tensors(std::size_t input) const {
    const auto& list = translator_.lists_.at(static_cast<std::size_t>(node_.inputs.at(input)));
    if (!list.empty()) return list;
    std::vector<View> views;
    if (value(input).kind == Value::Kind::constant && value(input).constant.isTensorList()) {
        const auto first = value(input).constant.toTensorVector(),
                   second = value(input).other.toTensorVector();
        for (std::size_t i = 0; i < std::min(first.size(), second.size()); ++i) {
            Value item;
            item.constant = first[i];
            item.other = second[i];
            views.push_back(translator_.constant_view(item, *this));
        }
        return views;
    }
    for (const int item : items(input)) views.push_back(translator_.view_of(item, *this));
    return views;
}

int Call::state(std::size_t input, bool transposed) const {
    if (value(input).kind == Value::Kind::state)
        return transposed ? -1 : static_cast<int>(value(input).state);
    if (!transposed || value(input).kind != Value::Kind::tensor) return -1;
    const auto view = tensor(input);
    const auto* writer = draft().writer(view.value);
    const auto* read = writer == nullptr ? nullptr : std::get_if<Parameter>(&writer->kind);
    if (read == nullptr || view.axes.size() != 2 || !view.repeats.empty()) return -1;
    const auto& tensor = draft().state().tensors[static_cast<std::size_t>(read->weight)].tensor;
    if (tensor.sizes().vec() != read->shape || tensor.dim() != 2) return -1;
    const auto straight = without_batch(draft(), view.value);
    return view.axes[0] == straight.axes[1] && view.axes[1] == straight.axes[0] &&
                   view.factors == straight.factors
               ? read->weight
               : -1;
}

int Call::parameter(std::size_t input, const std::string& what) const {
    return is_none(input) ? -1 : parameter_of(node_.inputs[input], what);
}

int Call::parameter_of(int index, const std::string& what) const {
    const auto& known = translator_.trace_.values.at(static_cast<std::size_t>(index));
    if (known.kind != Value::Kind::state)
        refuse("its " + what +
               " is not a parameter of the module itself but computed, or a constant of a frozen module");
    const auto& state = draft().state().tensors[known.state];
    if (!state.parameter) refuse("its " + what + ", " + state.name + ", is a buffer, not a parameter");
    if (state.frozen) {
        refuse("its " + what + ", " + state.name +
               ", has requires_grad=False: a frozen layer would be trained here. Save the module with "
               "requires_grad_(True)");
    }
    return static_cast<int>(known.state);
}

int Call::buffer(std::size_t input) const {
    if (is_none(input)) return -1;
    const int index = state(input);
    if (index < 0) refuse("its running statistics are not buffers of the module (was it frozen?)");
    return index;
}

std::size_t Call::axis(std::size_t input, std::size_t rank) const {
    const auto given = integer(input);
    const auto number = given < 0 ? given + static_cast<std::int64_t>(rank) : given;
    if (number < 0 || number >= static_cast<std::int64_t>(rank))
        refuse("it has no axis " + std::to_string(given));
    return static_cast<std::size_t>(number);
}

const Extents& Call::extents(std::size_t output) const {
    return translator_.trace_.values.at(static_cast<std::size_t>(node_.outputs.at(output))).extents;
}

void Call::write(View view, std::size_t output) {
    translator_.views_.at(static_cast<std::size_t>(node_.outputs.at(output))) = std::move(view);
}

void Call::write_list(std::vector<View> views) {
    translator_.lists_.at(static_cast<std::size_t>(node_.outputs.at(0))) = std::move(views);
}

Draft& Call::draft() const {
    return translator_.draft;
}

std::string Call::name_of(int state) const {
    return state < 0 ? std::string()
                     : module_name(draft().state().tensors[static_cast<std::size_t>(state)].name);
}

void Call::note_symbols(std::int64_t count) const {
    translator_.symbols = translator_.symbols == 0 ? count : std::min(translator_.symbols, count);
}

void Call::refuse(const std::string& reason) const {
    throw core::UsageError(translator_.path_.string() + ": the operation " + node_.kind +
                           (node_.source.empty() ? std::string() : " (" + node_.source + ")") +
                           " cannot be imported: " + reason + ".");
}

void Call::refuse_batch() const {
    refuse(
        "it mixes the samples of a batch, or cuts the batch's axis, while a model's outputs for one sample "
        "may "
        "depend on that sample only");
}

}  // namespace thalweg::model::torchscript
