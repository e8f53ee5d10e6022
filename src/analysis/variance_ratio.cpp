#include <torch/types.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "thalweg/analysis/measures.hpp"

namespace thalweg::analysis {

namespace {

double mean_variance(const aggregator::ChannelMoments& moments) {
    const std::vector<double> variances = moments.variance();
    double sum = 0;
    for (const double variance : variances) sum += variance;
    return sum / static_cast<double>(variances.size());
}

/// Over the channels, the mean of the ends that have them.
double mean_variance_of_ends(const aggregator::EndMoments& ends, std::size_t layer,
                             const std::vector<double>& weights) {
    std::vector<std::vector<double>> variances;
    for (const auto& end : ends.ends) variances.push_back(end[layer].variance());
    double sum = 0;
    const std::size_t channels = variances.front().size();
    for (std::size_t c = 0; c < channels; ++c) {
        double of_channel = 0, weight = 0;
        for (std::size_t k = 0; k < variances.size(); ++k) {
            if (!ends.held.empty() && !ends.held[k][layer][c]) continue;
            of_channel += weights.at(k) * variances[k][c];
            weight += weights.at(k);
        }
        if (weight > 0) sum += of_channel / (ends.held.empty() ? 1.0 : weight);
    }
    return sum / static_cast<double>(channels);
}

/// Σ w_k σ_k of one channel over the ends that have it.
double mean_deviation_of_ends(const aggregator::EndMoments& ends, std::size_t layer, std::size_t channel,
                              const std::vector<double>& weights,
                              const std::vector<std::vector<double>>& variances) {
    double sum = 0, weight = 0;
    for (std::size_t k = 0; k < variances.size(); ++k) {
        if (!ends.held.empty() && !ends.held[k][layer][channel]) continue;
        sum += weights.at(k) * std::sqrt(variances[k][channel]);
        weight += weights.at(k);
    }
    return ends.held.empty() ? sum : sum / weight;
}

/// Mean, least and largest of those that are numbers.
void summarise(DeviationRatio& ratio) {
    ratio.mean = 0;
    ratio.min = std::numeric_limits<double>::infinity();
    ratio.max = -ratio.min;
    std::int64_t count = 0;
    for (const double value : ratio.channels) {
        if (std::isnan(value)) continue;
        ratio.mean += value;
        ratio.min = std::min(ratio.min, value);
        ratio.max = std::max(ratio.max, value);
        ++count;
    }
    ratio.mean /= static_cast<double>(count);
    if (count == 0) ratio.min = ratio.max = ratio.mean;
}

}  // namespace

std::vector<std::size_t> variance_ratio_operations(const model::ModelGraph& graph) {
    std::vector<std::size_t> operations = graph.affine_operations();
    if (!operations.empty()) operations.pop_back();  // the classifier
    return operations;
}

std::vector<LayerRatio> variance_ratio(const model::Parameters& merged, const aggregator::EndMoments& ends,
                                       const aggregator::FusionContext& context,
                                       aggregator::StatisticsSource& source,
                                       const std::vector<double>& weights) {
    const at::NoGradGuard no_grad;
    std::vector<aggregator::MomentPoint> points;
    for (const std::size_t operation : ends.operations) {
        points.push_back(aggregator::moment_point(context.graph, operation));
    }
    const auto measured = source.of_merged(merged, points, context.members, weights);
    std::vector<LayerRatio> ratios;
    for (std::size_t layer = 0; layer < ends.operations.size(); ++layer) {
        const double mean_of_ends = mean_variance_of_ends(ends, layer, weights);
        ratios.push_back({context.graph.operations[ends.operations[layer]].name,
                          mean_variance(measured[layer]) / mean_of_ends});
    }
    return ratios;
}

std::vector<LayerRatio> variance_ratio(const model::Parameters& merged, const aggregator::FusionState& ends,
                                       const aggregator::FusionContext& context,
                                       aggregator::StatisticsSource& source,
                                       const std::vector<double>& weights) {
    const auto moments =
        aggregator::end_moments(ends, context, source, variance_ratio_operations(context.graph));
    return variance_ratio(merged, moments, context, source, weights);
}

std::vector<DeviationRatio> deviation_ratio(const model::Parameters& merged,
                                            const aggregator::EndMoments& ends,
                                            const aggregator::FusionContext& context,
                                            aggregator::StatisticsSource& source,
                                            const std::vector<double>& weights) {
    const at::NoGradGuard no_grad;
    std::vector<aggregator::MomentPoint> points;
    for (const std::size_t operation : ends.operations) {
        points.push_back(aggregator::moment_point(context.graph, operation));
    }
    const auto measured = source.of_merged(merged, points, context.members, weights);
    std::vector<DeviationRatio> ratios;
    for (std::size_t layer = 0; layer < ends.operations.size(); ++layer) {
        std::vector<std::vector<double>> variances;
        for (const auto& end : ends.ends) variances.push_back(end[layer].variance());
        DeviationRatio ratio{.layer = context.graph.operations[ends.operations[layer]].name, .channels = {}};
        const std::vector<double> merged_variances = measured[layer].variance();
        for (std::size_t c = 0; c < merged_variances.size(); ++c) {
            const double of_ends = mean_deviation_of_ends(ends, layer, c, weights, variances);
            ratio.channels.push_back(of_ends > 0 ? std::sqrt(merged_variances[c]) / of_ends
                                                 : std::numeric_limits<double>::quiet_NaN());
        }
        summarise(ratio);
        ratios.push_back(std::move(ratio));
    }
    return ratios;
}

}  // namespace thalweg::analysis
