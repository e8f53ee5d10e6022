#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "../context.hpp"
#include "thalweg/analysis/paths.hpp"
#include "thalweg/report/figure.hpp"

namespace thalweg::app {

struct LmcArguments {
    ModelArguments model;
    std::string a, b;
    std::string align = "none";
    std::string split = "both";
    std::string path = "line";
    analysis::CurveOptions curve;
    analysis::BendOptions bend;
    bool layers = false;
    std::string out;
};

/// Everything that is shown of it.
struct LmcResult {
    std::string path;
    bool stale_norms = false;  ///< batch norms between the ends have statistics that are not theirs
    bool moved = false;        ///< aligned, or on another path than the line
    analysis::Curve curve{};
    /// The unmended line between the models as given, when anything else was asked for.
    std::optional<analysis::Curve> before{};
    /// The same path between the same (aligned) models without the finish, when there is one.
    std::optional<analysis::Curve> unmended{};
    std::vector<analysis::LayerBarrier> layers{};
    double sign_consistency = 0;

    /// A geodesic joins the models toroid-normalised: curve, layers and sign consistency are those of them. Their logits are
    /// divided by a number each, so that their losses, other than their errors, do not compare with those of `before`.
    bool normalised() const { return path == "geodesic"; }

    /// The split whose single numbers everybody quotes: the test set when it was measured.
    const std::pair<std::string, analysis::SplitCurve>& quoted() const { return curve.splits.back(); }
};

Json result_json(const LmcResult& result);
std::string result_text(const LmcResult& result);
/// Curves and layers as figures; `data`: the data set's name.
report::Document document_of(const LmcResult& result, const LmcArguments& arguments, const std::string& data);

}  // namespace thalweg::app
