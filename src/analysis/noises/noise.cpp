#include "thalweg/analysis/valley.hpp"
#include "thalweg/core/schema.hpp"

namespace thalweg::analysis {

std::unique_ptr<Noise> make_noise(const core::Value& options) {
    const core::Value given = options.is_null() ? core::Value::of("gaussian") : options;
    return core::Registry<std::unique_ptr<Noise>>::make(
        core::resolve_plugin("noise", "kind", given, "noise"));
}

}  // namespace thalweg::analysis
