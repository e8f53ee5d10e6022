#include <algorithm>
#include <string>

#include "attention.hpp"
#include "choices.hpp"
#include "thalweg/core/registry.hpp"

namespace thalweg::model::mobilenet {

namespace {

/// One row of the paper's table 2: `repeats` blocks, the first with this stride.
struct Stage {
    std::int64_t expansion, channels;
    int repeats;
    std::int64_t stride, small_stride;
};
constexpr Stage table[] = {{1, 16, 1, 1, 1}, {6, 24, 2, 2, 1},  {6, 32, 3, 2, 2}, {6, 64, 4, 2, 2},
                           {6, 96, 3, 1, 1}, {6, 160, 3, 2, 2}, {6, 320, 1, 1, 1}};

/// To the nearest multiple of 8, but not below nine tenths of what was asked for.
std::int64_t rounded(double channels) {
    const auto multiple = std::max<std::int64_t>(8, static_cast<std::int64_t>(channels + 4) / 8 * 8);
    return static_cast<double>(multiple) < 0.9 * channels ? multiple + 8 : multiple;
}

class Builder {
  public:
    Builder(const core::Value& options, const Sizes& input_shape)
        : builder_(input_shape),
          options_(options),
          norm_(options),
          width_(options["width"].as_number()),
          large_(options["stem"].as_text() == "large") {}

    ModelGraph build(std::int64_t classes) && {
        int number = 0;
        const auto next_name = [&number] { return "features." + std::to_string(number++); };
        int value = step(next_name(), 0, rounded(32 * width_), 3, large_ ? 2 : 1);
        for (const Stage& stage : table) {
            for (int repeat = 0; repeat < stage.repeats; ++repeat) {
                const auto stride = repeat > 0 ? 1 : large_ ? stage.stride : stage.small_stride;
                const auto out = rounded(static_cast<double>(stage.channels) * width_);
                value = inverted_residual(next_name(), value, out, stride, stage.expansion);
            }
        }
        value = step(next_name(), value, rounded(1280 * std::max(1.0, width_)), 1, 1);
        value = builder_.flatten(builder_.adaptive_avg_pool2d(value, {1, 1}));
        value = append_dropout(builder_, value, options_["dropout"].as_number());
        append_linear(builder_, "classifier.1", value, classes, 0.01);
        return std::move(builder_).build(options_);
    }

  private:
    int conv_norm(const std::string& conv, const std::string& norm, int from, std::int64_t out,
                  std::int64_t kernel, std::int64_t stride, std::int64_t groups) {
        const int value =
            append_conv(builder_, conv, from, out, kernel, stride, kernel / 2, norm_.none(), groups);
        return norm_.append(builder_, norm, value);
    }

    /// Convolution, norm, ReLU6.
    int step(const std::string& name, int from, std::int64_t out, std::int64_t kernel, std::int64_t stride,
             std::int64_t groups = 1) {
        return builder_.activation(conv_norm(name + ".0", name + ".1", from, out, kernel, stride, groups),
                                   ActivationKind::relu6);
    }

    int inverted_residual(const std::string& name, int from, std::int64_t out, std::int64_t stride,
                          std::int64_t expansion) {
        const auto in = builder_.shape(from)[0];
        const auto hidden = in * expansion;
        int number = 0;
        const auto next_name = [&] { return name + ".conv." + std::to_string(number++); };
        int value = from;
        if (expansion != 1) value = step(next_name(), value, hidden, 1, 1);
        value = step(next_name(), value, hidden, 3, stride, hidden);
        const auto projection = next_name();
        value = conv_norm(projection, next_name(), value, out, 1, 1, 1);
        return stride == 1 && in == out ? builder_.add(from, value) : value;
    }

    GraphBuilder builder_;
    const core::Value& options_;
    ImageNorm norm_;
    double width_;
    bool large_;
};

/// MobileNetV2: inverted residual blocks of 1×1, depthwise 3×3 and 1×1 convolutions.
///
/// Names are torchvision's (`mobilenet_v2`): `features.0.0`, `features.0.1`, `features.1.conv.0.0`, …,
/// `features.18.0`, `classifier.1`. For small images the first convolution and the first stride-2 stage keep the
/// image's size, 1/8 instead of 1/32 of it is left. Widths are multiples of 8. Convolutions start by He et al. (2015),
/// the classifier normal with deviation 0.01. Without a norm convolutions have a bias.
ModelGraph build(const core::Value& options, const std::vector<std::int64_t>& input_shape,
                 std::int64_t classes) {
    require_images(options, input_shape, "mobilenet");
    return Builder(options, input_shape).build(classes);
}

const core::Registration<ModelGraph, const std::vector<std::int64_t>&, std::int64_t> mobilenet_registration{
    {.kind = "model",
     .name = "mobilenet",
     .help = "MobileNetV2, depthwise convolutions; names as torchvision's",
     .citation = "Sandler et al., CVPR 2018 (1801.04381)",
     .options = {width_option(),
                 core::choice("stem", {"small", "large"},
                              "small: strides for images like CIFAR's; large: ImageNet's")
                     .by_default("small"),
                 image_norm_option("batch"), groups_option(),
                 core::number("dropout", "before the classifier").at_least(0).below(1).by_default(0.2)}},
    build};

}  // namespace

}  // namespace thalweg::model::mobilenet
