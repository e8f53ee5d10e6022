#include "features.hpp"

#include <c10/util/accumulate.h>
#include <torch/types.h>

#include <algorithm>
#include <string>

#include "chunks.hpp"
#include "thalweg/core/error.hpp"
#include "thalweg/core/interrupt.hpp"
#include "thalweg/core/text.hpp"
#include "thalweg/model/interpreter.hpp"

namespace thalweg::analysis {

void for_values(const model::ModelGraph& graph, const model::Parameters& parameters,
                const data::SampleSet& samples, const std::vector<int>& values,
                const std::function<void(std::size_t, const at::Tensor&)>& use) {
    const at::NoGradGuard no_grad;
    const int last = *std::max_element(values.begin(), values.end());
    const model::Views views = model::views(parameters);
    const std::int64_t at_once = model::samples_at_once(graph);
    for (std::int64_t chunk = 0; chunk < chunk_count(samples, at_once); ++chunk) {
        core::check_interrupt();
        const Chunk loaded = load_chunk(samples, chunk, at_once, graph.input_shape(), at::kDouble);
        const auto hand_over = [&](int value, const at::Tensor& tensor) {
            for (std::size_t i = 0; i < values.size(); ++i) {
                if (values[i] != value) continue;
                // What does not depend on the input (a trainable token) has a batch of one.
                std::vector<std::int64_t> sizes = tensor.sizes().vec();
                sizes[0] = loaded.x.size(0);
                use(i, tensor.expand(sizes));
            }
        };
        hand_over(0, loaded.x);
        if (last == 0) continue;
        // A tap keeps activations from writing over the pre-activations that are looked at.
        model::forward(
            graph, views, loaded.x, model::Mode::evaluate,
            [&](std::size_t operation, const at::Tensor& output) {
                hand_over(graph.operations[operation].output, output);
            },
            static_cast<std::size_t>(last) - 1);
    }
}

void require_samples(const model::ModelGraph& graph, const data::SampleSet& samples, std::int64_t least) {
    const std::int64_t width = c10::multiply_integers(graph.input_shape());
    if (samples.size() < least) {
        throw core::UsageError("This takes at least " + std::to_string(least) + " sample(s), and there are " +
                               std::to_string(samples.size()) + "; give more.");
    }
    if (samples.width() != width) {
        throw core::UsageError("The model takes inputs of shape " + core::shape_text(graph.input_shape()) +
                               " (" + std::to_string(width) + " numbers), but the samples have " +
                               std::to_string(samples.width()) +
                               " numbers each; choose the data the model is made for.");
    }
}

}  // namespace thalweg::analysis
