#pragma once

#include <vector>

#include "thalweg/aggregator/stage.hpp"

namespace thalweg::aggregator {

/// ‖θ_j − θ_k‖² over trainable entries for all pairs of the round's updates, as a K×K matrix by rows, in double. One model
/// after another visits all ranks: beside its own updates a rank holds one more. Cost O(K²·d ÷ ranks). Collective; the
/// same bits on any number of ranks.
std::vector<double> squared_distances(const std::vector<Update>& updates, const FusionContext& context);

}  // namespace thalweg::aggregator
