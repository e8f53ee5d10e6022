#pragma once

namespace thalweg::analysis {

/// What A, the free point and B count at t on a bent path.
struct Blend {
    double a, bend, b;
};

/// On a quadratic Bézier curve, whose control point the free one is.
inline Blend bezier(double t) {
    return {(1 - t) * (1 - t), 2 * t * (1 - t), t * t};
}

/// Straight to the free point (t = ½) and straight on.
inline Blend polygon(double t) {
    return t <= 0.5 ? Blend{1 - 2 * t, 2 * t, 0.0} : Blend{0.0, 2 - 2 * t, 2 * t - 1};
}

}  // namespace thalweg::analysis
