#include <optional>
#include <string>
#include <vector>

#include "choices.hpp"
#include "thalweg/core/registry.hpp"

namespace thalweg::model::cnn {

namespace {

/// One item of `layers`: a convolution, a pool or a linear layer.
struct Layer {
    enum class Kind { conv, max_pool, average_pool, linear } kind;
    std::int64_t width = 0;  ///< channels or units; a pool's kernel
    std::int64_t kernel = 0;
    std::int64_t stride = 1;
    std::int64_t padding = 0;
};

/// The values of `keys` that an item gives, refused unless the item's kind (`of`) has such a thing.
void refuse_keys(const core::Value& item, const std::string& of, const std::vector<std::string>& keys) {
    for (const auto& key : keys) {
        if (item.has(key)) item[key].reject("a " + of + " has no '" + key + "'");
    }
}

std::int64_t value_or(const core::Value& item, const std::string& key, std::int64_t fallback) {
    return item.has(key) ? item[key].as_int() : fallback;
}

Layer read_layer(const core::Value& item) {
    const int kinds = int{item.has("conv")} + int{item.has("pool")} + int{item.has("linear")};
    if (kinds != 1) {
        item.reject(
            "a layer is one of {conv: CHANNELS, kernel: K, padding: 0, stride: 1}, {pool: K, type: max|avg, "
            "stride: K} and {linear: UNITS}");
    }
    if (item.has("conv")) {
        refuse_keys(item, "convolution", {"type"});
        if (!item.has("kernel")) item.reject("a convolution needs its 'kernel' (the width of the square)");
        return {Layer::Kind::conv, item["conv"].as_int(), item["kernel"].as_int(),
                value_or(item, "stride", 1), value_or(item, "padding", 0)};
    }
    if (item.has("pool")) {
        refuse_keys(item, "pool", {"kernel", "padding"});
        const bool average = item.has("type") && item["type"].as_text() == "avg";
        const auto kernel = item["pool"].as_int();
        return {average ? Layer::Kind::average_pool : Layer::Kind::max_pool, 0, kernel,
                value_or(item, "stride", kernel), 0};
    }
    refuse_keys(item, "linear layer", {"kernel", "padding", "stride", "type"});
    return {Layer::Kind::linear, item["linear"].as_int()};
}

std::vector<Layer> preset_layers(const std::string& name) {
    using Kind = Layer::Kind;
    const Layer pool{Kind::max_pool, 0, 2, 2, 0};
    if (name == "niid_bench") {
        return {{Kind::conv, 6, 5}, pool, {Kind::conv, 16, 5}, pool, {Kind::linear, 120}, {Kind::linear, 84}};
    }
    return {{Kind::conv, 32, 5, 1, 2}, pool, {Kind::conv, 64, 5, 1, 2}, pool, {Kind::linear, 512}};
}

std::vector<Layer> read_layers(const core::Value& options) {
    if (options.has("layers") == options.has("preset")) {
        options.reject(
            "give exactly one of 'layers' (a list such as [{conv: 6, kernel: 5}, {pool: 2}, {linear: 120}]) "
            "and "
            "'preset' (niid_bench or mcmahan)");
    }
    if (options.has("preset")) return preset_layers(options["preset"].as_text());
    std::vector<Layer> layers;
    bool flat = false;
    for (const auto& item : options["layers"].items()) {
        layers.push_back(read_layer(item));
        const bool linear = layers.back().kind == Layer::Kind::linear;
        if (flat && !linear) item.reject("convolutions and pools come before the first linear layer");
        flat = linear;
    }
    return layers;
}

/// Appends layers one after another and numbers their names.
class Chain {
  public:
    Chain(const core::Value& options, const std::vector<std::int64_t>& input_shape)
        : builder_(input_shape),
          activation_(activation_kind(options["activation"])),
          norm_(options["norm"].as_text()) {}

    void append(const Layer& layer) {
        const Pair kernel{layer.kernel, layer.kernel};
        const Pair stride{layer.stride, layer.stride};
        switch (layer.kind) {
            case Layer::Kind::conv:
                value_ = builder_.conv2d("conv" + std::to_string(++convs_), value_, layer.width, kernel,
                                         stride, {layer.padding, layer.padding});
                finish_hidden();
                break;
            case Layer::Kind::max_pool:
                value_ = builder_.max_pool2d(value_, kernel, stride);
                break;
            case Layer::Kind::average_pool:
                value_ = builder_.avg_pool2d(value_, kernel, stride);
                break;
            case Layer::Kind::linear:
                append_linear(layer.width);
                finish_hidden();
                break;
        }
    }

    ModelGraph end(std::int64_t classes, const core::Value& options) && {
        append_linear(classes);
        return std::move(builder_).build(options);
    }

  private:
    using Pair = std::array<std::int64_t, 2>;

    void append_linear(std::int64_t width) {
        if (builder_.shape(value_).size() > 1) value_ = builder_.flatten(value_);
        value_ = builder_.linear("fc" + std::to_string(++linears_), value_, width);
    }

    void finish_hidden() {
        if (norm_ != "none") {
            value_ = append_norm(builder_, norm_, "norm" + std::to_string(++norms_), value_);
        }
        value_ = builder_.activation(value_, activation_);
    }

    GraphBuilder builder_;
    ActivationKind activation_;
    std::string norm_;
    int value_ = GraphBuilder::input;
    int convs_ = 0, norms_ = 0, linears_ = 0;
};

/// A convolutional network: the listed layers, then a linear classifier. A norm (if any) and an activation
/// follow every convolution and linear layer but the classifier.
///
/// Names: convolutions are `conv1`, `conv2`, …, linear layers with the classifier `fc1`, `fc2`, …, norms
/// `norm1`, `norm2`, … (convolutions' and linears' counted together). `niid_bench` so has the names of the
/// published code (Li et al., *Federated Learning on Non-IID Data Silos*, ICDE 2022, SimpleCNN): conv1,
/// conv2, fc1, fc2, fc3. `mcmahan` is the CNN of McMahan et al. (AISTATS 2017), 1,663,370 parameters for
/// 28×28 and 10 classes.
ModelGraph build(const core::Value& options, const std::vector<std::int64_t>& input_shape,
                 std::int64_t classes) {
    const auto layers = read_layers(options);
    if (input_shape.size() != 3) {
        options.reject("a cnn needs images; this data set has vectors of " +
                       std::to_string(input_shape.front()) + " features: choose mlp or linear");
    }
    Chain chain(options, input_shape);
    for (const auto& layer : layers) chain.append(layer);
    return std::move(chain).end(classes, options);
}

std::vector<core::Option> layer_fields() {
    return {core::integer("conv", "a convolution with so many output channels").at_least(1).optional(),
            core::integer("pool", "a pool over squares of this width").at_least(1).optional(),
            core::integer("linear", "a linear layer with so many units").at_least(1).optional(),
            core::integer("kernel", "of a convolution: width of its square kernel").at_least(1).optional(),
            core::integer("padding", "of a convolution: zeros around the image (default 0)")
                .at_least(0)
                .optional(),
            core::integer("stride", "default 1 for a convolution, the pool's width for a pool")
                .at_least(1)
                .optional(),
            core::choice("type", {"max", "avg"}, "of a pool (default max)").optional()};
}

const core::Registration<ModelGraph, const std::vector<std::int64_t>&, std::int64_t> cnn_registration{
    {.kind = "model",
     .name = "cnn",
     .help = "convolutional network: a list of layers or a published one",
     .citation = "presets: Li et al., ICDE 2022 (2102.02079); McMahan et al., AISTATS 2017 (1602.05629)",
     .options = {core::objects(
                     "layers", layer_fields(),
                     "what comes before the classifier: {conv: 6, kernel: 5}, {pool: 2}, {linear: 120}")
                     .optional(),
                 core::choice("preset", {"niid_bench", "mcmahan"}, "a published network instead of `layers`")
                     .optional(),
                 activation_option(), norm_option()}},
    build};

}  // namespace

}  // namespace thalweg::model::cnn
