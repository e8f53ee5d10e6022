#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "thalweg/analysis/measures.hpp"
#include "thalweg/core/random.hpp"
#include "thalweg/core/registry.hpp"
#include "thalweg/core/value.hpp"
#include "thalweg/model/graph.hpp"

namespace thalweg::analysis {

/// Where the noise of a valley comes from. Registry kind `noise`.
class Noise {
  public:
    virtual ~Noise() = default;
    /// One number for each of `places` (elements of the trainable vector, increasing): a draw for the model θ =
    /// `parameters`, of any length, for it is scaled afterwards.
    virtual std::vector<double> draw(const model::ModelGraph& graph, const model::Parameters& parameters,
                                     std::span<const std::int64_t> places, core::Random& random) const = 0;
};
using NoiseRegistration = core::Registration<std::unique_ptr<Noise>>;

/// The noise that resolved options name, `gaussian` or `{kind: sparse, fraction: 0.1}`; null: gaussian. UsageError.
std::unique_ptr<Noise> make_noise(const core::Value& options);

/// A direction through a model and the points on it.
struct ValleyOptions {
    core::Value noise{};  ///< see make_noise
    /// The share r of the entries that get |ε|·sign θ, the others −|ε|·sign θ; sign 0 counts as +. Absent: not controlled.
    std::optional<double> sign_ratio{};
    double scale = 1;             ///< s > 0: ‖ε‖ = s‖θ‖
    std::string norm = "global";  ///< `global`: over the part; `filter`: filter by filter
    std::int64_t points = 21;     ///< ≥ 3, λ evenly spaced from −1 to 1
    std::int64_t repeats = 5;     ///< directions drawn
    /// Which entries get noise: all, classifier (the last affine layer), features (all others), batch_norm, or the name of
    /// a module or tensor.
    std::string part = "all";
    bool reset_batch_norm = false;  ///< at every point
};

struct Valley {
    std::vector<double> lambdas, loss, accuracy;  ///< means over repeats
    /// [repeat][point]; one repeat alone where all directions are equal, for the noise draws nothing (as `sign`)
    std::vector<std::vector<double>> errors_by_repeat;
    /// Mean error (a fraction) over λ < 0 minus over λ > 0, the mean over repeats, with its 95% Student-t interval over
    /// repeats (NaN for one).
    double asymmetry = 0, asymmetry_low = 0, asymmetry_high = 0;
    std::vector<double> asymmetries;  ///< of each repeat
    std::optional<double> sign_ratio{};
};

/// Loss and error at θ + λε for λ in [−1, 1] (Li et al., *Exploring and Exploiting the Asymmetric Valley of DNNs*, NeurIPS
/// 2024). `calibration` (for reset_batch_norm) may be null without it. Points and repeats are spread over the ranks. UsageError
/// for options out of range, an unknown noise, or a part that names nothing; RunError for a part without noise, which cannot be
/// scaled. Collective; the same bits on any number of ranks.
Valley valley(const model::ModelGraph& graph, const model::Parameters& parameters,
              const data::SampleSet& samples, const ValleyOptions& options, std::uint64_t seed,
              std::shared_ptr<const data::SampleSet> calibration, core::Communicator& communicator);

/// UsageError for what valley() refuses of these options with any parameters of the model. Not collective.
void require_valley(const model::ModelGraph& graph, const ValleyOptions& options);

/// Elements of the trainable vector that belong to `part` (see ValleyOptions), increasing. UsageError with the valid names
/// when it names nothing.
std::vector<std::int64_t> part_places(const model::ModelGraph& graph, const std::string& part);

/// ε of repeat `repeat`: [layout.size()] in double, zero outside the part and in buffers. With `norm` = filter, the entries
/// of more than one axis have filters, the slices along their first axis, and each slice of ε has s times the length of
/// θ's; biases and norms get no noise, as in the figures of Li et al., *Visualizing the Loss Landscape*, NeurIPS 2018. Not
/// collective.
at::Tensor valley_direction(const model::ModelGraph& graph, const model::Parameters& parameters,
                            const ValleyOptions& options, std::uint64_t seed, std::int64_t repeat);

}  // namespace thalweg::analysis
