#include <cmath>
#include <map>
#include <string>
#include <vector>

#include "choices.hpp"
#include "thalweg/core/registry.hpp"

namespace thalweg::model::resnet {

namespace {

struct Architecture {
    std::int64_t first_width;
    std::vector<int> blocks;  ///< of each stage; a stage has twice the width of the one before
    bool bottleneck;
    bool large_images;
};

const std::map<std::string, Architecture>& architectures() {
    static const std::map<std::string, Architecture> table{
        {"20", {16, {3, 3, 3}, false, false}},   {"32", {16, {5, 5, 5}, false, false}},
        {"56", {16, {9, 9, 9}, false, false}},   {"18", {64, {2, 2, 2, 2}, false, true}},
        {"34", {64, {3, 4, 6, 3}, false, true}}, {"50", {64, {3, 4, 6, 3}, true, true}}};
    return table;
}

/// Appends stem, blocks and classifier one after another.
class Builder {
  public:
    Builder(const core::Value& options, const Sizes& input_shape)
        : builder_(input_shape),
          options_(options),
          norm_(options),
          architecture_(architectures().at(options["depth"].as_text())) {
        for (const int blocks : architecture_.blocks) blocks_ += blocks;
    }

    ModelGraph build(std::int64_t classes) && {
        int value = stem();
        for (std::size_t stage = 0; stage < architecture_.blocks.size(); ++stage) {
            const auto width = scaled(architecture_.first_width << stage, options_);
            for (int block = 0; block < architecture_.blocks[stage]; ++block) {
                const auto name = "layer" + std::to_string(stage + 1) + "." + std::to_string(block);
                value = residual(name, value, width, stage > 0 && block == 0 ? 2 : 1);
            }
        }
        value = builder_.flatten(builder_.adaptive_avg_pool2d(value, {1, 1}));
        builder_.linear("fc", value, classes);
        return std::move(builder_).build(options_);
    }

  private:
    int relu(int value) { return builder_.activation(value, ActivationKind::relu); }

    int stem() {
        const auto width = scaled(architecture_.first_width, options_);
        const bool large =
            options_.has("stem") ? options_["stem"].as_text() == "large" : architecture_.large_images;
        if (!large) return relu(conv_norm("conv1", "bn1", 0, width, 3, 1));
        return builder_.max_pool2d(relu(conv_norm("conv1", "bn1", 0, width, 7, 2)), {3, 3}, {2, 2}, {1, 1});
    }

    /// "Same" convolution and norm. Without a norm the convolution has a bias.
    int conv_norm(const std::string& conv, const std::string& norm, int from, std::int64_t out,
                  std::int64_t kernel, std::int64_t stride) {
        const int value = append_conv(builder_, conv, from, out, kernel, stride, kernel / 2, norm_.none());
        return norm_.append(builder_, norm, value);
    }

    int residual(const std::string& name, int from, std::int64_t width, std::int64_t stride) {
        const auto out = architecture_.bottleneck ? 4 * width : width;
        const auto conv = [&](int number, int value, std::int64_t channels, std::int64_t kernel,
                              std::int64_t step) {
            const auto n = std::to_string(number);
            return conv_norm(name + ".conv" + n, name + ".bn" + n, value, channels, kernel, step);
        };
        int value = 0;
        if (architecture_.bottleneck) {
            value = relu(conv(1, from, width, 1, 1));
            value = relu(conv(2, value, width, 3, stride));
            value = conv(3, value, out, 1, 1);
        } else {
            value = relu(conv(1, from, width, 3, stride));
            value = conv(2, value, out, 3, 1);
        }
        if (norm_.none()) start_without_norm(name, width);
        return relu(builder_.add(value, shortcut(name, from, out, stride)));
    }

    int shortcut(const std::string& name, int from, std::int64_t out, std::int64_t stride) {
        const Sizes shape = builder_.shape(from);
        if (stride == 1 && shape[0] == out) return from;
        if (options_["shortcut"].as_text() == "conv")
            return conv_norm(name + ".downsample.0", name + ".downsample.1", from, out, 1, stride);
        int value = from;
        if (stride > 1) {
            value = builder_.slice(value, 2, 0, shape[1], stride);
            value = builder_.slice(value, 3, 0, shape[2], stride);
        }
        const auto before = (out - shape[0]) / 2;
        return builder_.pad(value, {0, 0, 0, 0, before, out - shape[0] - before});
    }

    /// Zhang, Dauphin and Ma (ICLR 2019): with L branches of m layers, a branch's last layer starts at zero and the
    /// others are scaled by L^(-1/(2m-2)); otherwise the stream would grow with every block.
    void start_without_norm(const std::string& name, std::int64_t width) {
        const int layers = architecture_.bottleneck ? 3 : 2;
        const double factor = std::pow(blocks_, -1.0 / (2 * layers - 2));
        const auto entry = [&](int layer) { return name + ".conv" + std::to_string(layer) + ".weight"; };
        for (int layer = 1; layer < layers; ++layer) {
            const auto area = architecture_.bottleneck && layer == 1 ? 1 : 9;
            const double he = std::sqrt(2.0 / static_cast<double>(width * area));
            builder_.start(entry(layer), {Initial::Kind::normal, factor * he});
        }
        builder_.start(entry(layers), {Initial::Kind::constant, 0});
    }

    GraphBuilder builder_;
    const core::Value& options_;
    ImageNorm norm_;
    const Architecture& architecture_;
    int blocks_ = 0;
};

/// Residual networks: those of He et al.'s section 4.2 for CIFAR (20, 32, 56: 6n + 2 layers, three stages) and those for
/// ImageNet (18, 34, 50: four stages; 50 with bottlenecks whose stride is at the 3×3 convolution, as torchvision's).
///
/// Names are torchvision's, for all depths: `conv1`, `bn1`, `layer1.0.conv1`, `layer1.0.bn1`, …, `layer2.0.downsample.0`
/// and `.1`, `fc`; `bn` also when the norm is another. Without a norm convolutions have a bias. `shortcut: pad` has no
/// `downsample`: every second row and column, and zero channels in equal numbers before and after (option A). Starts
/// by He et al. (2015); without a norm as said at `start_without_norm`.
ModelGraph build(const core::Value& options, const std::vector<std::int64_t>& input_shape,
                 std::int64_t classes) {
    require_images(options, input_shape, "resnet");
    return Builder(options, input_shape).build(classes);
}

const core::Registration<ModelGraph, const std::vector<std::int64_t>&, std::int64_t> resnet_registration{
    {.kind = "model",
     .name = "resnet",
     .help =
         "residual network, CIFAR style (20, 32, 56) or ImageNet style (18, 34, 50); names as torchvision's",
     .citation =
         "He et al., CVPR 2016 (1512.03385); start without norm: Zhang et al., ICLR 2019 (1901.09321)",
     .options =
         {core::choice("depth", {"20", "32", "56", "18", "34", "50"}, "layers with weights").by_default("20"),
          width_option(),
          core::choice("shortcut", {"conv", "pad"},
                       "where the shape changes: 1x1 convolution and norm (option B), or every second "
                       "position and zero channels (option A)")
              .by_default("conv"),
          core::choice("stem", {"small", "large"},
                       "small: 3x3 convolution; large: 7x7 with stride 2 and max pool; default small for "
                       "20, 32, 56, large for 18, 34, 50")
              .optional(),
          image_norm_option("batch"), groups_option()}},
    build};

}  // namespace

}  // namespace thalweg::model::resnet
