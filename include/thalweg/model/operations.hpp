#pragma once

#include <cstdint>
#include <string>
#include <variant>
#include <vector>

namespace thalweg::model {

// The operations of a graph. Axes are counted as PyTorch counts them, with the batch as axis 0; no operation touches the
// batch axis. Numbers named after entries index Layout::entries(); -1 means "has none".
//
// `fields` names the members once, for everything that goes through them (numbering, describing, comparing, reading and
// writing): `entry` is an index of a Layout entry, `counter` one of its counters, `value` an option.

using Sizes = std::vector<std::int64_t>;

/// Over the last axis.
struct Linear {
    int weight = -1;  ///< [out, in]
    int bias = -1;    ///< [out]
    static constexpr const char* name = "linear";
    template <class Self, class Visit>
    static void fields(Self& self, Visit& visit) {
        visit.entry("weight", self.weight);
        visit.entry("bias", self.bias);
    }
};

/// Convolution over one, two or three spatial axes of [N, C, …]; every list has an item for each.
struct Convolution {
    int weight = -1;  ///< [out, in / groups, kernel…]; transposed: [in, out / groups, kernel…]
    int bias = -1;    ///< [out]
    Sizes stride, padding, dilation;
    Sizes output_padding;  ///< of a transposed convolution; zeros otherwise
    std::int64_t groups = 1;
    bool transposed = false;
    static constexpr const char* name = "convolution";
    template <class Self, class Visit>
    static void fields(Self& self, Visit& visit) {
        visit.entry("weight", self.weight);
        visit.entry("bias", self.bias);
        visit.value("stride", self.stride);
        visit.value("padding", self.padding);
        visit.value("dilation", self.dilation);
        visit.value("output_padding", self.output_padding);
        visit.value("groups", self.groups);
        visit.value("transposed", self.transposed);
    }
};

/// Over axis 1 of [N, C, …].
struct BatchNorm {
    int weight = -1, bias = -1;
    int running_mean = -1, running_var = -1;
    int counter = -1;  ///< index among Layout::counters()
    double momentum = 0.1;
    double epsilon = 1e-5;
    static constexpr const char* name = "batch_norm";
    template <class Self, class Visit>
    static void fields(Self& self, Visit& visit) {
        visit.entry("weight", self.weight);
        visit.entry("bias", self.bias);
        visit.entry("running_mean", self.running_mean);
        visit.entry("running_var", self.running_var);
        visit.counter("counter", self.counter);
        visit.value("momentum", self.momentum);
        visit.value("epsilon", self.epsilon);
    }
};

/// Over the last `axes` axes, whose shape the weight has; or, `channels_first`, over axis 1 at each position of an image,
/// as ConvNeXt does, so that channels stay permutable.
struct LayerNorm {
    int weight = -1, bias = -1;
    std::int64_t axes = 1;
    bool channels_first = false;
    double epsilon = 1e-5;
    static constexpr const char* name = "layer_norm";
    template <class Self, class Visit>
    static void fields(Self& self, Visit& visit) {
        visit.entry("weight", self.weight);
        visit.entry("bias", self.bias);
        visit.value("axes", self.axes);
        visit.value("channels_first", self.channels_first);
        visit.value("epsilon", self.epsilon);
    }
};

/// Over the positions and the channels of each of `groups` groups of neighbouring channels (axis 1). As many groups as
/// channels: an instance norm.
struct GroupNorm {
    int weight = -1, bias = -1;
    std::int64_t groups = 1;
    double epsilon = 1e-5;
    static constexpr const char* name = "group_norm";
    template <class Self, class Visit>
    static void fields(Self& self, Visit& visit) {
        visit.entry("weight", self.weight);
        visit.entry("bias", self.bias);
        visit.value("groups", self.groups);
        visit.value("epsilon", self.epsilon);
    }
};

enum class ActivationKind {
    relu,
    tanh,
    gelu,
    gelu_tanh,   ///< gelu by its approximation with tanh
    leaky_relu,  ///< first: the slope below zero
    relu6,
    elu,  ///< first: α
    silu,
    sigmoid,
    hard_swish,
    hard_sigmoid,
    hard_tanh,  ///< first, second: the limits
    softplus,
};
std::string activation_name(ActivationKind kind);

struct Activation {
    ActivationKind kind = ActivationKind::relu;
    double first = 0, second = 0;
    static constexpr const char* name = "activation";
    template <class Self, class Visit>
    static void fields(Self& self, Visit& visit) {
        visit.value("kind", self.kind);
        visit.value("first", self.first);
        visit.value("second", self.second);
    }
};

/// max(0, x) + a·min(0, x), with a slope a for each channel (axis 1), or one for all.
struct PRelu {
    int weight = -1;  ///< [C] or [1]
    static constexpr const char* name = "prelu";
    template <class Self, class Visit>
    static void fields(Self& self, Visit& visit) {
        visit.entry("weight", self.weight);
    }
};

struct Softmax {
    std::int64_t axis = 1;
    bool log = false;
    static constexpr const char* name = "softmax";
    template <class Self, class Visit>
    static void fields(Self& self, Visit& visit) {
        visit.value("axis", self.axis);
        visit.value("log", self.log);
    }
};

/// Zeroes each element with probability `p` while training and scales the others by 1/(1 − p).
struct Dropout {
    double p = 0.5;
    static constexpr const char* name = "dropout";
    template <class Self, class Visit>
    static void fields(Self& self, Visit& visit) {
        visit.value("p", self.p);
    }
};

/// Over one, two or three spatial axes of [N, C, …].
struct MaxPool {
    Sizes kernel, stride, padding, dilation;
    bool ceil = false;
    static constexpr const char* name = "max_pool";
    template <class Self, class Visit>
    static void fields(Self& self, Visit& visit) {
        visit.value("kernel", self.kernel);
        visit.value("stride", self.stride);
        visit.value("padding", self.padding);
        visit.value("dilation", self.dilation);
        visit.value("ceil", self.ceil);
    }
};

/// As MaxPool.
struct AvgPool {
    Sizes kernel, stride, padding;
    bool ceil = false;
    bool count_padding = true;
    static constexpr const char* name = "avg_pool";
    template <class Self, class Visit>
    static void fields(Self& self, Visit& visit) {
        visit.value("kernel", self.kernel);
        visit.value("stride", self.stride);
        visit.value("padding", self.padding);
        visit.value("ceil", self.ceil);
        visit.value("count_padding", self.count_padding);
    }
};

/// The spatial axes of [N, C, …] to `output` positions each.
struct AdaptivePool {
    Sizes output;
    bool max = false;
    static constexpr const char* name = "adaptive_pool";
    template <class Self, class Visit>
    static void fields(Self& self, Visit& visit) {
        visit.value("output", self.output);
        visit.value("max", self.max);
    }
};

/// [N, …] to [N, product of the rest].
struct Flatten {
    static constexpr const char* name = "flatten";
    template <class Self, class Visit>
    static void fields(Self&, Visit&) {}
};

/// [N, …] to [N, shape…]: the same elements in the same order.
struct Reshape {
    Sizes shape;
    static constexpr const char* name = "reshape";
    template <class Self, class Visit>
    static void fields(Self& self, Visit& visit) {
        visit.value("shape", self.shape);
    }
};

/// Axis k of the output is axis order[k] of the input; order[0] is 0.
struct Permute {
    Sizes order;
    static constexpr const char* name = "permute";
    template <class Self, class Visit>
    static void fields(Self& self, Visit& visit) {
        visit.value("order", self.order);
    }
};

/// Repeats axes of size 1 until a sample has this shape.
struct Expand {
    Sizes shape;
    static constexpr const char* name = "expand";
    template <class Self, class Visit>
    static void fields(Self& self, Visit& visit) {
        visit.value("shape", self.shape);
    }
};

/// All inputs one after another along `axis`.
struct Cat {
    std::int64_t axis = 1;
    static constexpr const char* name = "cat";
    template <class Self, class Visit>
    static void fields(Self& self, Visit& visit) {
        visit.value("axis", self.axis);
    }
};

/// Elements start, start + step, … below `end` of an axis.
struct Slice {
    std::int64_t axis = 1, start = 0, end = 0, step = 1;
    static constexpr const char* name = "slice";
    template <class Self, class Visit>
    static void fields(Self& self, Visit& visit) {
        visit.value("axis", self.axis);
        visit.value("start", self.start);
        visit.value("end", self.end);
        visit.value("step", self.step);
    }
};

/// first + factor · second, broadcasting.
struct Add {
    double factor = 1;
    static constexpr const char* name = "add";
    template <class Self, class Visit>
    static void fields(Self& self, Visit& visit) {
        visit.value("factor", self.factor);
    }
};

/// first · second, broadcasting.
struct Multiply {
    static constexpr const char* name = "multiply";
    template <class Self, class Visit>
    static void fields(Self&, Visit&) {}
};

/// first ÷ second, broadcasting.
struct Divide {
    static constexpr const char* name = "divide";
    template <class Self, class Visit>
    static void fields(Self&, Visit&) {}
};

/// factor · x + offset.
struct Affine {
    double factor = 1, offset = 0;
    static constexpr const char* name = "affine";
    template <class Self, class Visit>
    static void fields(Self& self, Visit& visit) {
        visit.value("factor", self.factor);
        visit.value("offset", self.offset);
    }
};

/// first [N, …, I, K] · second [N, …, K, J], the axes between broadcast.
struct MatMul {
    static constexpr const char* name = "matmul";
    template <class Self, class Visit>
    static void fields(Self&, Visit&) {}
};

/// Scaled dot-product attention of `heads` heads: softmax(QKᵀ/√d)V from queries, keys and values [N, T, E], each head on
/// its own E / heads neighbouring channels (Vaswani et al. 2017). `causal`: a position sees itself and those before it.
struct Attention {
    std::int64_t heads = 1;
    bool causal = false;
    static constexpr const char* name = "attention";
    template <class Self, class Visit>
    static void fields(Self& self, Visit& visit) {
        visit.value("heads", self.heads);
        visit.value("causal", self.causal);
    }
};

/// The mean or sum over `axes`, which are kept with size 1 or left out.
struct Reduce {
    Sizes axes;
    bool keep = false;
    bool mean = true;
    static constexpr const char* name = "reduce";
    template <class Self, class Visit>
    static void fields(Self& self, Visit& visit) {
        visit.value("axes", self.axes);
        visit.value("keep", self.keep);
        visit.value("mean", self.mean);
    }
};

/// Two spatial axes to `size`: the nearest neighbour, or bilinear.
struct Upsample {
    Sizes size;
    bool bilinear = false;
    bool align_corners = false;
    static constexpr const char* name = "upsample";
    template <class Self, class Visit>
    static void fields(Self& self, Visit& visit) {
        visit.value("size", self.size);
        visit.value("bilinear", self.bilinear);
        visit.value("align_corners", self.align_corners);
    }
};

/// `value` before and after the last axes: amounts as torch.nn.functional.pad takes them (last axis first, two each;
/// negative ones cut).
struct Pad {
    Sizes amounts;
    double value = 0;
    static constexpr const char* name = "pad";
    template <class Self, class Visit>
    static void fields(Self& self, Visit& visit) {
        visit.value("amounts", self.amounts);
        visit.value("value", self.value);
    }
};

/// Rows of the weight chosen by the input's elements, which hold whole numbers: [N, …] to [N, …, channels].
struct Embedding {
    int weight = -1;  ///< [symbols, channels]
    static constexpr const char* name = "embedding";
    template <class Self, class Visit>
    static void fields(Self& self, Visit& visit) {
        visit.entry("weight", self.weight);
    }
};

/// No input: a trainable tensor as a value, the same for every sample (positional parameters, class tokens).
struct Parameter {
    int weight = -1;
    Sizes shape;  ///< as a sample's
    static constexpr const char* name = "parameter";
    template <class Self, class Visit>
    static void fields(Self& self, Visit& visit) {
        visit.entry("weight", self.weight);
        visit.value("shape", self.shape);
    }
};

/// No input: one of ModelGraph::constants as a value, the same for every sample.
struct Constant {
    std::int64_t index = 0;
    Sizes shape;  ///< as a sample's
    static constexpr const char* name = "constant";
    template <class Self, class Visit>
    static void fields(Self& self, Visit& visit) {
        visit.value("index", self.index);
        visit.value("shape", self.shape);
    }
};

/// A layer of long short-term memory over [N, T, in], from a zero state: [N, T, hidden].
struct Lstm {
    int weight_input = -1;   ///< [4·hidden, in]: input, forget, cell and output gate
    int weight_hidden = -1;  ///< [4·hidden, hidden]
    int bias_input = -1, bias_hidden = -1;
    static constexpr const char* name = "lstm";
    template <class Self, class Visit>
    static void fields(Self& self, Visit& visit) {
        visit.entry("weight_input", self.weight_input);
        visit.entry("weight_hidden", self.weight_hidden);
        visit.entry("bias_input", self.bias_input);
        visit.entry("bias_hidden", self.bias_hidden);
    }
};

using OperationKind = std::variant<Linear, Convolution, BatchNorm, LayerNorm, GroupNorm, Activation, PRelu,
                                   Softmax, Dropout, MaxPool, AvgPool, AdaptivePool, Flatten, Reshape,
                                   Permute, Expand, Cat, Slice, Add, Multiply, Divide, Affine, MatMul,
                                   Attention, Reduce, Upsample, Pad, Embedding, Parameter, Constant, Lstm>;

/// One step of the graph: reads values, writes one value. Value 0 is the input; operation i of a graph writes
/// value i + 1.
struct Operation {
    /// The module's name (`layers.0`); for modules without parameters the kind with a number (`relu_1`).
    std::string name;
    OperationKind kind;
    std::vector<int> inputs;
    int output = 0;
};

/// `linear`; of an activation which one: `relu`.
std::string kind_name(const OperationKind& kind);
/// The options that are not entries, for messages: ` stride 1x1 groups 1`.
std::string options_text(const OperationKind& kind);

/// Shape of what an operation writes, for one sample. `inputs`: shapes of what it reads; `entry_shape(i)`: of entry i.
/// ShapeError, a UsageError that names the operation (`name`) and the shapes, when they do not fit.
Sizes output_shape(const std::string& name, const OperationKind& kind, const std::vector<Sizes>& inputs,
                   const std::vector<Sizes>& entry_shapes);

}  // namespace thalweg::model
