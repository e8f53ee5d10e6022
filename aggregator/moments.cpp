#include <torch/types.h>

#include <algorithm>
#include <optional>
#include <stdexcept>
#include <type_traits>
#include <variant>

#include "moments.hpp"

namespace thalweg::aggregator {

namespace {

/// `output` [n, channels, positions]. Plain loops: their order is fixed, whatever the number of threads.
template <class T>
void accumulate(const T* output, std::int64_t n, std::size_t channels, std::int64_t positions,
                std::vector<double>& sum, std::vector<double>& sum_of_squares) {
    for (std::int64_t i = 0; i < n; ++i) {
        for (std::size_t c = 0; c < channels; ++c) {
            double s = 0, q = 0;
            for (std::int64_t p = 0; p < positions; ++p) {
                const double value = static_cast<double>(*output++);
                s += value;
                q += value * value;
            }
            sum[c] += s;
            sum_of_squares[c] += q;
        }
    }
}

template <class Kind, class... Kinds>
constexpr bool is_one_of = (std::is_same_v<Kind, Kinds> || ...);

/// Empty where neither the operation nor what it reads says which axis the channels are on.
std::optional<std::int64_t> known_axis(const model::ModelGraph& graph, std::size_t operation) {
    using namespace model;
    const auto& [name, kind, inputs, output] = graph.operations[operation];
    const bool says = std::visit(
        [](const auto& k) {
            return is_one_of<std::decay_t<decltype(k)>, Linear, Convolution, BatchNorm, LayerNorm, GroupNorm,
                             PRelu, MaxPool, AvgPool, AdaptivePool, Upsample, Embedding, Attention, Lstm>;
        },
        kind);
    if (says) return graph.channel_axis(operation);
    const bool element_wise = std::visit(
        [](const auto& k) {
            return is_one_of<std::decay_t<decltype(k)>, Activation, Dropout, Affine, Add, Multiply, Divide>;
        },
        kind);
    if (!element_wise) return {};
    const auto& shape = graph.shapes[static_cast<std::size_t>(output)];
    for (const int input : inputs) {
        if (input == 0 || graph.shapes[static_cast<std::size_t>(input)] != shape) continue;
        if (const auto axis = known_axis(graph, static_cast<std::size_t>(input - 1))) return axis;
    }
    return {};
}

}  // namespace

MomentPoint moment_point(const model::ModelGraph& graph, std::size_t operation) {
    return {operation, known_axis(graph, operation).value_or(graph.channel_axis(operation))};
}

std::int64_t channels(const model::ModelGraph& graph, const MomentPoint& point) {
    const auto value = static_cast<std::size_t>(graph.operations[point.operation].output);
    return graph.shapes[value].at(static_cast<std::size_t>(point.axis - 1));
}

void ChannelMoments::add(const at::Tensor& output) {
    if (output.dim() < 2) throw std::logic_error("moments of a tensor without channels");
    const at::Tensor x = output.contiguous();
    const auto channels = static_cast<std::size_t>(x.size(1));
    const std::int64_t n = x.size(0);
    const std::int64_t positions = x.numel() == 0 ? 0 : x.numel() / (n * x.size(1));
    ChannelMoments mine;
    mine.count = static_cast<double>(n * positions);
    mine.sum.assign(channels, 0);
    mine.sum_of_squares.assign(channels, 0);
    if (x.scalar_type() == at::kDouble) {
        accumulate(x.data_ptr<double>(), n, channels, positions, mine.sum, mine.sum_of_squares);
    } else {
        accumulate(x.data_ptr<float>(), n, channels, positions, mine.sum, mine.sum_of_squares);
    }
    add(mine);
}

void ChannelMoments::add(const ChannelMoments& other) {
    if (sum.empty()) {
        *this = other;
        return;
    }
    if (sum.size() != other.sum.size()) throw std::logic_error("moments of different numbers of channels");
    count += other.count;
    for (std::size_t c = 0; c < sum.size(); ++c) {
        sum[c] += other.sum[c];
        sum_of_squares[c] += other.sum_of_squares[c];
    }
}

std::vector<double> ChannelMoments::mean() const {
    std::vector<double> result(sum);
    for (double& value : result) value /= count;
    return result;
}

std::vector<double> ChannelMoments::variance() const {
    std::vector<double> result(sum.size());
    for (std::size_t c = 0; c < sum.size(); ++c) {
        const double mean = sum[c] / count;
        result[c] = std::max(0.0, sum_of_squares[c] / count - mean * mean);
    }
    return result;
}

std::vector<MomentPoint> points_of(const model::ModelGraph& graph,
                                   const std::vector<std::size_t>& operations) {
    std::vector<MomentPoint> points;
    for (const std::size_t operation : operations) points.push_back(moment_point(graph, operation));
    return points;
}

std::int64_t row_width(const model::ModelGraph& graph, const std::vector<MomentPoint>& points) {
    std::int64_t width = 0;
    for (const auto& point : points) width += 1 + 2 * channels(graph, point);
    return width;
}

void write_row(const std::vector<ChannelMoments>& all, std::span<double> row) {
    auto out = row.begin();
    for (const auto& moments : all) {
        *out++ = moments.count;
        out = std::copy(moments.sum.begin(), moments.sum.end(), out);
        out = std::copy(moments.sum_of_squares.begin(), moments.sum_of_squares.end(), out);
    }
}

std::vector<ChannelMoments> read_row(const model::ModelGraph& graph, const std::vector<MomentPoint>& points,
                                     std::span<const double> row) {
    std::vector<ChannelMoments> all(points.size());
    auto from = row.begin();
    for (std::size_t i = 0; i < points.size(); ++i) {
        const auto n = static_cast<std::ptrdiff_t>(channels(graph, points[i]));
        all[i].count = *from++;
        all[i].sum.assign(from, from + n);
        all[i].sum_of_squares.assign(from + n, from + 2 * n);
        from += 2 * n;
    }
    return all;
}

}  // namespace thalweg::aggregator
