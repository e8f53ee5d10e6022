#include "estimates.hpp"

#include <cmath>
#include <stdexcept>

#include "common.hpp"

namespace thalweg::study {

namespace {

std::vector<double> known(const std::vector<double>& values, double scale) {
    std::vector<double> numbers;
    for (const double value : values) {
        if (!std::isnan(value)) numbers.push_back(scale * value);
    }
    return numbers;
}

}  // namespace

Estimate known_mean(const std::vector<double>& values, double scale) {
    return mean_of(known(values, scale));
}

double known_p(const std::vector<double>& values) {
    return sign_flip_p(known(values, 1));
}

std::vector<double> differences_of(const std::vector<double>& a, const std::vector<double>& b) {
    if (a.size() != b.size()) throw std::logic_error("differences of lists of two lengths");
    std::vector<double> all;
    for (std::size_t i = 0; i < a.size(); ++i) all.push_back(a[i] - b[i]);
    return all;
}

std::string counted_text(const Estimate& estimate, std::size_t units, int digits) {
    std::string text = estimate_text(estimate, digits);
    if (estimate.count < static_cast<std::int64_t>(units))
        text += " (" + std::to_string(estimate.count) + " of " + std::to_string(units) + ")";
    return text;
}

std::string counts_text(std::int64_t least, std::size_t units, const std::string& what) {
    const std::string all = std::to_string(units) + " " + what;
    if (least >= static_cast<std::int64_t>(units)) return all;
    return std::to_string(least) + " to " + all + ", for trainings diverged";
}

Finding::Seen seen_above(const Estimate& estimate, double threshold) {
    if (estimate.low > threshold) return Finding::Seen::yes;
    if (estimate.high < threshold) return Finding::Seen::no;
    return Finding::Seen::unsettled;
}

Finding::Seen seen_below(const Estimate& estimate, double threshold) {
    if (estimate.high < threshold) return Finding::Seen::yes;
    if (estimate.low > threshold) return Finding::Seen::no;
    return Finding::Seen::unsettled;
}

Json json_of(const Estimate& estimate) {
    return {
        {"value", estimate.value}, {"low", estimate.low}, {"high", estimate.high}, {"count", estimate.count}};
}

void add_point(report::Series& series, double x, const Estimate& estimate) {
    series.x.push_back(x);
    series.y.push_back(estimate.value);
    series.low.push_back(estimate.low);
    series.high.push_back(estimate.high);
}

}  // namespace thalweg::study
