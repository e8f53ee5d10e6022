#include <algorithm>
#include <cmath>
#include <string>

#include "attention.hpp"
#include "choices.hpp"
#include "thalweg/core/registry.hpp"

namespace thalweg::model::densenet {

namespace {

class Builder {
  public:
    Builder(const core::Value& options, const Sizes& input_shape)
        : builder_(input_shape),
          options_(options),
          norm_(options),
          growth_(options["growth"].as_int()),
          dropout_(options["dropout"].as_number()) {}

    ModelGraph build(std::int64_t classes) && {
        const auto blocks = options_["blocks"].as_ints();
        int value = stem();
        for (std::size_t block = 0; block < blocks.size(); ++block) {
            const auto number = std::to_string(block + 1);
            for (std::int64_t layer = 1; layer <= blocks[block]; ++layer) {
                const auto name = "features.denseblock" + number + ".denselayer" + std::to_string(layer);
                value = builder_.cat({value, dense_layer(name, value)}, 1);
            }
            if (block + 1 < blocks.size()) value = transition("features.transition" + number, value);
        }
        value = norm_relu("features.norm5", value);
        value = builder_.flatten(builder_.adaptive_avg_pool2d(value, {1, 1}));
        builder_.linear("classifier", value, classes);
        builder_.start("classifier.bias", {});
        return std::move(builder_).build(options_);
    }

  private:
    int norm_relu(const std::string& norm, int from) {
        return builder_.activation(norm_.append(builder_, norm, from), ActivationKind::relu);
    }
    /// Starts normal with variance 2 / fan_in.
    int conv(const std::string& name, int from, std::int64_t out, std::int64_t kernel, std::int64_t stride) {
        const auto fan_in = static_cast<double>(builder_.shape(from)[0] * kernel * kernel);
        const int value = append_conv(builder_, name, from, out, kernel, stride, kernel / 2, norm_.none());
        builder_.start(name + ".weight", {Initial::Kind::normal, std::sqrt(2.0 / fan_in)});
        return value;
    }

    int stem() {
        const auto width = 2 * growth_;
        if (options_["stem"].as_text() == "small") return conv("features.conv0", 0, width, 3, 1);
        const int value = norm_relu("features.norm0", conv("features.conv0", 0, width, 7, 2));
        return builder_.max_pool2d(value, {3, 3}, {2, 2}, {1, 1});
    }

    /// What a layer adds to the channels there are.
    int dense_layer(const std::string& name, int from) {
        int value = conv(name + ".conv1", norm_relu(name + ".norm1", from), 4 * growth_, 1, 1);
        value = conv(name + ".conv2", norm_relu(name + ".norm2", value), growth_, 3, 1);
        return append_dropout(builder_, value, dropout_);
    }

    int transition(const std::string& name, int from) {
        const double wanted =
            static_cast<double>(builder_.shape(from)[0]) * options_["compression"].as_number();
        const auto out = std::max<std::int64_t>(1, static_cast<std::int64_t>(std::floor(wanted)));
        const int value = conv(name + ".conv", norm_relu(name + ".norm", from), out, 1, 1);
        return builder_.avg_pool2d(value, {2, 2}, {2, 2});
    }

    GraphBuilder builder_;
    const core::Value& options_;
    ImageNorm norm_;
    std::int64_t growth_;
    double dropout_;
};

/// DenseNet-BC: every layer of a block reads all the channels before it and adds `growth` of its own; 1×1 convolutions
/// to 4·growth before the 3×3 ones, and transitions that keep `compression` of the channels.
///
/// Names are torchvision's (`densenet121` is growth 32, blocks [6, 12, 24, 16], stem large): `features.conv0`,
/// `features.denseblock1.denselayer1.norm1`, `….conv1`, `….norm2`, `….conv2`, `features.transition1.norm`, `….conv`,
/// `features.norm5` (whatever the number of blocks), `classifier`. The small stem is a 3×3 convolution alone. Convolutions
/// start by He et al. (2015). Without a norm convolutions have a bias.
ModelGraph build(const core::Value& options, const std::vector<std::int64_t>& input_shape,
                 std::int64_t classes) {
    require_images(options, input_shape, "densenet");
    return Builder(options, input_shape).build(classes);
}

const core::Registration<ModelGraph, const std::vector<std::int64_t>&, std::int64_t> densenet_registration{
    {.kind = "model",
     .name = "densenet",
     .help = "DenseNet-BC, concatenated channels; names as torchvision's",
     .citation = "Huang et al., CVPR 2017 (1608.06993)",
     .options = {core::integer("growth",
                               "channels that a layer adds; the first convolution has twice as many")
                     .at_least(1)
                     .at_most(100000)
                     .by_default(12),
                 core::integers("blocks", "layers of each dense block")
                     .at_least(1)
                     .at_most(1000)
                     .at_least_items(1)
                     .by_default("[6, 6, 6]"),
                 core::number("compression", "share of the channels that a transition keeps")
                     .above(0)
                     .at_most(1)
                     .by_default(0.5),
                 core::choice("stem", {"small", "large"},
                              "small: 3x3 convolution; large: 7x7 with stride 2 and max pool")
                     .by_default("small"),
                 image_norm_option("batch"), groups_option(),
                 core::number("dropout", "of what each layer adds").at_least(0).below(1).by_default(0)}},
    build};

}  // namespace

}  // namespace thalweg::model::densenet
