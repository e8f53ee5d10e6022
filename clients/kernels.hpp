#pragma once

#include <cstdint>
#include <span>

namespace thalweg::clients {

/// Kernels of the compiled step, over row-major matrices. Each keeps one order of summation, so that a result depends
/// on its inputs only.

/// values[i][j] += bias[j]; bias may be null.
void add_bias(float* values, const float* bias, std::int64_t rows, std::int64_t columns);
/// values[i][j] = max(0, values[i][j] + bias[j]); a NaN stays one. bias may be null.
void add_bias_relu(float* values, const float* bias, std::int64_t rows, std::int64_t columns);
/// gradient[i] = 0 where the ReLU's output was not positive.
void relu_backward(float* gradient, const float* output, std::int64_t size);
/// gradient[i] *= 1 − output[i]²
void tanh_backward(float* gradient, const float* output, std::int64_t size);
/// sums[j] = Σ_i values[i][j]
void column_sums(float* sums, const float* values, std::int64_t rows, std::int64_t columns);
/// Turns logits into the gradient of their mean cross-entropy and returns that mean. std::invalid_argument for a label
/// outside [0, columns).
double cross_entropy(float* logits, std::span<const std::int64_t> labels, std::int64_t columns);

}  // namespace thalweg::clients
