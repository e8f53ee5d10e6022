#include "federated_run.hpp"

#include <limits>

#include "estimates.hpp"
#include "thalweg/aggregator/stage.hpp"
#include "thalweg/core/error.hpp"
#include "thalweg/federation/federation.hpp"
#include "thalweg/record/json.hpp"
#include "thalweg/record/run_folder.hpp"

namespace thalweg::study {

std::vector<Json> run_federation(const federation::Experiment& experiment, const Laboratory& laboratory,
                                 const std::string& label, Workbench& bench) {
    const auto folder = bench.folder() / "runs" / label;
    std::error_code error;
    std::filesystem::remove_all(folder, error);
    if (error)
        throw core::RunError("cannot remove what an earlier run left in '" + folder.string() +
                             "': " + error.message());
    std::vector<Json> lines;
    try {
        federation::Federation federation(experiment, bench.alone(), laboratory.setting.dataset);
        lines = federation.run({.folder = folder, .progress = false});
        if (!federation.is_complete())
            throw core::RunError("the run in '" + folder.string() + "' ended before its last round");
    } catch (const clients::Diverged&) {
        return {};
    }
    for (const Json& measured : record::RunFolder::open(folder).read_analysis()) {
        for (auto& line : lines) {
            if (line.at("round") == measured.at("round")) line.update(measured);
        }
    }
    return lines;
}

void require_runnable(const federation::Experiment& experiment, const Laboratory& laboratory,
                      Workbench& bench) {
    const federation::Federation federation(experiment, bench.alone(), laboratory.setting.dataset);
}

std::string fusion_assignment(const std::string& pipeline) {
    return "server.fusion=" + core::to_flow(aggregator::Pipeline::parse(pipeline).options());
}

double number_at(const Json& line, const std::vector<std::string>& keys) {
    const Json& value = record::json_at(line, keys);
    return value.is_number() ? value.get<double>() : std::numeric_limits<double>::quiet_NaN();
}

double mean_at(const Json& line, const std::vector<std::string>& keys) {
    std::vector<double> numbers;
    for (const Json& value : record::json_at(line, keys)) {
        if (value.is_number()) numbers.push_back(value.get<double>());
    }
    return mean_of(numbers).value;
}

}  // namespace thalweg::study
