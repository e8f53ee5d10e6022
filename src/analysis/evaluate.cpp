#include "thalweg/analysis/evaluate.hpp"

#include <ATen/Dispatch.h>
#include <c10/util/accumulate.h>
#include <torch/types.h>

#include <algorithm>
#include <cmath>
#include <span>
#include <stdexcept>
#include <string>

#include "chunks.hpp"
#include "thalweg/core/error.hpp"
#include "thalweg/core/interrupt.hpp"
#include "thalweg/core/text.hpp"
#include "thalweg/model/interpreter.hpp"

namespace thalweg::analysis {

namespace {

constexpr std::int64_t row_width = 2;  // sum of cross-entropies, number right

void check_samples(const data::SampleSet& samples, const std::vector<std::int64_t>& shape) {
    const std::int64_t width = c10::multiply_integers(shape);
    if (samples.size() == 0) throw core::RunError("There are no samples to evaluate the model on.");
    if (samples.width() != width) {
        throw core::RunError("The model takes inputs of shape " + core::shape_text(shape) + " (" +
                             std::to_string(width) + " numbers), but the samples have " +
                             std::to_string(samples.width()) +
                             " numbers each; choose the data the model is made for.");
    }
}

/// The lowest index among the largest; -1 when there is a NaN, which no label is.
template <class T>
std::int64_t arg_max(const T* row, std::int64_t classes) {
    std::int64_t best = 0;
    for (std::int64_t c = 0; c < classes; ++c) {
        if (std::isnan(row[c])) return -1;
        if (row[c] > row[best]) best = c;
    }
    return best;
}

std::int64_t count_right(const at::Tensor& logits, const at::Tensor& labels) {
    const std::int64_t n = logits.size(0), classes = logits.size(1);
    const std::int64_t* label = labels.data_ptr<std::int64_t>();
    std::int64_t right = 0;
    AT_DISPATCH_FLOATING_TYPES(logits.scalar_type(), "count_right", [&] {
        const scalar_t* row = logits.data_ptr<scalar_t>();
        for (std::int64_t i = 0; i < n; ++i) right += arg_max(row + i * classes, classes) == label[i] ? 1 : 0;
    });
    return right;
}

/// Fills a chunk's row.
void score_chunk(const at::Tensor& logits, const at::Tensor& labels, std::span<double> row) {
    const std::int64_t classes = logits.size(1), highest = labels.max().item<std::int64_t>();
    if (highest >= classes) {
        throw core::RunError("The samples have a label " + std::to_string(highest) +
                             ", but the model tells only " + std::to_string(classes) +
                             " classes apart; choose the data the model is made for.");
    }
    const at::Tensor whole = logits.contiguous();
    const at::Tensor losses =
        at::log_softmax(whole, 1).gather(1, labels.unsqueeze(1)).squeeze(1).to(at::kDouble).contiguous();
    const double* loss = losses.data_ptr<double>();
    for (std::int64_t i = 0; i < losses.size(0); ++i) row[0] -= loss[i];
    row[1] = static_cast<double>(count_right(whole, labels));
}

Evaluation combine(const std::vector<double>& rows, std::int64_t samples) {
    Evaluation result;
    result.samples = samples;
    double right = 0;
    for (std::size_t i = 0; i < rows.size(); i += row_width) {
        result.loss += rows[i];
        right += rows[i + 1];
    }
    result.loss /= static_cast<double>(samples);
    result.accuracy = right / static_cast<double>(samples);
    return result;
}

}  // namespace

Evaluation evaluate(const model::ModelGraph& graph, const model::Parameters& parameters,
                    const data::SampleSet& samples, core::Communicator& communicator) {
    const at::NoGradGuard no_grad;
    check_samples(samples, graph.input_shape());
    const model::Views views = model::views(parameters);
    const std::int64_t at_once = model::samples_at_once(graph);
    const auto rows = core::gather_rows(
        communicator, chunk_count(samples, at_once), row_width,
        [&](std::int64_t chunk, std::span<double> row) {
            const Chunk loaded =
                load_chunk(samples, chunk, at_once, graph.input_shape(), parameters.values.scalar_type());
            score_chunk(model::forward(graph, views, loaded.x, model::Mode::evaluate), loaded.y, row);
        });
    return combine(rows, samples.size());
}

Evaluation evaluate_alone(const model::ModelGraph& graph, const model::Parameters& parameters,
                          const data::SampleSet& samples) {
    core::SelfCommunicator alone;
    return evaluate(graph, parameters, samples, alone);
}

at::Tensor logits(const model::ModelGraph& graph, const model::Parameters& parameters,
                  const data::SampleSet& samples) {
    const at::NoGradGuard no_grad;
    check_samples(samples, graph.input_shape());
    const model::Views views = model::views(parameters);
    const at::Tensor all = at::empty({samples.size(), graph.classes()}, at::kFloat);
    const std::int64_t at_once = model::samples_at_once(graph);
    for (std::int64_t chunk = 0; chunk < chunk_count(samples, at_once); ++chunk) {
        core::check_interrupt();
        const Chunk loaded =
            load_chunk(samples, chunk, at_once, graph.input_shape(), parameters.values.scalar_type());
        all.narrow(0, chunk * at_once, loaded.y.size(0))
            .copy_(model::forward(graph, views, loaded.x, model::Mode::evaluate));
    }
    return all;
}

Evaluation score(const model::ModelGraph& graph, const at::Tensor& logits, const data::SampleSet& samples) {
    const at::NoGradGuard no_grad;
    if (logits.dim() != 2 || logits.size(0) != samples.size() || samples.size() == 0) {
        throw std::logic_error("score: logits that do not belong to the samples");
    }
    const std::int64_t at_once = model::samples_at_once(graph);
    const std::int64_t chunks = chunk_count(samples, at_once);
    std::vector<double> rows(static_cast<std::size_t>(chunks * row_width));
    for (std::int64_t chunk = 0; chunk < chunks; ++chunk) {
        core::check_interrupt();
        const std::int64_t first = chunk * at_once;
        const at::Tensor part = logits.narrow(0, first, std::min(at_once, samples.size() - first));
        const at::Tensor labels = at::empty({part.size(0)}, at::kLong);
        for (std::int64_t i = 0; i < part.size(0); ++i) {
            labels.data_ptr<std::int64_t>()[i] = samples.label(first + i);
        }
        score_chunk(part, labels,
                    std::span(rows).subspan(static_cast<std::size_t>(chunk * row_width), row_width));
    }
    return combine(rows, samples.size());
}

}  // namespace thalweg::analysis
