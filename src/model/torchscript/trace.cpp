// Turns two recorded runs of a module, on batches of different sizes, into one Trace.
#include "trace.hpp"

#include <algorithm>
#include <memory>
#include <unordered_map>

#include "load.hpp"
#include "recorder.hpp"
#include "thalweg/core/error.hpp"
#include "thalweg/core/random.hpp"
#include "thalweg/core/text.hpp"

namespace thalweg::model::torchscript {

namespace {

namespace jit = torch::jit;

/// Goes through two traces in step and keeps what they have in common.
class Merger {
  public:
    Merger(const Recorder& recorder, Trace& trace) : recorder_(recorder), trace_(trace) {}

    void merge(jit::Graph& first, jit::Graph& second) {
        trace_.input = add_tensor(first.inputs().at(1), second.inputs().at(1), nullptr);
        const auto a = nodes_of(first), b = nodes_of(second);
        for (std::size_t i = 0; i < std::max(a.size(), b.size()); ++i) {
            if (i >= a.size() || i >= b.size() || a[i]->kind() != b[i]->kind())
                differ(i < a.size() ? a[i] : b[i]);
            merge_node(a[i], b[i]);
        }
        trace_.output = value_of(first.outputs().at(0), second.outputs().at(0), nullptr);
    }

  private:
    /// Constants and attributes are looked up where they are used.
    static std::vector<jit::Node*> nodes_of(jit::Graph& graph) {
        std::vector<jit::Node*> nodes;
        for (auto* node : graph.nodes()) {
            if (node->kind() != c10::prim::Constant && node->kind() != c10::prim::GetAttr)
                nodes.push_back(node);
        }
        return nodes;
    }

    void merge_node(jit::Node* a, jit::Node* b) {
        Node node{a->kind().toQualString(), {}, {}, source_of(*a)};
        if (a->inputs().size() != b->inputs().size() || a->outputs().size() != b->outputs().size() ||
            !a->blocks().empty())
            differ(a);
        for (std::size_t i = 0; i < a->inputs().size(); ++i)
            node.inputs.push_back(value_of(a->input(i), b->input(i), a));
        if (a->kind() == c10::prim::ListConstruct) {
            Value list;
            list.kind = Value::Kind::list;
            list.items = node.inputs;
            remember(a->output(), b->output(), std::move(list));
            return;
        }
        for (std::size_t i = 0; i < a->outputs().size(); ++i) {
            const bool tensor = static_cast<bool>(a->output(i)->type()->cast<c10::TensorType>());
            node.outputs.push_back(tensor ? add_tensor(a->output(i), b->output(i), a)
                                          : remember(a->output(i), b->output(i), list_value()));
        }
        trace_.nodes.push_back(std::move(node));
    }

    static Value list_value() {
        Value value;
        value.kind = Value::Kind::list;
        return value;
    }

    int remember(const jit::Value* a, const jit::Value* b, Value value) {
        const int index = static_cast<int>(trace_.values.size());
        trace_.values.push_back(std::move(value));
        first_[a] = index;
        second_[b] = index;
        return index;
    }

    int add_tensor(const jit::Value* a, const jit::Value* b, const jit::Node* node) {
        Value value;
        value.kind = Value::Kind::tensor;
        const auto type_a = a->type()->cast<c10::TensorType>(), type_b = b->type()->cast<c10::TensorType>();
        const auto sizes_a = type_a ? type_a->sizes().concrete_sizes() : c10::nullopt;
        const auto sizes_b = type_b ? type_b->sizes().concrete_sizes() : c10::nullopt;
        // In-place operations on integer buffers are recorded without their sizes; nobody reads them.
        if (sizes_a && sizes_b) value.extents = extents_of(*sizes_a, *sizes_b, node);
        return remember(a, b, std::move(value));
    }

    Extents extents_of(const std::vector<std::int64_t>& a, const std::vector<std::int64_t>& b,
                       const jit::Node* node) const {
        Extents extents;
        if (a.size() != b.size()) differ(node);
        for (std::size_t i = 0; i < a.size(); ++i) {
            if (a[i] == b[i]) {
                extents.push_back({a[i], false});
            } else if (a[i] % first_batch == 0 && a[i] / first_batch * second_batch == b[i]) {
                extents.push_back({a[i] / first_batch, true});
            } else {
                recorder_.refuse("the result of " + std::string(node->kind().toQualString()) + " at " +
                                 source_of(*node) + " is " + core::shape_text(a) + " for a batch of " +
                                 std::to_string(first_batch) + " and " + core::shape_text(b) +
                                 " for one of " + std::to_string(second_batch) +
                                 ": its size depends on the batch or the data in a way that no graph has");
            }
        }
        return extents;
    }

    int value_of(const jit::Value* a, const jit::Value* b, const jit::Node* user) {
        const auto known_a = first_.find(a);
        const auto known_b = second_.find(b);
        if (known_a != first_.end() && known_b != second_.end() && known_a->second == known_b->second)
            return known_a->second;
        Value value;
        const auto* node_a = a->node();
        const auto* node_b = b->node();
        if (node_a->kind() == c10::prim::GetAttr && node_b->kind() == c10::prim::GetAttr) {
            const int index = recorder_.state_index(node_a);
            if (index != recorder_.state_index(node_b)) differ(user);
            if (index < 0) {
                value.constant = value.other = recorder_.attribute(node_a);
            } else {
                value.kind = Value::Kind::state;
                value.state = static_cast<std::size_t>(index);
            }
            return remember(a, b, std::move(value));
        }
        const auto constant_a = jit::toIValue(a), constant_b = jit::toIValue(b);
        if (!constant_a || !constant_b) differ(user);
        value.constant = *constant_a;
        value.other = *constant_b;
        const int index = static_cast<int>(trace_.values.size());
        trace_.values.push_back(std::move(value));
        return index;  // not remembered: equal numbers share a node in one trace and not in the other
    }

    [[noreturn]] void differ(const jit::Node* node) const {
        recorder_.refuse(
            "two runs with different inputs took different operations" +
            (node == nullptr
                 ? std::string()
                 : ", first at " + std::string(node->kind().toQualString()) + " (" + source_of(*node) + ")") +
            ": control flow that depends on the data or the batch's size, which a graph cannot have");
    }

    const Recorder& recorder_;
    Trace& trace_;
    std::unordered_map<const jit::Value*, int> first_, second_;
};

/// Inputs that differ in sign and size, so that a data-dependent way is taken by some and not by others.
at::Tensor sample_input(const Sizes& shape, std::int64_t batch, bool tokens, int variant) {
    Sizes sizes{batch};
    sizes.insert(sizes.end(), shape.begin(), shape.end());
    core::Random random(0, "torchscript", variant);
    auto input = at::empty(sizes, at::kFloat);
    auto* data = input.data_ptr<float>();
    for (std::int64_t i = 0; i < input.numel(); ++i) {
        const auto number = static_cast<float>(random.uniform(-1.0, 1.0));
        data[i] = tokens             ? static_cast<float>(random.below(2))
                  : variant % 2 == 0 ? number
                                     : -3.0F * std::abs(number);
    }
    return tokens ? input.to(at::kLong) : input;
}

/// Of the interpreter's traceback the exception alone.
std::string what_failed(const std::string& traceback) {
    for (const std::string kind : {"RuntimeError: ", "Exception: "}) {
        const auto found = traceback.rfind(kind);
        if (found != std::string::npos)
            return traceback.substr(found + kind.size(), traceback.find('\n', found) - found - kind.size());
    }
    return traceback.substr(0, traceback.find('\n'));
}

}  // namespace

Trace trace_module(const std::filesystem::path& path, const std::string& content, const Sizes& input_shape) {
    auto module = load_module(path, content);
    const auto loaded = std::make_shared<LoadedState>(read_state(module, path));
    Recorder recorder(path, module, *loaded);
    Trace trace;
    trace.state = loaded->state;

    // In training mode, so that dropout is recorded where evaluation leaves it out.
    module.train(true);
    std::string complaint;
    const auto record = [&](std::int64_t batch, int variant) {
        return recorder.record(sample_input(input_shape, batch, trace.tokens, variant));
    };
    std::shared_ptr<jit::Graph> first;
    for (const bool tokens : {false, true}) {
        trace.tokens = tokens;
        try {
            first = record(first_batch, 0);
            break;
        } catch (const core::Error&) {
            throw;
        } catch (const std::exception& error) {
            if (complaint.empty()) complaint = what_failed(error.what());
        }
    }
    if (!first) {
        recorder.refuse("the module cannot be run on inputs of " + core::shape_text(input_shape) +
                        " (and the batch before it), of floats or of whole numbers: " + complaint);
    }
    try {
        Merger(recorder, trace).merge(*first, *record(second_batch, 1));
        Trace other;
        other.state = trace.state;
        Merger(recorder, other).merge(*record(first_batch, 2), *record(second_batch, 3));
        const auto same_kind = [](const Node& a, const Node& b) { return a.kind == b.kind; };
        if (!std::equal(other.nodes.begin(), other.nodes.end(), trace.nodes.begin(), trace.nodes.end(),
                        same_kind))
            recorder.refuse(
                "runs with different inputs took different operations, which a graph cannot have");
    } catch (const core::Error&) {
        throw;
    } catch (const std::exception& error) {
        recorder.refuse("the module runs on one input and fails on another: " +
                        core::first_paragraph(error.what()));
    }
    loaded->restore();
    module.eval();
    trace.evaluate = [module, loaded](const at::Tensor& input) mutable {
        const at::NoGradGuard no_grad;
        // LibTorch 2.6 never comes back from compiling some modules (hard-swish after a depthwise convolution).
        const jit::GraphOptimizerEnabledGuard as_written(false);
        return module.forward({input}).toTensor();
    };
    return trace;
}

}  // namespace thalweg::model::torchscript
