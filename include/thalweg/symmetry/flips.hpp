#pragma once

#include <vector>

#include "thalweg/model/graph.hpp"
#include "thalweg/symmetry/gauge.hpp"
#include "thalweg/symmetry/symmetry.hpp"

namespace thalweg::symmetry {

/// A permutation and sign flips: θ → π(s ∘ θ). Signs belong to the channels as they stand in θ; none: all +1.
struct Element {
    Permutations permutations;
    /// One list a group, ±1 for each of its channels; or empty, as is the whole where nothing is flipped.
    std::vector<std::vector<double>> signs{};
};

/// The groups whose channels may be multiplied by −1 one by one beside being permuted: every tensor that the group acts on
/// turns its sign with the channel's. That is so between layers with odd activations (tanh) and nothing else that ties the
/// sign; a batch norm in between has signs of its own on either side, and such groups are left out.
class Flips {
  public:
    Flips(const model::ModelGraph& graph, const Symmetries& symmetries);

    bool has(std::size_t group) const { return !channels_[group].empty(); }
    bool any() const;
    /// The model with channel c of group g multiplied by signs[g][c]; an empty list: a group left alone.
    model::Parameters multiply(const model::Parameters& model,
                               const std::vector<std::vector<double>>& signs) const;
    /// π(s ∘ θ).
    model::Parameters apply(const model::Parameters& model, const Symmetries& symmetries,
                            const Element& element) const;
    /// The element that acts like `first`, then `second`.
    Element compose(const Element& first, const Element& second) const;
    /// Random permutations, and random signs where there are any.
    Element random(const Symmetries& symmetries, core::Random& random) const;

  private:
    Gauge gauge_;
    std::vector<std::vector<std::int64_t>>
        channels_;  ///< of the gauge, for each channel of each group; empty: none
};

}  // namespace thalweg::symmetry
