#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

#include "thalweg/core/random.hpp"
#include "thalweg/model/graph.hpp"
#include "thalweg/model/parameters.hpp"
#include "thalweg/symmetry/symmetry.hpp"

namespace thalweg::symmetry {

/// The symmetries of a graph that multiply channels instead of moving them: what a channel is multiplied by on the way
/// in, its readers divide by. `sign`: by −1, exact where an activation is odd (tanh). `scale`: by positive numbers, exact
/// where it is positively homogeneous (ReLU).
struct Gauge {
    enum class Kind { sign, scale } kind = Kind::sign;

    /// Channels made by one module that may be multiplied, each by its own number.
    struct Group {
        std::string name;
        std::int64_t first = 0, size = 0;  ///< channels [first, first + size) of all
    };
    std::vector<Group> groups;
    std::int64_t channels = 0;  ///< of all groups

    /// Every element of an entry is multiplied by the number of its channel, to the power `exponent` (1: the channel is
    /// made here, −1: read here).
    struct Mark {
        std::size_t entry;
        at::Tensor channel;  ///< int64, broadcastable to the entry's shape; −1: left alone
        int exponent = 1;
    };
    std::vector<Mark> marks;

    /// A module whose channels may not be multiplied, and what stands in the way.
    struct Fixed {
        std::string name;
        std::int64_t channels = 0;
        std::string reason;
    };
    std::vector<Fixed> fixed;
};

/// Reads the gauge off the graph, by a white list: linear maps and means pass any factor; ReLU, leaky ReLU, PReLU and max
/// pools positive ones; tanh, batch and instance norms (before them) signs; a norm's scale and shift start a new factor.
/// Everything else fixes the channels it reads. Rescalings before a norm are left out: the norm's ε makes them inexact.
Gauge derive_gauge(const model::ModelGraph& graph, Gauge::Kind kind);

/// The parameters with channel c multiplied by factors[c] (`channels` of them; ±1, or positive). The model's function
/// stays the same, running statistics included.
model::Parameters multiply(const model::Parameters& parameters, const Gauge& gauge,
                           const std::vector<double>& factors);

/// Random factors: signs, or numbers in [½, 2], log-uniform.
std::vector<double> random_factors(const Gauge& gauge, core::Random& random);

/// As the verify() of permutations: every channel multiplied at once, and each group by itself.
Proof verify(const model::ModelGraph& graph, const Gauge& gauge, core::Random& random, int draws = 3);

}  // namespace thalweg::symmetry
