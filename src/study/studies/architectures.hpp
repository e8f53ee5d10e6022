#pragma once

#include <string>
#include <vector>

#include "thalweg/core/schema.hpp"
#include "thalweg/study/workbench.hpp"

namespace thalweg::study {

/// `architectures: [{name, model, lr, epochs, samples}]`: models that a study trains beside each other, each its own way
/// where the experiment's does not suit it.
core::Option architectures_option(const std::string& help);

/// One of them, with its data and its graph.
struct Architecture {
    std::string name;
    std::shared_ptr<const Laboratory> laboratory;
};

/// The laboratory of one item, with `further` changes of the experiment. Collective.
Architecture open_architecture(const core::Value& item, const core::Value& options, Workbench& bench,
                               const std::vector<core::Value>& further = {});
std::vector<Architecture> open_architectures(const core::Value& options, Workbench& bench);

}  // namespace thalweg::study
