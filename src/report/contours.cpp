#include <algorithm>
#include <cmath>
#include <limits>

#include "thalweg/report/figure.hpp"

namespace thalweg::report {

std::vector<double> loss_contours(const std::vector<std::vector<double>>& losses) {
    double smallest = std::numeric_limits<double>::infinity();
    for (const auto& row : losses) {
        for (const double loss : row) smallest = std::isfinite(loss) ? std::min(smallest, loss) : smallest;
    }
    std::vector<double> contours;
    if (!std::isfinite(smallest)) return contours;
    for (const double step : {0.1, 0.2, 0.5, 1.0, 2.0, 5.0}) contours.push_back(smallest + step);
    return contours;
}

std::vector<double> accuracy_contours() {
    return {20, 40, 60, 80, 90, 95};
}

}  // namespace thalweg::report
