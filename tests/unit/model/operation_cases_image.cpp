// Operations on [N, C, …]: windows by naive loops.
#include <algorithm>
#include <limits>

#include "operation_cases.hpp"

namespace thalweg::model::test {

namespace {

double at4(const at::Tensor& x, std::int64_t n, std::int64_t c, std::int64_t i, std::int64_t j) {
    return x[n][c][i][j].item<double>();
}

/// Any function of one output pixel, as a tensor.
at::Tensor filled(
    const Sizes& shape,
    const std::function<double(std::int64_t, std::int64_t, std::int64_t, std::int64_t)>& pixel) {
    auto out = at::empty(shape, at::kDouble);
    for (std::int64_t n = 0; n < shape[0]; ++n)
        for (std::int64_t c = 0; c < shape[1]; ++c)
            for (std::int64_t i = 0; i < shape[2]; ++i)
                for (std::int64_t j = 0; j < shape[3]; ++j) out[n][c][i][j] = pixel(n, c, i, j);
    return out;
}

/// Cross-correlation by its definition (two spatial axes).
at::Tensor convolved(const at::Tensor& x, const at::Tensor& w, const Convolution& conv, std::int64_t height,
                     std::int64_t width) {
    const auto per_group = w.size(1), out_per_group = w.size(0) / conv.groups;
    return filled({x.size(0), w.size(0), height, width}, [&](auto n, auto o, auto i, auto j) {
        double sum = 0;
        for (std::int64_t c = 0; c < per_group; ++c) {
            for (std::int64_t a = 0; a < w.size(2); ++a) {
                for (std::int64_t b = 0; b < w.size(3); ++b) {
                    const auto y = i * conv.stride[0] - conv.padding[0] + a * conv.dilation[0];
                    const auto z = j * conv.stride[1] - conv.padding[1] + b * conv.dilation[1];
                    if (y < 0 || z < 0 || y >= x.size(2) || z >= x.size(3)) continue;
                    sum += at4(x, n, o / out_per_group * per_group + c, y, z) * at4(w, o, c, a, b);
                }
            }
        }
        return sum;
    });
}

/// Its adjoint: every input pixel times the kernel, added up where it lands.
at::Tensor convolved_back(const at::Tensor& x, const at::Tensor& w, const Convolution& conv,
                          std::int64_t height, std::int64_t width) {
    const auto in_per_group = w.size(0) / conv.groups;
    auto out = at::zeros({x.size(0), w.size(1) * conv.groups, height, width}, at::kDouble);
    for (std::int64_t n = 0; n < x.size(0); ++n)
        for (std::int64_t c = 0; c < x.size(1); ++c)
            for (std::int64_t i = 0; i < x.size(2); ++i)
                for (std::int64_t j = 0; j < x.size(3); ++j)
                    for (std::int64_t o = 0; o < w.size(1); ++o)
                        for (std::int64_t a = 0; a < w.size(2); ++a)
                            for (std::int64_t b = 0; b < w.size(3); ++b) {
                                const auto y = i * conv.stride[0] - conv.padding[0] + a * conv.dilation[0];
                                const auto z = j * conv.stride[1] - conv.padding[1] + b * conv.dilation[1];
                                if (y < 0 || z < 0 || y >= height || z >= width) continue;
                                out[n][c / in_per_group * w.size(1) + o][y][z] +=
                                    at4(x, n, c, i, j) * at4(w, c, o, a, b);
                            }
    return out;
}

OperationCase convolution(const std::string& name, const Sizes& input, const Sizes& weight_shape,
                          Convolution conv, std::int64_t height, std::int64_t width) {
    const auto channels = conv.transposed ? weight_shape[1] * conv.groups : weight_shape[0];
    return {name, input,
            [=](GraphBuilder& b, int x) mutable {
                conv.weight = weight(b, "conv.weight", weight_shape);
                conv.bias = weight(b, "conv.bias", {channels}, Role::bias);
                b.append("conv", conv, {x});
            },
            [=](const Given& g) {
                const auto& slow = conv.transposed ? convolved_back : convolved;
                return slow(g.x, g.entry("conv.weight"), conv, height, width) +
                       g.entry("conv.bias").view({1, -1, 1, 1});
            }};
}

Convolution options(const Sizes& stride, const Sizes& padding, const Sizes& dilation,
                    const Sizes& output_padding, std::int64_t groups, bool transposed) {
    Convolution conv;
    conv.stride = stride;
    conv.padding = padding;
    conv.dilation = dilation;
    conv.output_padding = output_padding;
    conv.groups = groups;
    conv.transposed = transposed;
    return conv;
}

/// One spatial axis: as an image of height 1.
OperationCase line_convolution(const std::string& name, const Sizes& weight_shape, const Convolution& line,
                               std::int64_t width) {
    auto found = convolution(name, {4, 1, 7}, {weight_shape[0], weight_shape[1], 1, weight_shape[2]},
                             options({1, line.stride[0]}, {0, line.padding[0]}, {1, line.dilation[0]},
                                     {0, line.output_padding[0]}, line.groups, line.transposed),
                             1, width);
    const auto flat = found.reference;
    const auto channels = line.transposed ? weight_shape[1] * line.groups : weight_shape[0];
    found.input = {4, 7};
    found.append = [=](GraphBuilder& b, int x) {
        Convolution conv = line;
        conv.weight = weight(b, "conv.weight", weight_shape);
        conv.bias = weight(b, "conv.bias", {channels}, Role::bias);
        b.append("conv", conv, {x});
    };
    found.reference = [=](const Given& g) {
        const auto entry = [&](const std::string& entry_name) {
            const auto tensor = g.entry(entry_name);
            return tensor.dim() == 3 ? tensor.unsqueeze(2) : tensor;
        };
        return flat({g.x.unsqueeze(2), entry}).squeeze(2);
    };
    return found;
}

void append_convolutions(std::vector<OperationCase>& all) {
    all.push_back(convolution("conv2d", {2, 5, 6}, {3, 2, 3, 2},
                              options({2, 1}, {1, 0}, {1, 2}, {0, 0}, 1, false), 3, 4));
    all.push_back(convolution("conv2d_groups", {4, 4, 4}, {6, 2, 3, 3},
                              options({1, 1}, {1, 1}, {1, 1}, {0, 0}, 2, false), 4, 4));
    all.push_back(convolution("conv2d_depthwise", {3, 5, 5}, {6, 1, 3, 3},
                              options({2, 2}, {1, 1}, {1, 1}, {0, 0}, 3, false), 3, 3));
    all.push_back(convolution("transposed2d", {3, 3, 2}, {3, 2, 3, 2},
                              options({2, 3}, {1, 0}, {1, 2}, {1, 2}, 1, true), 6, 8));
    all.push_back(convolution("transposed2d_groups", {4, 3, 3}, {4, 3, 2, 2},
                              options({2, 2}, {0, 0}, {1, 1}, {0, 0}, 2, true), 6, 6));
    all.push_back(line_convolution("conv1d", {4, 2, 3}, options({2}, {2}, {2}, {0}, 2, false), 4));
    all.push_back(line_convolution("transposed1d", {4, 3, 2}, options({2}, {1}, {1}, {1}, 1, true), 13));
    // Three axes: the kernel's planes are two-dimensional convolutions.
    all.push_back(
        {"conv3d",
         {2, 3, 4, 4},
         [](GraphBuilder& b, int x) {
             auto conv = options({1, 1, 1}, {0, 0, 0}, {1, 1, 1}, {0, 0, 0}, 1, false);
             conv.weight = weight(b, "conv.weight", {2, 2, 2, 3, 3});
             b.append("conv", conv, {x});
         },
         [](const Given& g) {
             const auto conv = options({1, 1}, {0, 0}, {1, 1}, {0, 0}, 1, false);
             std::vector<at::Tensor> planes;
             for (std::int64_t depth = 0; depth < 2; ++depth) {
                 planes.push_back(
                     convolved(g.x.select(2, depth), g.entry("conv.weight").select(2, 0), conv, 2, 2) +
                     convolved(g.x.select(2, depth + 1), g.entry("conv.weight").select(2, 1), conv, 2, 2));
             }
             return at::stack(planes, 2);
         }});
}

/// What a pool does with the values of its window; `cells`: how many there are with the padding.
using Pooled = std::function<double(const std::vector<double>& values, std::int64_t cells)>;

/// PyTorch's rule for windows: with `ceil` they may reach beyond the padding, whose cells then do not count.
at::Tensor pooled(const at::Tensor& x, const MaxPool& pool, std::int64_t height, std::int64_t width,
                  const Pooled& reduce) {
    return filled({x.size(0), x.size(1), height, width}, [&](auto n, auto c, auto i, auto j) {
        std::vector<double> values;
        std::int64_t cells = 0;
        for (std::int64_t a = 0; a < pool.kernel[0]; ++a) {
            for (std::int64_t b = 0; b < pool.kernel[1]; ++b) {
                const auto y = i * pool.stride[0] - pool.padding[0] + a * pool.dilation[0];
                const auto z = j * pool.stride[1] - pool.padding[1] + b * pool.dilation[1];
                if (y < x.size(2) + pool.padding[0] && z < x.size(3) + pool.padding[1]) ++cells;
                if (y >= 0 && z >= 0 && y < x.size(2) && z < x.size(3)) values.push_back(at4(x, n, c, y, z));
            }
        }
        return reduce(values, cells);
    });
}

double largest(const std::vector<double>& values, std::int64_t) {
    return *std::max_element(values.begin(), values.end());
}
double sum(const std::vector<double>& values) {
    double total = 0;
    for (const double value : values) total += value;
    return total;
}
double mean_with_padding(const std::vector<double>& values, std::int64_t cells) {
    return sum(values) / static_cast<double>(cells);
}
double mean_without_padding(const std::vector<double>& values, std::int64_t) {
    return sum(values) / static_cast<double>(values.size());
}

OperationCase max_pool(const std::string& name, const Sizes& input, const MaxPool& pool, std::int64_t height,
                       std::int64_t width) {
    return {name, input, [=](GraphBuilder& b, int x) { b.append("", pool, {x}); },
            [=](const Given& g) { return pooled(g.x, pool, height, width, largest); }};
}

OperationCase avg_pool(const std::string& name, const Sizes& input, const AvgPool& pool, std::int64_t height,
                       std::int64_t width) {
    const MaxPool windows{pool.kernel, pool.stride, pool.padding, {1, 1}, pool.ceil};
    const auto reduce = pool.count_padding ? mean_with_padding : mean_without_padding;
    return {name, input, [=](GraphBuilder& b, int x) { b.append("", pool, {x}); },
            [=](const Given& g) { return pooled(g.x, windows, height, width, reduce); }};
}

/// PyTorch's windows: from ⌊i·in/out⌋ to ⌈(i + 1)·in/out⌉.
at::Tensor adaptively(const at::Tensor& x, std::int64_t height, std::int64_t width, const Pooled& reduce) {
    return filled({x.size(0), x.size(1), height, width}, [&](auto n, auto c, auto i, auto j) {
        std::vector<double> values;
        for (auto y = i * x.size(2) / height; y < ((i + 1) * x.size(2) + height - 1) / height; ++y)
            for (auto z = j * x.size(3) / width; z < ((j + 1) * x.size(3) + width - 1) / width; ++z)
                values.push_back(at4(x, n, c, y, z));
        return reduce(values, 0);
    });
}

void append_pools(std::vector<OperationCase>& all) {
    all.push_back(max_pool("max_pool2d", {2, 5, 6}, {{3, 2}, {2, 1}, {1, 0}, {1, 2}, false}, 3, 4));
    all.push_back(max_pool("max_pool2d_ceil", {2, 5, 6}, {{2, 3}, {2, 2}, {0, 1}, {1, 1}, true}, 3, 4));
    // The last window would begin in the padding: PyTorch leaves it out.
    all.push_back(
        max_pool("max_pool2d_ceil_in_the_padding", {1, 3, 3}, {{2, 2}, {2, 2}, {1, 1}, {1, 1}, true}, 2, 2));
    all.push_back(avg_pool("avg_pool2d", {2, 5, 4}, {{2, 2}, {1, 2}, {1, 0}, false, true}, 6, 2));
    all.push_back(avg_pool("avg_pool2d_ceil", {2, 6, 6}, {{3, 3}, {2, 2}, {1, 1}, true, true}, 4, 4));
    all.push_back(
        avg_pool("avg_pool2d_without_padding", {2, 5, 5}, {{3, 3}, {2, 2}, {1, 1}, true, false}, 3, 3));
    all.push_back({"max_pool1d",
                   {2, 7},
                   [](GraphBuilder& b, int x) {
                       b.append("", MaxPool{{3}, {2}, {0}, {1}}, {x});
                   },
                   [](const Given& g) { return g.x.unfold(2, 3, 2).amax(-1); }});
    all.push_back({"avg_pool1d",
                   {2, 7},
                   [](GraphBuilder& b, int x) {
                       b.append("", AvgPool{{2}, {3}, {0}}, {x});
                   },
                   [](const Given& g) { return g.x.unfold(2, 2, 3).sum(-1) / 2; }});
    all.push_back({"max_pool3d",
                   {2, 2, 4, 4},
                   [](GraphBuilder& b, int x) {
                       b.append("", MaxPool{{2, 2, 2}, {1, 2, 2}, {0, 0, 0}, {1, 1, 1}}, {x});
                   },
                   [](const Given& g) {
                       return g.x.unfold(2, 2, 1).unfold(3, 2, 2).unfold(4, 2, 2).flatten(5).amax(-1);
                   }});
    all.push_back({"avg_pool3d",
                   {2, 2, 4, 4},
                   [](GraphBuilder& b, int x) {
                       b.append("", AvgPool{{2, 2, 2}, {1, 2, 2}, {0, 0, 0}}, {x});
                   },
                   [](const Given& g) {
                       return g.x.unfold(2, 2, 1).unfold(3, 2, 2).unfold(4, 2, 2).flatten(5).sum(-1) / 8;
                   }});
    all.push_back({"adaptive_avg_pool2d",
                   {2, 5, 3},
                   [](GraphBuilder& b, int x) {
                       b.adaptive_avg_pool2d(x, {3, 4});
                   },
                   [](const Given& g) { return adaptively(g.x, 3, 4, mean_without_padding); }});
    all.push_back({"adaptive_max_pool2d",
                   {2, 5, 6},
                   [](GraphBuilder& b, int x) {
                       b.append("", AdaptivePool{{2, 3}, true}, {x});
                   },
                   [](const Given& g) { return adaptively(g.x, 2, 3, largest); }});
    for (const bool max : {false, true}) {
        all.push_back({max ? "adaptive_max_pool1d" : "adaptive_avg_pool1d",
                       {2, 5},
                       [=](GraphBuilder& b, int x) {
                           b.append("", AdaptivePool{{2}, max}, {x});
                       },
                       [=](const Given& g) {
                           const auto reduce = max ? Pooled(largest) : Pooled(mean_without_padding);
                           return adaptively(g.x.unsqueeze(2), 1, 2, reduce).squeeze(2);
                       }});
        all.push_back({max ? "adaptive_max_pool3d" : "adaptive_avg_pool3d",
                       {1, 2, 2, 3},
                       [=](GraphBuilder& b, int x) {
                           b.append("", AdaptivePool{{1, 1, 1}, max}, {x});
                       },
                       [=](const Given& g) {
                           const auto flat = g.x.flatten(2);
                           return (max ? flat.amax(2) : flat.sum(2) / 12).view({-1, 1, 1, 1, 1});
                       }});
    }
}

/// (x − mean) / √(variance + ε) over these axes, both biased.
at::Tensor normalised(const at::Tensor& x, const std::vector<std::int64_t>& axes) {
    const auto centred = x - x.mean(axes, true);
    return centred / (centred.pow(2).mean(axes, true) + 1e-5).sqrt();
}
at::Tensor scaled(const at::Tensor& x, const Given& g) {
    return x * g.entry("norm.weight").view({1, -1, 1, 1}) + g.entry("norm.bias").view({1, -1, 1, 1});
}

void append_norms(std::vector<OperationCase>& all) {
    const auto batch_norm = [](GraphBuilder& b, int x) { b.batch_norm("norm", x); };
    all.push_back({"batch_norm_in_training",
                   {2, 3, 2},
                   batch_norm,
                   [](const Given& g) {
                       return scaled(normalised(g.x, {0, 2, 3}), g);
                   },
                   Mode::train});
    all.push_back({"batch_norm_in_evaluation", {2, 3, 2}, batch_norm, [](const Given& g) {
                       const auto mean = g.entry("norm.running_mean").view({1, -1, 1, 1});
                       const auto variance = g.entry("norm.running_var").view({1, -1, 1, 1});
                       return scaled((g.x - mean) / (variance + 1e-5).sqrt(), g);
                   }});
    all.push_back({"batch_norm_without_entries",
                   {2, 3, 2},
                   [](GraphBuilder& b, int x) { b.append("norm", BatchNorm{}, {x}); },
                   [](const Given& g) {
                       return normalised(g.x, {0, 2, 3});
                   }});
    all.push_back({"layer_norm_channels_first",
                   {4, 2, 3},
                   [](GraphBuilder& b, int x) { b.layer_norm("norm", x); },
                   [](const Given& g) { return scaled(normalised(g.x, {1}), g); }});
    for (const std::int64_t groups : {1, 2, 4}) {
        all.push_back({"group_norm_" + std::to_string(groups),
                       {4, 2, 3},
                       [=](GraphBuilder& b, int x) { b.group_norm("norm", x, groups); },
                       [=](const Given& g) {
                           const auto grouped = g.x.unflatten(1, {groups, 4 / groups});
                           return scaled(normalised(grouped, {2, 3, 4}).flatten(1, 2), g);
                       }});
    }
}

/// The place in the image that output position i shows.
double source(std::int64_t i, std::int64_t in, std::int64_t out, bool align_corners) {
    if (align_corners)
        return out > 1 ? static_cast<double>(i * (in - 1)) / static_cast<double>(out - 1) : 0.0;
    const double place =
        (static_cast<double>(i) + 0.5) * static_cast<double>(in) / static_cast<double>(out) - 0.5;
    return std::max(place, 0.0);
}

at::Tensor bilinear(const at::Tensor& x, std::int64_t height, std::int64_t width, bool align_corners) {
    return filled({x.size(0), x.size(1), height, width}, [&](auto n, auto c, auto i, auto j) {
        const double y = source(i, x.size(2), height, align_corners);
        const double z = source(j, x.size(3), width, align_corners);
        const auto top = static_cast<std::int64_t>(y), left = static_cast<std::int64_t>(z);
        const auto low = std::min(top + 1, x.size(2) - 1), right = std::min(left + 1, x.size(3) - 1);
        const double v = y - static_cast<double>(top), w = z - static_cast<double>(left);
        return (1 - v) * ((1 - w) * at4(x, n, c, top, left) + w * at4(x, n, c, top, right)) +
               v * ((1 - w) * at4(x, n, c, low, left) + w * at4(x, n, c, low, right));
    });
}

void append_upsampling(std::vector<OperationCase>& all) {
    all.push_back({"upsample_nearest",
                   {2, 2, 3},
                   [](GraphBuilder& b, int x) {
                       b.append("", Upsample{{5, 6}}, {x});
                   },
                   [](const Given& g) {
                       return filled({g.x.size(0), 2, 5, 6}, [&](auto n, auto c, auto i, auto j) {
                           return at4(g.x, n, c, i * 2 / 5, j * 3 / 6);
                       });
                   }});
    for (const bool align : {false, true}) {
        all.push_back({align ? "upsample_bilinear_aligned" : "upsample_bilinear",
                       {2, 2, 3},
                       [=](GraphBuilder& b, int x) {
                           b.append("", Upsample{{5, 4}, true, align}, {x});
                       },
                       [=](const Given& g) { return bilinear(g.x, 5, 4, align); }});
    }
}

}  // namespace

std::vector<OperationCase> image_cases() {
    std::vector<OperationCase> all;
    append_convolutions(all);
    append_pools(all);
    append_norms(all);
    append_upsampling(all);
    return all;
}

}  // namespace thalweg::model::test
