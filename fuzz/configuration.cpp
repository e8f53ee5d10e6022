// A configuration file and, behind a zero byte, an override as on the command line.
#include <cstdlib>
#include <string>
#include <vector>

#include "target.hpp"
#include "thalweg/federation/experiment.hpp"

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    using namespace thalweg;
    const auto content = fuzz::text_of(data, size);
    const auto zero = content.find('\0');
    std::vector<std::string> overrides;
    if (zero != std::string::npos) overrides.push_back(content.substr(zero + 1));
    core::Value config;
    const bool valid = fuzz::reads([&] {
        config = federation::make_experiment(core::parse_yaml(content.substr(0, zero), "x.yaml"), overrides)
                     .config;
    });
    // What a run folder keeps must be the same configuration.
    if (valid && !(core::parse_yaml(core::to_yaml(config), "config.yaml") == config)) std::abort();
    return 0;
}
