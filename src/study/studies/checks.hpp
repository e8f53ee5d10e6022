#pragma once

#include "thalweg/core/error.hpp"
#include "thalweg/core/value.hpp"

// What several drivers refuse before anything is trained, each at the place of what is wrong. UsageError.
namespace thalweg::study {

/// What no matching method is, or one that looks at more samples than `samples.calibration` sets aside.
void require_matching(const core::Value& method, const core::Value& options);
/// An item that stands in the list before.
void require_different(const core::Value& list);
/// A number that is not above the one before it.
void require_rising(const core::Value& list);
/// A name that files and figures cannot have, see label_of.
void require_name(const core::Value& name);
/// `clients.steps` of the experiment, nullptr where it is not given: where it is, numbers of epochs have no effect.
const core::Value* steps_in(const core::Value& options);
/// That, in a study that sets the epochs.
void require_epochs(const core::Value& options);

/// `work()`; what it refuses is said with the place of the option that it comes of.
template <typename Work>
auto at_place(const core::Value& option, const Work& work) -> decltype(work()) {
    try {
        return work();
    } catch (const core::UsageError& error) {
        option.reject(error.what());
    }
}

}  // namespace thalweg::study
