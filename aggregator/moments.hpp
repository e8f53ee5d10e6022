#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "thalweg/aggregator/statistics.hpp"

namespace thalweg::aggregator {

/// How the moments of several points travel: of each [count, sums, sums of squares], one after another in one row.
std::int64_t row_width(const model::ModelGraph& graph, const std::vector<MomentPoint>& points);
/// Fills the first row_width() numbers.
void write_row(const std::vector<ChannelMoments>& all, std::span<double> row);
std::vector<ChannelMoments> read_row(const model::ModelGraph& graph, const std::vector<MomentPoint>& points,
                                     std::span<const double> row);

/// Every operation at its moment_point.
std::vector<MomentPoint> points_of(const model::ModelGraph& graph,
                                   const std::vector<std::size_t>& operations);

}  // namespace thalweg::aggregator
