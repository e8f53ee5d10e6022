#include "kernels.hpp"

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <string>

namespace thalweg::clients {

void add_bias(float* values, const float* bias, std::int64_t rows, std::int64_t columns) {
    if (bias == nullptr) return;
    for (std::int64_t i = 0; i < rows; ++i) {
        float* __restrict row = values + i * columns;
        for (std::int64_t j = 0; j < columns; ++j) row[j] += bias[j];
    }
}

void add_bias_relu(float* values, const float* bias, std::int64_t rows, std::int64_t columns) {
    for (std::int64_t i = 0; i < rows; ++i) {
        float* __restrict row = values + i * columns;
        if (bias != nullptr) {
            for (std::int64_t j = 0; j < columns; ++j) row[j] += bias[j];
        }
        for (std::int64_t j = 0; j < columns; ++j) row[j] = row[j] < 0 ? 0.0F : row[j];
    }
}

void relu_backward(float* gradient, const float* output, std::int64_t size) {
    for (std::int64_t i = 0; i < size; ++i) gradient[i] = output[i] <= 0 ? 0.0F : gradient[i];
}

void tanh_backward(float* gradient, const float* output, std::int64_t size) {
    for (std::int64_t i = 0; i < size; ++i) gradient[i] *= 1.0F - output[i] * output[i];
}

void column_sums(float* sums, const float* values, std::int64_t rows, std::int64_t columns) {
    std::fill_n(sums, columns, 0.0F);
    for (std::int64_t i = 0; i < rows; ++i) {
        const float* row = values + i * columns;
        for (std::int64_t j = 0; j < columns; ++j) sums[j] += row[j];
    }
}

double cross_entropy(float* logits, std::span<const std::int64_t> labels, std::int64_t columns) {
    const auto share = 1.0F / static_cast<float>(labels.size());
    double total = 0;
    for (std::size_t i = 0; i < labels.size(); ++i) {
        float* row = logits + static_cast<std::int64_t>(i) * columns;
        const std::int64_t label = labels[i];
        if (label < 0 || label >= columns) {
            throw std::invalid_argument("label " + std::to_string(label) + " is not one of " +
                                        std::to_string(columns) + " classes");
        }
        // A NaN loses every comparison, but not in the sum of exponentials, which turns the loss into NaN.
        const float largest = *std::max_element(row, row + columns);
        const float target = row[label] - largest;
        double sum = 0;
        for (std::int64_t j = 0; j < columns; ++j) {
            row[j] = std::exp(row[j] - largest);
            sum += row[j];
        }
        const auto scale = static_cast<float>(1.0 / sum) * share;
        for (std::int64_t j = 0; j < columns; ++j) row[j] *= scale;
        row[label] -= share;
        total += std::log(sum) - static_cast<double>(target);
    }
    return total / static_cast<double>(labels.size());
}

}  // namespace thalweg::clients
