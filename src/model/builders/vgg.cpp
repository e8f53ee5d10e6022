#include <map>
#include <string>
#include <vector>

#include "choices.hpp"
#include "thalweg/core/registry.hpp"

namespace thalweg::model::vgg {

namespace {

constexpr int stages = 5;

/// Convolutions of each stage, by depth (configurations A, B, D and E of the paper).
const std::map<std::string, std::vector<int>>& configurations() {
    static const std::map<std::string, std::vector<int>> table{
        {"11", {1, 1, 2, 2, 2}}, {"13", {2, 2, 2, 2, 2}}, {"16", {2, 2, 3, 3, 3}}, {"19", {2, 2, 4, 4, 4}}};
    return table;
}

/// The convolutional part: a Sequential in which every convolution, norm, activation and pool takes a number.
int append_features(GraphBuilder& builder, const core::Value& options) {
    constexpr std::int64_t channels[stages] = {64, 128, 256, 512, 512};
    const ImageNorm norm(options);
    const auto activation = activation_kind(options["activation"]);
    const auto pools = options["pools"].as_int();
    const auto& depths = configurations().at(options["depth"].as_text());
    int number = 0;
    const auto next_name = [&number] { return "features." + std::to_string(number++); };
    int value = GraphBuilder::input;
    for (int stage = 0; stage < stages; ++stage) {
        for (int conv = 0; conv < depths[static_cast<std::size_t>(stage)]; ++conv) {
            value = append_conv(builder, next_name(), value, scaled(channels[stage], options), 3, 1, 1, true);
            if (!norm.none()) value = norm.append(builder, next_name(), value);
            value = builder.activation(value, activation);
            ++number;
        }
        if (stage < pools) value = builder.max_pool2d(value, {2, 2}, {2, 2});
        ++number;  // a pool left out keeps its number, so that names do not depend on the image's size
    }
    return value;
}

int append_dense_classifier(GraphBuilder& builder, int value, const core::Value& options) {
    const auto activation = activation_kind(options["activation"]);
    const auto units = scaled(4096, options);
    const double dropout = options["dropout"].as_number();
    value = builder.flatten(builder.adaptive_avg_pool2d(value, {7, 7}));
    for (const auto* name : {"classifier.0", "classifier.3"}) {
        value = builder.activation(append_linear(builder, name, value, units, 0.01), activation);
        if (dropout > 0) value = builder.dropout(value, dropout);
    }
    return value;
}

/// VGG: five stages of 3×3 convolutions, each ended by a max pool.
///
/// Names are torchvision's (`vgg11`, with norms those of `vgg11_bn`): `features.0.weight`, …, and the classifier's
/// `classifier.0`, `classifier.3`, `classifier.6`. `classifier: linear`, usual for small images, is the mean over
/// positions and one linear layer `classifier.0`, as of `nn.Sequential(nn.Linear(…))`. Starts as torchvision's do:
/// convolutions by He et al. (2015), linear layers normal with deviation 0.01, biases 0.
ModelGraph build(const core::Value& options, const std::vector<std::int64_t>& input_shape,
                 std::int64_t classes) {
    require_images(options, input_shape, "vgg");
    GraphBuilder builder(input_shape);
    int value = append_features(builder, options);
    if (options["classifier"].as_text() == "linear") {
        value = builder.flatten(builder.adaptive_avg_pool2d(value, {1, 1}));
        append_linear(builder, "classifier.0", value, classes, 0.01);
    } else {
        value = append_dense_classifier(builder, value, options);
        append_linear(builder, "classifier.6", value, classes, 0.01);
    }
    return std::move(builder).build(options);
}

const core::Registration<ModelGraph, const std::vector<std::int64_t>&, std::int64_t> vgg_registration{
    {.kind = "model",
     .name = "vgg",
     .help = "VGG for images of 32x32 and larger; names as torchvision's",
     .citation = "Simonyan and Zisserman, ICLR 2015 (1409.1556)",
     .options = {core::choice("depth", {"11", "13", "16", "19"}, "layers with weights").by_default("11"),
                 width_option(), image_norm_option("none"), groups_option(), activation_option(),
                 core::integer("pools",
                               "how many stages end in a max pool, the first ones; images under 32x32 "
                               "take fewer")
                     .at_least(0)
                     .at_most(stages)
                     .by_default(stages),
                 core::choice(
                     "classifier", {"linear", "dense"},
                     "linear: mean over positions, one linear layer; dense: torchvision's, pooled to "
                     "7x7, two hidden layers of 4096 times width")
                     .by_default("linear"),
                 core::number("dropout", "after the hidden layers of the dense classifier")
                     .at_least(0)
                     .below(1)
                     .by_default(0.5)}},
    build};

}  // namespace

}  // namespace thalweg::model::vgg
