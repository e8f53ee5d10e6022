#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "thalweg/analysis/measures.hpp"
#include "thalweg/model/graph.hpp"

namespace thalweg::analysis {

/// A named point of a plane.
struct PlaneMark {
    std::string name;
    double x = 0, y = 0;
    Evaluation evaluation{};  ///< of the model itself; filled by surface()
};

/// θ(x, y) = origin + x·first + y·second. Running statistics take part; a running variance is never below 0.
struct Plane {
    model::Parameters origin;
    at::Tensor first, second;  ///< [layout.size()], double
    std::vector<PlaneMark> marks;
    std::vector<model::Parameters> models;  ///< at the marks
    model::Parameters at(double x, double y) const;
};

/// Through three models: x and y are lengths (Euclidean, over trainable entries), the first axis from A towards B, the second at
/// right angles to it towards C (Garipov et al., NeurIPS 2018). Marks: A at (0, 0), B at (‖B−A‖, 0), C. RunError when
/// architectures differ or the three lie on a line.
Plane plane_through(const model::Parameters& a, const model::Parameters& b, const model::Parameters& c);

/// Round one model: two random directions, Gaussian, each filter as long as the model's (Li et al., *Visualizing the Loss
/// Landscape*, NeurIPS 2018; biases and norms stay). x and y are in filter norms. Mark: the model at (0, 0).
Plane random_plane(const model::ModelGraph& graph, const model::Parameters& parameters, std::uint64_t seed);

struct SurfaceOptions {
    std::int64_t columns = 21, rows = 21;  ///< ≥ 2
    /// Of a plane with one mark: the axes go from −range to range. Of one with more: what is left free on every side of
    /// the marks, as a share of their extent.
    double range = 1, margin = 0.3;
    bool reset_batch_norm = false;  ///< at every point, marks excepted
};

struct Surface {
    std::vector<double> x, y;                         ///< coordinates of columns and rows
    std::vector<std::vector<double>> loss, accuracy;  ///< [row][column]
    std::vector<PlaneMark> marks;
};

/// The plane's grid, its points spread over the ranks. `calibration` (for reset_batch_norm) may be null without it.
/// UsageError for options out of range. Collective; the same bits on any number of ranks.
Surface surface(const model::ModelGraph& graph, const Plane& plane, const data::SampleSet& samples,
                const SurfaceOptions& options, std::shared_ptr<const data::SampleSet> calibration,
                core::Communicator& communicator);

}  // namespace thalweg::analysis
