#include "units.hpp"

#include "estimates.hpp"

namespace thalweg::study {

std::vector<double> column(const std::vector<std::vector<double>>& rows, std::size_t index) {
    std::vector<double> numbers;
    for (const auto& row : rows) numbers.push_back(row[index]);
    return numbers;
}

Finding::Seen seen_by(double p, double value) {
    if (!(p < 0.01)) return Finding::Seen::unsettled;
    return value > 0 ? Finding::Seen::yes : Finding::Seen::no;
}

Json json_of(const Estimate& estimate, double p) {
    Json json = json_of(estimate);
    json["p"] = p;
    return json;
}

}  // namespace thalweg::study
