#include <algorithm>
#include <cmath>
#include <variant>

#include "repair_support.hpp"

namespace thalweg::aggregator {

namespace {

/// The values that are not the same for every sample.
std::vector<bool> depend_on_input(const model::ModelGraph& graph) {
    std::vector<bool> depends(graph.operations.size() + 1, false);
    depends[0] = true;
    for (const auto& operation : graph.operations) {
        depends[static_cast<std::size_t>(operation.output)] =
            std::any_of(operation.inputs.begin(), operation.inputs.end(),
                        [&](int input) { return depends[static_cast<std::size_t>(input)]; });
    }
    return depends;
}

/// The axis of its output whose channels an operation's own entries scale one by one; 0 where it has none that do.
std::int64_t scaled_axis(const model::ModelGraph& graph, std::size_t operation) {
    const auto& kind = graph.operations[operation].kind;
    if (affine_entries(kind).weight < 0) return 0;
    const auto* norm = std::get_if<model::LayerNorm>(&kind);
    if (norm != nullptr && !norm->channels_first && norm->axes != 1) return 0;
    return graph.channel_axis(operation);
}

/// Follows an addend back through what keeps channels apart and is linear, as long as nobody else reads on the way.
/// Writes the operation found and its gain into the addend; the axis its channels have at the sum, 0 where there is none.
std::int64_t find_free(const model::ModelGraph& graph, const std::vector<int>& uses, Addend& addend) {
    int value = addend.value;
    double gain = addend.factor;
    std::vector<const model::Permute*> permutes;  // from the sum back
    while (value != 0 && graph.consumers(value).size() == 1) {
        const auto index = static_cast<std::size_t>(value - 1);
        const auto& operation = graph.operations[index];
        if (const auto* scaled = std::get_if<model::Affine>(&operation.kind)) {
            if (scaled->offset != 0) return 0;
            gain *= scaled->factor;
        } else if (const auto* permute = std::get_if<model::Permute>(&operation.kind)) {
            permutes.push_back(permute);
        } else if (!std::holds_alternative<model::Dropout>(operation.kind)) {
            const auto [weight, bias] = affine_entries(operation.kind);
            std::int64_t axis = scaled_axis(graph, index);
            // An entry that several operations share cannot be scaled for one of them.
            const auto shared = [&](int entry) {
                return entry >= 0 && uses[static_cast<std::size_t>(entry)] > 1;
            };
            if (axis == 0 || shared(weight) || shared(bias) || gain == 0) return 0;
            for (auto step = permutes.rbegin(); step != permutes.rend(); ++step) {
                const auto& order = (*step)->order;
                axis = std::find(order.begin(), order.end(), axis) - order.begin();
            }
            addend.free = index;
            addend.gain = gain;
            return axis;
        }
        value = operation.inputs.front();
    }
    return 0;
}

/// The number nearest to 1, of those in [1/1000, 1000], that a branch must be scaled by for the sum to have the wanted
/// variance: Var(x + a f) = Var(x + f) + 2 (a − 1) Cov(x + f, f) + (a − 1)² Var(f).
std::optional<double> branch_scale(double variance_of_sum, double covariance, double variance_of_branch,
                                   double wanted_variance) {
    const double excess = variance_of_sum - wanted_variance;
    const double discriminant = covariance * covariance - variance_of_branch * excess;
    if (discriminant < 0) return {};
    // The root of smaller size without cancellation; 0 exactly where nothing is in excess.
    const double q = -(covariance + std::copysign(std::sqrt(discriminant), covariance));
    const double near = q == 0 ? 0 : excess / q, far = q / variance_of_branch;
    for (const double a : {1 + near, 1 + far}) {
        if (a >= 1e-3 && a <= 1e3) return a;
    }
    return {};
}

/// What each channel is scaled by, and by how much its mean is off afterwards.
struct Mending {
    std::vector<double> scale, shift;
    std::int64_t left = 0;
};

/// Both addends are scaled alike.
Mending mend_both(const ChannelMoments& sum, const Target& target, const RepairOptions& options) {
    const auto mean = sum.mean(), variance = sum.variance();
    Mending mending{std::vector<double>(mean.size(), 1), std::vector<double>(mean.size(), 0)};
    for (std::size_t c = 0; c < mean.size(); ++c) {
        if (options.mode != RepairOptions::Mode::reshift) {
            if (is_dead(mean[c], variance[c], target.deviation[c])) {
                mending.left += 1;
            } else {
                mending.scale[c] = target.deviation[c] / std::sqrt(variance[c]);
            }
        }
        const double wanted = options.mode == RepairOptions::Mode::rescale ? mean[c] : target.mean[c];
        mending.shift[c] = wanted - mending.scale[c] * mean[c];
    }
    return mending;
}

/// Only the branch is scaled: sum = shortcut + factor · branch.
Mending mend_branch(const ChannelMoments& sum, const ChannelMoments& shortcut, const ChannelMoments& branch,
                    const Target& target, const RepairOptions& options) {
    const auto mean = sum.mean(), variance = sum.variance(), variance_of_shortcut = shortcut.variance();
    const auto branch_mean = branch.mean(), branch_variance = branch.variance();
    Mending mending{std::vector<double>(mean.size(), 1), std::vector<double>(mean.size(), 0)};
    for (std::size_t c = 0; c < mean.size(); ++c) {
        const double wanted = target.deviation[c];
        if (options.mode != RepairOptions::Mode::reshift) {
            std::optional<double> scale;
            if (!is_dead(branch_mean[c], branch_variance[c], wanted)) {
                const double covariance = (variance[c] + branch_variance[c] - variance_of_shortcut[c]) / 2;
                scale = branch_scale(variance[c], covariance, branch_variance[c], wanted * wanted);
            }
            mending.left += scale ? 0 : 1;
            mending.scale[c] = scale.value_or(1);
        }
        const double scaled_mean = mean[c] + (mending.scale[c] - 1) * branch_mean[c];
        const double wanted_mean = options.mode == RepairOptions::Mode::rescale ? mean[c] : target.mean[c];
        mending.shift[c] = wanted_mean - scaled_mean;
    }
    return mending;
}

/// The addend as it is added, not as it was measured.
ChannelMoments times(ChannelMoments moments, double factor) {
    for (double& sum : moments.sum) sum *= factor;
    for (double& sum : moments.sum_of_squares) sum *= factor * factor;
    return moments;
}

}  // namespace

std::vector<ResidualSum> residual_sums(const model::ModelGraph& graph, bool classifier) {
    const auto affine = graph.affine_operations();
    const auto depends = depend_on_input(graph);
    const auto uses = entry_uses(graph);
    std::vector<ResidualSum> sums;
    for (std::size_t i = 0; i < graph.operations.size(); ++i) {
        const auto& operation = graph.operations[i];
        const auto* add = std::get_if<model::Add>(&operation.kind);
        if (add == nullptr || operation.inputs[0] == operation.inputs[1] || affine.empty() ||
            (!classifier && i > affine.back())) {
            continue;
        }
        const auto& shape = graph.shapes[static_cast<std::size_t>(operation.output)];
        const bool hidden = std::all_of(operation.inputs.begin(), operation.inputs.end(), [&](int input) {
            const auto value = static_cast<std::size_t>(input);
            return input != 0 && depends[value] && graph.shapes[value] == shape;
        });
        if (!hidden) continue;
        ResidualSum sum{i,
                        moment_point(graph, i).axis,
                        {Addend{.value = operation.inputs[0], .factor = 1, .free = {}, .gain = 1},
                         Addend{.value = operation.inputs[1], .factor = add->factor, .free = {}, .gain = 1}}};
        for (auto& addend : sum.addends) {
            if (find_free(graph, uses, addend) != sum.axis) addend.free.reset();
        }
        sums.push_back(sum);
    }
    return sums;
}

void repair_residual_sum(model::Parameters& merged, const ResidualSum& sum, const Target& target,
                         const FusionContext& context, StatisticsSource& source,
                         const std::vector<double>& weights, const RepairOptions& options,
                         RepairReport& report) {
    const auto& operations = context.graph.operations;
    const auto point = [&](const Addend& addend) {
        return MomentPoint{static_cast<std::size_t>(addend.value - 1), sum.axis};
    };
    const MomentPoint whole{sum.operation, sum.axis};
    const auto& [first, second] = sum.addends;
    const bool both = first.free && second.free;
    Mending mending;
    if (both) {
        mending = mend_both(source.of_merged(merged, std::vector{whole}, context.members, weights).front(),
                            target, options);
    } else {
        std::vector<MomentPoint> points{point(first), point(second)};
        const bool swapped = points[0].operation > points[1].operation;
        if (swapped) std::swap(points[0], points[1]);
        points.push_back(whole);
        const auto moments = source.of_merged(merged, points, context.members, weights);
        const auto u = times(moments[swapped ? 1 : 0], first.factor);
        const auto v = times(moments[swapped ? 0 : 1], second.factor);
        mending = mend_branch(moments[2], first.free ? v : u, first.free ? u : v, target, options);
    }

    const auto has_bias = [&](const Addend& addend) {
        return addend.free && affine_entries(operations[*addend.free].kind).bias >= 0;
    };
    const Addend* shifted = has_bias(first) ? &first : has_bias(second) ? &second : nullptr;
    for (const auto& addend : sum.addends) {
        if (!addend.free) continue;
        std::vector<double> shift(mending.shift.size(), 0);
        if (&addend == shifted) {
            std::transform(mending.shift.begin(), mending.shift.end(), shift.begin(),
                           [&](double amount) { return amount / addend.gain; });
        }
        fold(merged, operations[*addend.free].kind, mending.scale, shift);
    }
    report.residual_sums += 1;
    report.residual_channels += static_cast<std::int64_t>(mending.scale.size());
    report.residual_channels_left += mending.left;
    report.layers_without_bias += shifted == nullptr ? 1 : 0;
}

}  // namespace thalweg::aggregator
