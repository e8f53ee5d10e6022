#include "rows.hpp"

#include <cmath>
#include <limits>

namespace thalweg::study {

std::vector<double> row_in(const Json& result, const std::string& key, std::size_t count) {
    constexpr double none = std::numeric_limits<double>::quiet_NaN();
    const Json& list = result.at(key);
    if (list.is_null()) return std::vector<double>(count, none);
    std::vector<double> numbers;
    for (const auto& entry : list) numbers.push_back(entry.is_number() ? entry.get<double>() : none);
    return numbers;
}

std::vector<double> known_of(const std::vector<double>& values) {
    std::vector<double> numbers;
    for (const double value : values) {
        if (!std::isnan(value)) numbers.push_back(value);
    }
    return numbers;
}

}  // namespace thalweg::study
