#include <ATen/Functions.h>

#include "thalweg/clients/training.hpp"
#include "thalweg/model/interpreter.hpp"

namespace thalweg::clients {
namespace {

class AutogradStep final : public LocalStep {
  public:
    explicit AutogradStep(const model::ModelGraph& graph)
        : graph_(graph), gradient_(at::zeros({graph.layout->trainable_size()}, at::kFloat)) {}

    void bind(const model::Parameters& parameters) override {
        views_ = model::leaf_views(parameters, gradient_);
        views_.random = &random_;
    }

    double compute(const at::Tensor& x, const at::Tensor& y) override {
        const at::AutoGradMode recording(true);
        gradient_.zero_();  // backward adds
        const at::Tensor logits = model::forward(graph_, views_, x, model::Mode::train);
        const at::Tensor loss = at::cross_entropy_loss(logits, y);
        loss.backward();
        return loss.item<double>();
    }

    const at::Tensor& gradient() const override { return gradient_; }
    std::string name() const override { return "autograd"; }
    void draw_from(const core::Random& random) override { random_ = random; }

  private:
    const model::ModelGraph& graph_;
    at::Tensor gradient_;
    core::Random random_{0, "dropout"};
    model::Views views_;
};

}  // namespace

std::unique_ptr<LocalStep> autograd_step(const model::ModelGraph& graph) {
    return std::make_unique<AutogradStep>(graph);
}

std::unique_ptr<LocalStep> make_local_step(const model::ModelGraph& graph) {
    auto compiled = compiled_step(graph);
    return compiled ? std::move(compiled) : autograd_step(graph);
}

}  // namespace thalweg::clients
