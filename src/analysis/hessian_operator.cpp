#include "hessian_operator.hpp"

#include <torch/csrc/autograd/autograd.h>
#include <torch/types.h>

#include <algorithm>
#include <span>
#include <string>

#include "chunks.hpp"
#include "features.hpp"
#include "thalweg/aggregator/exchange.hpp"
#include "thalweg/core/error.hpp"
#include "thalweg/core/interrupt.hpp"

namespace thalweg::analysis {

namespace {

/// Smaller chunks than evaluation's: differentiating twice keeps several times as much, and few samples are spread better.
std::int64_t samples_per_product(const model::ModelGraph& graph) {
    return std::min<std::int64_t>(100, model::samples_at_once(graph));
}

void require_labels(const at::Tensor& labels, std::int64_t classes) {
    const std::int64_t highest = labels.max().item<std::int64_t>();
    if (highest < classes) return;
    throw core::RunError("The samples have a label " + std::to_string(highest) +
                         ", but the model tells only " + std::to_string(classes) +
                         " classes apart; choose the data the model is made for.");
}

/// What each rank adds up of a product.
std::vector<core::Bytes> cut(const at::Tensor& product, int ranks) {
    std::vector<core::Bytes> parts;
    const auto* bytes = reinterpret_cast<const std::byte*>(product.data_ptr<double>());
    for (int rank = 0; rank < ranks; ++rank) {
        const auto slice = aggregator::slice_of(product.numel(), rank, ranks);
        constexpr auto width = static_cast<std::int64_t>(sizeof(double));
        parts.emplace_back(bytes + width * slice.first, bytes + width * slice.second);
    }
    return parts;
}

}  // namespace

HessianOperator::HessianOperator(const model::ModelGraph& graph, const model::Parameters& parameters,
                                 const data::SampleSet& samples, core::Communicator& communicator)
    : graph_(graph),
      parameters_(core::collectively(communicator, [&] { return parameters.to_double(); })),
      samples_(samples),
      communicator_(communicator),
      views_(model::views(parameters_)),
      at_once_(samples_per_product(graph)) {
    require_samples(graph, samples, 1);
    const auto& entries = parameters_.layout->entries();
    for (std::size_t i = 0; i < entries.size(); ++i) {
        if (!entries[i].trainable) continue;
        at::Tensor leaf = views_.entries[i].variable_data();
        leaf.set_requires_grad(true);
        views_.entries[i] = leaf;
        leaves_.push_back(std::move(leaf));
        entries_.push_back(i);
    }
}

at::Tensor HessianOperator::chunk_product(std::int64_t chunk, const at::Tensor& v) const {
    const at::AutoGradMode with_gradients(true);
    const Chunk loaded = load_chunk(samples_, chunk, at_once_, graph_.input_shape(), at::kDouble);
    require_labels(loaded.y, graph_.classes());
    const at::Tensor logits = model::forward(graph_, views_, loaded.x, model::Mode::evaluate);
    const at::Tensor loss = -at::log_softmax(logits, 1).gather(1, loaded.y.unsqueeze(1)).sum();
    const auto gradients = torch::autograd::grad({loss}, leaves_, {}, true, true, /*allow_unused=*/true);
    // Where the gradient does not depend on the parameters, or the loss does not on an entry, H is zero.
    std::vector<at::Tensor> outputs, directions;
    const auto& entries = parameters_.layout->entries();
    for (std::size_t i = 0; i < gradients.size(); ++i) {
        if (!gradients[i].defined() || !gradients[i].requires_grad()) continue;
        const auto& entry = entries[entries_[i]];
        outputs.push_back(gradients[i]);
        directions.push_back(v.narrow(0, entry.offset, entry.size).view(entry.shape));
    }
    at::Tensor product = at::zeros({size()}, at::kDouble);
    if (outputs.empty()) return product;
    const auto seconds =
        torch::autograd::grad(outputs, leaves_, directions, false, false, /*allow_unused=*/true);
    for (std::size_t i = 0; i < seconds.size(); ++i) {
        if (!seconds[i].defined()) continue;
        const auto& entry = entries[entries_[i]];
        product.narrow(0, entry.offset, entry.size).copy_(seconds[i].reshape({entry.size}));
    }
    return product;
}

at::Tensor HessianOperator::operator()(const at::Tensor& v) const {
    const at::NoGradGuard no_grad;
    const int ranks = communicator_.size();
    const std::int64_t chunks = chunk_count(samples_, at_once_);
    const auto slice = aggregator::slice_of(size(), communicator_.rank(), ranks);
    std::vector<double> sum(static_cast<std::size_t>(slice.second - slice.first));
    // A chunk a rank at a time. Each rank adds its slice of all their products in index order, so that none holds more than
    // the whole of its own product and of what is sent and received.
    for (std::int64_t first = 0; first < chunks; first += ranks) {
        const std::int64_t chunk = first + communicator_.rank();
        const auto out = core::collectively(communicator_, [&] {
            core::check_interrupt();
            return chunk < chunks ? cut(chunk_product(chunk, v), ranks)
                                  : std::vector<core::Bytes>(static_cast<std::size_t>(ranks));
        });
        for (const auto& bytes : communicator_.exchange(out)) {
            const auto part = core::from_bytes<double>(bytes);
            for (std::size_t i = 0; i < part.size(); ++i) sum[i] += part[i];
        }
    }
    at::Tensor result = at::empty({size()}, at::kDouble);
    double* end = result.data_ptr<double>();
    for (const auto& bytes : communicator_.all_gather(core::as_bytes(sum))) {
        const auto part = core::from_bytes<double>(bytes);
        end = std::copy(part.begin(), part.end(), end);
    }
    result /= static_cast<double>(samples_.size());
    if (!at::isfinite(result).all().item<bool>()) {
        throw core::RunError(
            "The loss has no finite second derivatives at this model (its logits overflow); its curvature "
            "cannot "
            "be measured.");
    }
    return result;
}

}  // namespace thalweg::analysis
