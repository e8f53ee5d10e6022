// Runs of a module under LibTorch's tracer.
#include "recorder.hpp"

#include <torch/csrc/jit/frontend/tracer.h>
#include <torch/csrc/jit/passes/constant_propagation.h>
#include <torch/csrc/jit/passes/dead_code_elimination.h>
#include <torch/csrc/jit/passes/inliner.h>
#include <torch/csrc/jit/runtime/interpreter.h>

#include <algorithm>
#include <functional>
#include <set>
#include <sstream>
#include <unordered_set>

#include "thalweg/core/error.hpp"

namespace thalweg::model::torchscript {

namespace jit = torch::jit;

namespace {

/// The innermost line that is not PyTorch's own; the innermost one when all are.
jit::SourceRange own_line(const std::vector<jit::StackEntry>& stack) {
    for (const auto& entry : stack) {
        const auto original = entry.range.findSourceRangeThatGenerated();
        if (!original) continue;
        const auto place = original->file_line_col();
        if (place && !std::get<0>(*place).empty() && std::get<0>(*place).find("/torch/") == std::string::npos)
            return entry.range;
    }
    return stack.front().range;
}
/// The nodes of the run in progress that were recorded under torch.no_grad(). Not a member, because the tracer takes no
/// more than a plain function.
thread_local std::unordered_set<const jit::Node*> without_gradient;

void note_origin(jit::Node* node) {
    const auto stack = jit::currentCallstack();
    if (!stack.empty()) node->setSourceRange(own_line(stack));
    if (!at::GradMode::is_enabled()) without_gradient.insert(node);
}

/// aten::size as the number it was; which of them are the batch's is found by comparing two traces.
void fix_sizes(jit::Graph& graph) {
    for (auto* node : graph.nodes()) {
        if (node->kind() != c10::Symbol::fromQualString("aten::size") || node->inputs().size() != 2) continue;
        const auto axis = jit::toIValue(node->input(1));
        const auto type = node->input(0)->type()->cast<c10::TensorType>();
        const auto sizes = type ? type->sizes().concrete_sizes() : c10::nullopt;
        if (!axis || !axis->isInt() || !sizes) continue;
        const auto rank = static_cast<std::int64_t>(sizes->size());
        const auto index = axis->toInt() < 0 ? axis->toInt() + rank : axis->toInt();
        const jit::WithInsertPoint here(node);
        node->output()->replaceAllUsesWith(graph.insertConstant(sizes->at(static_cast<std::size_t>(index))));
    }
}

}  // namespace

/// A scripted module's nodes carry the line itself, a traced one's Python's call stack as text:
/// `/…/torch/nn/functional.py(1457): relu`, newline, `/…/net.py(42): forward`, ….
std::string source_of(const jit::Node& node) {
    const auto original = node.sourceRange().findSourceRangeThatGenerated();
    const auto& range = original ? *original : node.sourceRange();
    if (!range.source()) return {};
    std::istringstream lines(range.source()->text_str().str());
    std::string first;
    for (std::string line; std::getline(lines, line);) {
        const auto open = line.rfind('(');
        const auto close = line.find("): ", open == std::string::npos ? 0 : open);
        if (open == std::string::npos || close == std::string::npos || line.front() == ' ') break;
        const auto place = line.substr(0, open) + ":" + line.substr(open + 1, close - open - 1);
        if (first.empty()) first = place;
        if (line.find("/torch/") == std::string::npos) return place;
    }
    if (!first.empty()) return first;
    const auto place = range.file_line_col();
    if (!place) return {};
    return std::get<0>(*place) + ":" + std::to_string(std::get<1>(*place));
}

Recorder::Recorder(const std::filesystem::path& path, jit::Module module, const LoadedState& loaded)
    : path_(path), module_(std::move(module)), loaded_(loaded) {}

Recorder::~Recorder() {
    jit::tracer::setRecordSourceLocation([](jit::Node*) {});
}

void Recorder::refuse(const std::string& reason) const {
    throw core::UsageError(path_.string() + ": " + reason + ".");
}

std::shared_ptr<jit::Graph> Recorder::record(const at::Tensor& input) {
    without_gradient.clear();
    jit::tracer::setRecordSourceLocation(note_origin);
    // With gradients, so that a torch.no_grad() of the module's own shows.
    const at::AutoGradMode with_gradients(true);
    const auto run = [&](jit::Stack inputs) {
        auto output = module_.forward(std::move(inputs));
        if (!output.isTensor())
            refuse("its forward returns " + output.type()->str() + ", not one tensor of logits [N, classes]");
        const auto& graph = *jit::tracer::getTracingState()->graph;
        refuse_decisions(graph, output.toTensor());
        refuse_untrained(graph);
        return jit::Stack{std::move(output)};
    };
    auto traced = jit::tracer::trace(
        {input}, run, [](const at::Tensor&) { return std::string(); }, true, false, &module_);
    auto graph = traced.first->graph;
    jit::Inline(*graph);
    jit::ConstantPropagation(graph);
    fix_sizes(*graph);
    fix_buffers(*graph);
    jit::ConstantPropagation(graph);
    jit::EliminateDeadCode(graph);
    return graph;
}

/// A number that is computed from the input and used by no operation has been read by the code, as in
/// `if x.sum() > 0` and `x.item()`: another input may take another way.
void Recorder::refuse_decisions(const jit::Graph& graph, const at::Tensor& output) const {
    std::unordered_set<const jit::Value*> from_input;
    for (const auto* value : graph.inputs()) {
        if (value->type()->cast<c10::TensorType>()) from_input.insert(value);
    }
    const auto* result = jit::tracer::getTracingState()->hasValue(output)
                             ? jit::tracer::getTracingState()->getValue(output)
                             : nullptr;
    for (const auto* node : graph.nodes()) {
        const bool depends =
            std::any_of(node->inputs().begin(), node->inputs().end(),
                        [&](const jit::Value* value) { return from_input.count(value) > 0; });
        if (!depends || node->kind() == c10::Symbol::fromQualString("aten::size")) continue;
        for (const auto* value : node->outputs()) {
            from_input.insert(value);
            const auto type = value->type()->cast<c10::TensorType>();
            if (!type || value == result || value->hasUses()) continue;
            const auto sizes = type->sizes().concrete_sizes();
            if (!sizes || !sizes->empty()) continue;
            refuse("the code reads a number that depends on the data, the result of " +
                   std::string(node->kind().toQualString()) + " at " + source_of(*node) +
                   ", as an 'if' or .item() does: a graph has the same operations for every input. Write it "
                   "with operations on whole tensors, or leave it out");
        }
    }
}

/// Operations under torch.no_grad() may compute with numbers and buffers, not with what is trained: here every parameter
/// of the graph is trained.
void Recorder::refuse_untrained(const jit::Graph& graph) const {
    const std::function<bool(const jit::Value*)> is_trained = [&](const jit::Value* value) {
        const auto* node = value->node();
        if (node->kind() == c10::prim::ListConstruct || node->kind() == c10::prim::TupleConstruct)
            return std::any_of(node->inputs().begin(), node->inputs().end(), is_trained);
        const auto type = value->type()->cast<c10::TensorType>();
        return type && type->requiresGrad().value_or(false);
    };
    for (const auto* node : graph.nodes()) {
        if (without_gradient.count(node) == 0 || node->kind() == c10::Symbol::fromQualString("aten::size") ||
            !std::any_of(node->inputs().begin(), node->inputs().end(), is_trained))
            continue;
        refuse(
            std::string(node->kind().toQualString()) + " at " + source_of(*node) +
            " runs under torch.no_grad(): what comes before it would not be trained in Python, while every "
            "parameter is trained here. Leave it out, or make what comes before it a buffer");
    }
}

/// Buffers that only are read become constants, so that arithmetic on masks and positions is done once.
void Recorder::fix_buffers(jit::Graph& graph) const {
    const std::set<std::string> statistics{"aten::batch_norm", "aten::instance_norm"};
    std::vector<jit::Node*> reads;
    for (auto* node : graph.nodes()) {
        if (node->kind() != c10::prim::GetAttr || !node->output()->type()->cast<c10::TensorType>()) continue;
        reads.push_back(node);
    }
    std::set<int> written;
    for (auto* node : reads) {
        for (const auto& use : node->output()->uses()) {
            const std::string kind = use.user->kind().toQualString();
            if (kind.back() == '_' || (statistics.count(kind) > 0 && (use.offset == 3 || use.offset == 4)))
                written.insert(state_index(node));
        }
    }
    for (auto* node : reads) {
        const int index = state_index(node);
        if (index < 0 || written.count(index) > 0) continue;
        const auto& tensor = loaded_.state.tensors[static_cast<std::size_t>(index)];
        if (tensor.parameter) continue;
        const jit::WithInsertPoint here(node);
        node->output()->replaceAllUsesWith(graph.insertConstant(tensor.tensor));
    }
}

c10::IValue Recorder::attribute(const jit::Node* node) const {
    const auto* from = node->input();
    const auto owner =
        from->node()->kind() == c10::prim::GetAttr ? attribute(from->node()) : c10::IValue(module_._ivalue());
    return owner.toObjectRef().getAttr(node->s(c10::attr::name));
}

int Recorder::state_index(const jit::Node* node) const {
    const auto value = attribute(node);
    return value.isTensor() && value.toTensor().defined() ? loaded_.find(value.toTensor()) : -1;
}

}  // namespace thalweg::model::torchscript
