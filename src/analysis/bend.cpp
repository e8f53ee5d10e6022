#include <torch/types.h>

#include <algorithm>
#include <cmath>
#include <span>

#include "blend.hpp"
#include "thalweg/analysis/paths.hpp"
#include "thalweg/clients/training.hpp"
#include "thalweg/core/error.hpp"
#include "thalweg/core/interrupt.hpp"
#include "thalweg/core/schema.hpp"

namespace thalweg::analysis {

namespace {

/// Of the base rate (Garipov et al.'s programs).
double rate_factor(std::int64_t step, std::int64_t steps) {
    constexpr double last = 0.01;
    const double done = static_cast<double>(step) / static_cast<double>(steps);
    if (done <= 0.5) return 1;
    return done <= 0.9 ? 1 - (done - 0.5) / 0.4 * (1 - last) : last;
}

void check(const model::ModelGraph& graph, const model::Parameters& a, const model::Parameters& b,
           const data::SampleSet& samples, const std::string& kind, const BendOptions& options) {
    if (kind != "bezier" && kind != "polygon")
        throw core::UsageError(core::unknown_name("bent path", kind, {"bezier", "polygon"}));
    if (options.epochs < 1 || options.batch_size < 1 || !(options.lr > 0) || !std::isfinite(options.lr)) {
        throw core::UsageError(
            "A path is bent in at least one epoch of batches of at least one sample, with a "
            "learning rate above 0.");
    }
    if (!(*a.layout == *b.layout) || a.is_double() || b.is_double())
        throw core::RunError(
            "Only single-precision models of one architecture can be joined by a bent path.");
    if (has_batch_norm(graph) && options.batch_size < 2) {
        throw core::UsageError(
            "A path between models with batch norms is bent on batches of at least two samples: one value "
            "has no "
            "variance.");
    }
    std::int64_t width = 1;
    for (const auto size : graph.input_shape()) width *= size;
    if (samples.size() < 2 || samples.width() != width) {
        throw core::RunError("A path is bent on at least two samples of the model's shape; there are " +
                             std::to_string(samples.size()) + " of " + std::to_string(samples.width()) +
                             " numbers each.");
    }
}

std::unique_ptr<clients::Algorithm> make_sgd(const BendOptions& options) {
    const auto given = core::Value::map({{"kind", core::Value::of("sgd")},
                                         {"lr", core::Value::of(options.lr)},
                                         {"momentum", core::Value::of(options.momentum)}});
    return core::Registry<std::unique_ptr<clients::Algorithm>>::make(
        core::resolve_plugin("algorithm", "kind", given, "bend"));
}

/// One batch in memory that is kept from step to step.
class Batches {
  public:
    Batches(const model::ModelGraph& graph, const data::SampleSet& samples, std::int64_t batch_size,
            std::uint64_t seed)
        : samples_(samples), order_(seed, 0, 0, samples.size(), batch_size) {
        std::vector<std::int64_t> shape = graph.input_shape();
        const std::int64_t room = std::min(batch_size, samples.size());
        shape.insert(shape.begin(), room);
        x_ = at::empty(shape, at::kFloat);
        y_ = at::empty({room}, at::kLong);
    }
    std::int64_t an_epoch() const { return order_.batches_per_epoch(); }
    std::pair<at::Tensor, at::Tensor> next() {
        const auto indices = order_.next();
        samples_.gather(indices, x_.data_ptr<float>(), y_.data_ptr<std::int64_t>());
        const auto count = static_cast<std::int64_t>(indices.size());
        return {x_.narrow(0, 0, count), y_.narrow(0, 0, count)};
    }

  private:
    const data::SampleSet& samples_;
    clients::BatchOrder order_;
    at::Tensor x_, y_;
};

}  // namespace

model::Parameters train_bend(const model::ModelGraph& graph, const model::Parameters& a,
                             const model::Parameters& b, const std::string& kind,
                             const data::SampleSet& samples, const BendOptions& options, std::uint64_t seed) {
    check(graph, a, b, samples, kind, options);
    model::Parameters bend = interpolate(a, b, 0.5), point = bend.clone();
    const auto step = clients::make_local_step(graph);
    step->bind(point);
    step->draw_from(core::Random(seed, "bend dropout"));
    const auto sgd = make_sgd(options);
    const std::int64_t size = graph.layout->trainable_size();
    sgd->start(size);
    Batches batches(graph, samples, options.batch_size, seed);
    core::Random random(seed, "bend");
    const bool needs_two = has_batch_norm(graph);
    const std::int64_t steps = options.epochs * batches.an_epoch();
    const at::Tensor from = a.values.contiguous(), to = b.values.contiguous();
    const float *start = from.data_ptr<float>(), *end = to.data_ptr<float>();
    float *free = bend.data(), *here = point.data();
    std::vector<float> gradient(static_cast<std::size_t>(size));
    for (std::int64_t s = 0; s < steps; ++s) {
        core::check_interrupt();
        const double t = random.uniform();
        const auto [x, y] = batches.next();
        if (needs_two && y.size(0) < 2) continue;  // one value has no variance
        const Blend blend = kind == "bezier" ? bezier(t) : polygon(t);
        for (std::int64_t i = 0; i < size; ++i)
            here[i] = static_cast<float>(blend.a * start[i] + blend.bend * free[i] + blend.b * end[i]);
        const double loss = step->compute(x, y);
        if (!std::isfinite(loss)) {
            throw core::RunError("Bending the path diverged at step " + std::to_string(s + 1) + " of " +
                                 std::to_string(steps) + ": the loss is not finite; try a smaller rate.");
        }
        // The chain rule; the decay is that of the point on the path.
        const float* of_point = step->gradient().data_ptr<float>();
        for (std::int64_t i = 0; i < size; ++i) {
            gradient[static_cast<std::size_t>(i)] =
                static_cast<float>(blend.bend * (of_point[i] + options.weight_decay * here[i]));
        }
        sgd->step({free, static_cast<std::size_t>(size)}, gradient, options.lr * rate_factor(s, steps));
    }
    return bend;
}

}  // namespace thalweg::analysis
