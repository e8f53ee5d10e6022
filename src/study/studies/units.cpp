#include "units.hpp"

#include <cmath>

#include "common.hpp"
#include "estimates.hpp"

namespace thalweg::study {

namespace {

constexpr double settled_below = 0.01;

}  // namespace

std::vector<double> column(const std::vector<std::vector<double>>& rows, std::size_t index) {
    std::vector<double> numbers;
    for (const auto& row : rows) numbers.push_back(row[index]);
    return numbers;
}

Finding::Seen seen_by(double p, double value) {
    if (!(p < settled_below)) return Finding::Seen::unsettled;
    return value > 0 ? Finding::Seen::yes : Finding::Seen::no;
}

std::string p_text(double p, std::int64_t units) {
    std::string text = p_text(p);
    // All signs alike is one of 2ⁿ cases, all opposite another.
    if (units > 0 && std::exp2(1 - static_cast<double>(units)) >= settled_below)
        text += " (p cannot reach 0.01 with " + std::to_string(units) + (units == 1 ? " unit)" : " units)");
    return text;
}

Json json_of(const Estimate& estimate, double p) {
    Json json = json_of(estimate);
    json["p"] = p;
    return json;
}

}  // namespace thalweg::study
