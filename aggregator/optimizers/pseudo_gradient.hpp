#pragma once

#include "thalweg/aggregator/server_optimizer.hpp"

namespace thalweg::aggregator {

/// Treats Δ = fused − previous, over trainable entries, as the (negative) gradient of a server's step (Reddi et al.,
/// *Adaptive Federated Optimization*, ICLR 2021, algorithm 2; no bias correction, as there). Running statistics and
/// counters are the fused model's. All arithmetic is in double.
class PseudoGradientOptimizer : public ServerOptimizer {
  public:
    model::Parameters step(const model::Parameters& previous, const model::Parameters& fused) final;
    Memory memory() const final;
    bool keeps_memory() const final { return true; }
    void remember(const Memory& memory) final;

  protected:
    /// Names of the vectors it keeps, [trainable_size()] doubles each, all `start` before the first step.
    explicit PseudoGradientOptimizer(std::vector<std::string> names, std::vector<double> start);
    /// What is added to the previous model; updates the kept vectors, in the order of the names.
    virtual at::Tensor direction(const at::Tensor& delta, std::vector<at::Tensor>& kept) const = 0;

  private:
    std::vector<std::string> names_;
    std::vector<double> start_;
    std::vector<at::Tensor> kept_;  ///< empty before the first step
};

}  // namespace thalweg::aggregator
