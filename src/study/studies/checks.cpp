#include "checks.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <memory>

#include "common.hpp"
#include "thalweg/aggregator/matching.hpp"
#include "thalweg/aggregator/stage.hpp"
#include "thalweg/core/registry.hpp"

namespace thalweg::study {

void require_matching(const core::Value& method, const core::Value& options) {
    const auto least = at_place(method, [&] {
        aggregator::require_alignment_method(method.as_text());
        const auto stage = core::Registry<std::unique_ptr<aggregator::Stage>>::make(
            aggregator::parse_stage(method.as_text()));
        const auto traits = stage->traits();
        return traits.needs_holdout ? std::int64_t{traits.min_holdout} : 0;
    });
    const auto& calibration = options["samples"]["calibration"];
    if (calibration.as_int() < least)
        calibration.reject(fmt::format("{} looks at samples, at least {}", method.as_text(), least));
}

void require_different(const core::Value& list) {
    const auto& items = list.items();
    for (auto item = items.begin(); item != items.end(); ++item) {
        if (std::find(items.begin(), item, *item) != item)
            item->reject(fmt::format("{} stands in the list before; leave it out", core::to_flow(*item)));
    }
}

void require_rising(const core::Value& list) {
    double last = -std::numeric_limits<double>::infinity();
    for (const auto& item : list.items()) {
        if (item.as_number() <= last) item.reject("these rise: each is above the one before it");
        last = item.as_number();
    }
}

void require_name(const core::Value& name) {
    constexpr std::size_t longest = 40;
    const auto label = label_of(name);
    if (label.empty() || label.front() == '-' || label.size() > longest)
        name.reject(
            fmt::format("'{}' cannot name files and figures: a name begins with one of a to z or a digit, "
                        "and has at most "
                        "{} bytes",
                        name.as_text(), longest));
}

const core::Value* steps_in(const core::Value& options) {
    const core::Value* clients = options["experiment"].find("clients");
    return clients != nullptr && clients->has("steps") ? clients->find("steps") : nullptr;
}

void require_epochs(const core::Value& options) {
    if (const core::Value* steps = steps_in(options))
        steps->reject("this would take the place of the epochs that the study sets; leave it out");
}

}  // namespace thalweg::study
