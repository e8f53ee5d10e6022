#include <torch/types.h>

#include <algorithm>
#include <stdexcept>

#include "thalweg/aggregator/statistics.hpp"

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

}  // namespace

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

}  // namespace thalweg::aggregator
