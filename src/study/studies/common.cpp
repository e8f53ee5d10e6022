#include "common.hpp"

#include <fmt/format.h>

#include <cctype>
#include <cmath>
#include <limits>

namespace thalweg::study {

double number_in(const Json& result, const std::string& key) {
    const auto& value = result.at(key);
    return value.is_number() ? value.get<double>() : std::numeric_limits<double>::quiet_NaN();
}

std::vector<double> numbers_in(const std::vector<Json>& results, const std::string& key) {
    std::vector<double> numbers;
    for (const auto& result : results) numbers.push_back(number_in(result, key));
    return numbers;
}

std::string fixed(double value, int digits) {
    if (std::isnan(value)) return "–";
    std::string text = fmt::format("{:.{}f}", value, digits);
    // what rounds to zero has no sign
    if (text.front() == '-' && text.find_first_not_of("-0.") == std::string::npos) text.erase(0, 1);
    return text;
}

std::string estimate_text(const Estimate& estimate, int digits) {
    std::string text = fixed(estimate.value, digits);
    if (!std::isnan(estimate.low))
        text += " [" + fixed(estimate.low, digits) + ", " + fixed(estimate.high, digits) + "]";
    return text;
}

std::string p_text(double p) {
    if (std::isnan(p)) return "p not known";
    return p < 0.001 ? "p < 0.001" : "p = " + fixed(p, 3);
}

bool is_mlp(const Laboratory& laboratory) {
    return laboratory.experiment.config["model"]["kind"].as_text() == "mlp";
}

std::string label_of(const core::Value& value) {
    std::string label;
    for (const char c : value.as_text()) {
        const char lower = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
        const bool fits = (lower >= 'a' && lower <= 'z') || (lower >= '0' && lower <= '9');
        label += fits ? lower : '-';
    }
    return label;
}

core::Value assignment(const std::string& key, const core::Value& value) {
    core::Value change = core::Value::of(key + "=" + core::to_flow(value));
    change.place_like(value);
    change.set_path(value.path());
    return change;
}

}  // namespace thalweg::study
