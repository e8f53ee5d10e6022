// How a run goes on from its folder: the part of Federation that reads what an earlier process left.
#include "thalweg/core/error.hpp"
#include "thalweg/core/text.hpp"
#include "thalweg/federation/federation.hpp"
#include "thalweg/model/model_file.hpp"

namespace thalweg::federation {

void Federation::resume(const RunOptions& options) {
    std::int64_t round = 0;
    core::collectively(communicator_, [&] {
        if (!is_root()) return;
        folder_ = record::RunFolder::open(options.folder);
        require_same_configuration(options.folder);
        folder_->sweep();
        round = load_last_checkpoint();
        folder_->truncate_rounds(round);
        require_whole_record(round);
    });
    communicator_.broadcast(std::as_writable_bytes(std::span(&round, 1)), 0);
    finished_ = round;
    if (round == 0) {
        begin(options);
        return;
    }
    broadcast_global();
    core::collectively(communicator_, [&] {
        if (!is_root() || round == experiment_.rounds) return;
        record::Json manifest = options.manifest;
        manifest["resumed_after_round"] = round;
        folder_->extend_manifest(manifest);
    });
}

void Federation::require_same_configuration(const std::filesystem::path& folder) const {
    const auto before = core::parse_yaml(folder_->read_config(), (folder / "config.yaml").string());
    auto changes = core::differences(before, experiment_.config);
    // Where the page is shown changes nothing of what is computed.
    std::erase_if(changes, [](const std::string& change) {
        return change.starts_with("record.serve:") || change.starts_with("record.token:");
    });
    if (changes.empty()) return;
    throw core::UsageError(
        "'" + folder.string() +
        "' was run with another configuration, so --resume cannot go on with it; what differs "
        "(before → now): " +
        core::join(changes, "; ") + ". Undo the changes, or start a new run with another --out");
}

/// Loads the newest checkpoint that is whole into global_ and returns its round. 0: there is none. A finished run
/// without checkpoints goes by its final model.
std::int64_t Federation::load_last_checkpoint() {
    std::vector<std::pair<std::int64_t, std::filesystem::path>> candidates;
    for (const auto round : folder_->checkpoints()) {
        if (round <= experiment_.rounds) candidates.emplace_back(round, folder_->checkpoint_path(round));
    }
    const auto final_path = folder_->path() / "final.pt";
    if (std::filesystem::exists(final_path)) candidates.emplace_back(experiment_.rounds, final_path);
    for (auto candidate = candidates.rbegin(); candidate != candidates.rend(); ++candidate) {
        const auto& [round, path] = *candidate;
        try {
            auto file = model::load_model(path);
            model::require_same_architecture(file.graph, path.string(), setting_.graph, "the configuration");
            if (path == folder_->checkpoint_path(round)) remember_server(round);
            global_ = file.parameters;
            record::note("resuming after round " + std::to_string(round) + " of " +
                         std::to_string(experiment_.rounds));
            return round;
        } catch (const core::RunError& error) {
            record::warn(std::string(error.what()) + "; trying an earlier checkpoint");
        }
    }
    record::note("there is no whole checkpoint to resume from; starting over");
    return 0;
}

/// The server optimizer's memory as it was after `round`. RunError when it is gone or damaged.
void Federation::remember_server(std::int64_t round) {
    auto& optimizer = server_->optimizer();
    // Its first step is in round 1, or in round 2 where round 1 has no global model to step from.
    const bool has_stepped = !experiment_.independent_initialisation || round > 1;
    if (!optimizer.keeps_memory() || !has_stepped) return;
    const auto path = folder_->memory_path(round);
    if (!std::filesystem::exists(path))
        throw core::RunError("'" + path.string() + "', the server optimizer's memory, is missing");
    optimizer.remember(model::load_tensors(path).tensors);
}

/// A checkpoint is written after its round's line, so the lines up to it are all there unless somebody took them away.
void Federation::require_whole_record(std::int64_t round) const {
    const auto lines = folder_->read_rounds();
    bool whole = lines.size() == static_cast<std::size_t>(round);
    for (std::size_t i = 0; whole && i < lines.size(); ++i) {
        whole = lines[i].value("round", std::int64_t{0}) == static_cast<std::int64_t>(i) + 1 &&
                lines[i].contains("train") && lines[i].contains("cohort") && lines[i].contains("seconds");
    }
    if (whole) return;
    throw core::RunError(
        "'" + (folder_->path() / "rounds.jsonl").string() + "' should hold the rounds 1 to " +
        std::to_string(round) +
        ", one line each, as the checkpoint says, but does not; restore it, or start a new run with "
        "another --out");
}

}  // namespace thalweg::federation
