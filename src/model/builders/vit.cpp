#include <cmath>
#include <string>
#include <vector>

#include "attention.hpp"
#include "choices.hpp"
#include "thalweg/core/registry.hpp"

namespace thalweg::model::vit {

namespace {

constexpr double epsilon = 1e-6;  // of torchvision's layer norms

/// Patches as a sequence [positions, dim].
int append_patches(GraphBuilder& builder, const core::Value& options) {
    const auto patch = options["patch"].as_int(), dim = options["dim"].as_int();
    const Sizes image = builder.shape(GraphBuilder::input);
    if (image[1] % patch != 0 || image[2] % patch != 0) {
        options["patch"].reject("patches of " + std::to_string(patch) + "x" + std::to_string(patch) +
                                " do not tile images of " + std::to_string(image[1]) + "x" +
                                std::to_string(image[2]));
    }
    const int value = builder.conv2d("conv_proj", GraphBuilder::input, dim, {patch, patch}, {patch, patch});
    const double deviation = std::sqrt(1.0 / static_cast<double>(image[0] * patch * patch));
    builder.start("conv_proj.weight", {Initial::Kind::normal, deviation});
    builder.start("conv_proj.bias", {});
    const auto positions = (image[1] / patch) * (image[2] / patch);
    return builder.permute(builder.reshape(value, {dim, positions}), {0, 2, 1});
}

int append_block(GraphBuilder& builder, const std::string& name, int stream, const core::Value& options) {
    const auto dim = options["dim"].as_int(), hidden = options["mlp_dim"].as_int();
    const double dropout = options["dropout"].as_number();
    int value = builder.layer_norm(name + ".ln_1", stream, epsilon);
    value = append_self_attention(builder, name + ".self_attention", value, options["heads"].as_int(), false);
    stream = builder.add(append_dropout(builder, value, dropout), stream);

    value = builder.linear(name + ".mlp.0", builder.layer_norm(name + ".ln_2", stream, epsilon), hidden);
    value = append_dropout(builder, builder.activation(value, ActivationKind::gelu), dropout);
    value = append_dropout(builder, builder.linear(name + ".mlp.3", value, dim), dropout);
    for (const auto* layer : {".mlp.0", ".mlp.3"}) {
        builder.start(name + layer + ".weight", xavier(dim, hidden));
        builder.start(name + layer + ".bias", {Initial::Kind::normal, 1e-6});
    }
    return builder.add(stream, value);
}

/// Vision transformer: patches, positional parameters, pre-norm blocks of attention and a two-layer perceptron with
/// GELU; the class token's channels, or the mean over positions, go to the classifier.
///
/// Names are torchvision's (VisionTransformer, from 0.13 on): `class_token`, `conv_proj`, `encoder.pos_embedding`,
/// `encoder.layers.encoder_layer_0.ln_1`, `….self_attention.in_proj_weight`, `….mlp.0`, `….mlp.3`, `encoder.ln`,
/// `heads.head`. With `pooling: mean` there is no class token. Starts as torchvision's, the classifier at zero.
/// Attention weights themselves have no dropout.
ModelGraph build(const core::Value& options, const std::vector<std::int64_t>& input_shape,
                 std::int64_t classes) {
    require_images(options, input_shape, "vit");
    check_heads(options);
    const auto dim = options["dim"].as_int();
    const bool token = options["pooling"].as_text() == "class";
    GraphBuilder builder(input_shape);
    int class_token = 0;
    if (token) class_token = builder.parameter("class_token", {1, 1, dim}, {1, dim}, {});
    int value = append_patches(builder, options);
    if (token) value = builder.cat({class_token, value}, 1);
    const auto positions = builder.shape(value)[0];
    value = builder.add(value, builder.parameter("encoder.pos_embedding", {1, positions, dim},
                                                 {positions, dim}, {Initial::Kind::normal, 0.02}));
    value = append_dropout(builder, value, options["dropout"].as_number());
    for (std::int64_t block = 0; block < options["depth"].as_int(); ++block) {
        value =
            append_block(builder, "encoder.layers.encoder_layer_" + std::to_string(block), value, options);
    }
    // The norm is of each position by itself: only the class token's is needed.
    if (token) value = builder.flatten(builder.slice(value, 1, 0, 1));
    value = builder.layer_norm("encoder.ln", value, epsilon);
    if (!token) value = builder.mean(value, {1});
    append_linear(builder, "heads.head", value, classes, 0);
    return std::move(builder).build(options);
}

std::vector<core::Option> vit_options() {
    std::vector<core::Option> options{
        core::integer("patch", "width of the square patches; it divides the image's sides")
            .at_least(1)
            .by_default(4)};
    for (auto& option : transformer_options(6, 3, 192, 768)) options.push_back(std::move(option));
    options.push_back(core::choice("pooling", {"class", "mean"},
                                   "what is classified: a class token, or the mean over patches")
                          .by_default("class"));
    return options;
}

const core::Registration<ModelGraph, const std::vector<std::int64_t>&, std::int64_t> vit_registration{
    {.kind = "model",
     .name = "vit",
     .help = "vision transformer; names as torchvision's",
     .citation = "Dosovitskiy et al., ICLR 2021 (2010.11929)",
     .options = core::Schema(vit_options())},
    build};

}  // namespace

}  // namespace thalweg::model::vit
