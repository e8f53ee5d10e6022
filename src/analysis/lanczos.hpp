#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <vector>

namespace thalweg::analysis {

/// A = QTQᵀ of a symmetric operator on Krylov's space, by Lanczos' method with full reorthogonalisation (every vector twice
/// against all before it), in double.
class Lanczos {
  public:
    using Operator = std::function<at::Tensor(const at::Tensor&)>;
    /// What ranks that go through the same steps together agree on, from what this one finds; may be collective.
    using Decide = std::function<bool(bool mine)>;
    /// `start` [n], not zero.
    Lanczos(
        Operator apply, const at::Tensor& start, Decide decide = [](bool mine) { return mine; });

    /// One product more. False when the space is exhausted: T's eigenvalues are A's then; `restart` goes on.
    bool step();
    /// Goes on from `vector`, made orthogonal to what is there. False when nothing of it is left.
    bool restart(const at::Tensor& vector);
    std::int64_t steps() const { return static_cast<std::int64_t>(alpha_.size()); }

    struct Ritz {
        std::vector<double> values;     ///< ascending
        std::vector<double> weights;    ///< square of each eigenvector's first component; their sum is 1
        std::vector<double> residuals;  ///< ‖Av − λv‖
    };
    Ritz ritz() const;

  private:
    at::Tensor orthogonal(at::Tensor vector) const;

    Operator apply_;
    Decide decide_;
    std::vector<at::Tensor> basis_;
    std::vector<double> alpha_, beta_;  ///< T's diagonal, and beside it
    double scale_ = 0;                  ///< largest coefficient so far
};

}  // namespace thalweg::analysis
