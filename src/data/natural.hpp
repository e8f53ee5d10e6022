#pragma once

#include <string>
#include <vector>

namespace thalweg::data {

/// Names of the data sets that say themselves who holds what; such a set adds its own beside its
/// registration.
inline std::vector<std::string>& natural_datasets() {
    static std::vector<std::string> names;
    return names;
}

}  // namespace thalweg::data
