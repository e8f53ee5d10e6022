#include "thalweg/record/run_folder.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <cstring>
#include <fstream>
#include <functional>
#include <optional>
#include <system_error>
#include <thread>

#include "thalweg/core/descriptor.hpp"
#include "thalweg/core/error.hpp"
#include "thalweg/core/files.hpp"
#include "thalweg/record/json.hpp"
#include "thalweg/record/json_lines.hpp"

namespace thalweg::record {

namespace fs = std::filesystem;

namespace {

/// The round of `round-00012.pt`; nothing for any other name, `round-00012.pt.part` included.
std::optional<std::int64_t> checkpoint_round(const std::string& name) {
    const std::string prefix = "round-", suffix = ".pt";
    if (!name.starts_with(prefix) || !name.ends_with(suffix)) return {};
    const char* begin = name.data() + prefix.size();
    const char* end = name.data() + name.size() - suffix.size();
    std::int64_t round = 0;
    const auto [stop, error] = std::from_chars(begin, end, round);
    if (begin >= end || error != std::errc() || stop != end || round < 0) return {};
    return round;
}

/// A line of rounds.jsonl: its text without the newline, and what it says.
struct Line {
    std::string text;
    Json json;
};

/// All lines but a torn last one: an append ends with its newline, so what is torn has none and is no JSON.
void for_each_line(const fs::path& path, const std::function<void(Line)>& take) {
    if (!fs::exists(path)) return;
    std::ifstream file(path, std::ios::binary);
    std::size_t number = 0;
    for (Line line; std::getline(file, line.text); line = {}) {
        const bool ended = !file.eof();
        ++number;
        line.json = Json::parse(line.text, nullptr, false);
        const bool valid = line.json.is_object();
        if (!valid && ended) {
            throw core::RunError(
                fmt::format("{}:{}: this line is not a JSON object, so the record of the run is "
                            "damaged; remove the line, or choose another folder",
                            path.string(), number));
        }
        if (valid) take(std::move(line));
    }
    if (!file.is_open() || file.bad())
        throw core::RunError(path.string() + ": cannot be read: " + std::generic_category().message(errno));
}

[[noreturn]] void cannot_write(const fs::path& path, int error) {
    throw core::RunError(
        fmt::format("{}: cannot be written: {}", path.string(), std::generic_category().message(error)));
}

/// Held as long as the run goes on; the kernel lets go of it when the process ends, however it ends. Who only asks whether
/// it is held has it for some microseconds, so that more than one try is made.
std::shared_ptr<void> lock_folder(const fs::path& path) {
    auto file = std::make_shared<core::Descriptor>(
        ::open((path / ".lock").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666));
    if (file->number() < 0) cannot_write(path / ".lock", errno);
    constexpr int tries = 10;
    for (int i = 0; ::flock(file->number(), LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK; ++i) {
        if (i < tries) {
            std::this_thread::sleep_for(std::chrono::milliseconds(20));
            continue;
        }
        throw core::UsageError(fmt::format(
            "{}: another process is running there; wait for it, or choose another --out", path.string()));
    }
    return file;
}

void append_line(const fs::path& path, const Json& line) {
    core::append_durably(path, json_text(line) + "\n");
}

/// Keeps the lines up to `round`.
void truncate(const fs::path& path, std::int64_t round) {
    if (!fs::exists(path)) return;
    std::string kept;
    std::int64_t number = 0;
    for_each_line(path, [&](const Line& line) {
        ++number;
        const auto found = line.json.find("round");
        if (found == line.json.end() || !found->is_number_integer()) {
            throw core::RunError(fmt::format(
                "{}:{}: this line has no integer `round`, so the record of the run is damaged; remove "
                "the line, or choose another folder",
                path.string(), number));
        }
        if (found->get<std::int64_t>() <= round) kept += line.text + "\n";
    });
    core::write_atomically(path, kept);
}

}  // namespace

const std::vector<std::string>& round_fields() {
    static const std::vector<std::string> names{"round",   "cohort",   "train", "test",   "fusion",
                                                "clients", "failures", "bytes", "seconds"};
    return names;
}

void for_each_json_line(const fs::path& path, const std::function<void(Json)>& take) {
    for_each_line(path, [&](Line line) { take(std::move(line.json)); });
}

std::vector<Json> read_json_lines(const fs::path& path) {
    std::vector<Json> result;
    for_each_json_line(path, [&](Json line) { result.push_back(std::move(line)); });
    return result;
}

std::optional<bool> is_recorded_into(const fs::path& folder) {
    const core::Descriptor file(::open((folder / ".lock").c_str(), O_RDONLY | O_CLOEXEC));
    if (file.number() < 0) return errno == ENOENT ? std::optional<bool>(false) : std::nullopt;
    if (::flock(file.number(), LOCK_SH | LOCK_NB) == 0) return false;
    return errno == EWOULDBLOCK ? std::optional<bool>(true) : std::nullopt;
}

RunFolder RunFolder::create(const fs::path& path) {
    std::error_code error;
    fs::create_directories(path / "checkpoints", error);
    if (error) {
        throw core::RunError(fmt::format("{}: the run's folder cannot be created: {}; choose another --out",
                                         path.string(), error.message()));
    }
    if (::access(path.c_str(), W_OK | X_OK) != 0) {
        throw core::RunError(
            fmt::format("{}: the run's folder cannot be written to: {}; choose another --out", path.string(),
                        std::generic_category().message(errno)));
    }
    RunFolder folder(path);
    folder.lock_ = lock_folder(path);
    // analysis.jsonl alone: the process was killed between the first round's two lines.
    if (fs::exists(folder.rounds_path()) || fs::exists(folder.analysis_path()) ||
        !folder.checkpoints().empty()) {
        throw core::UsageError(fmt::format(
            "{} already holds a run; --resume goes on with it, or choose another --out", path.string()));
    }
    return folder;
}

RunFolder RunFolder::open(const fs::path& path) {
    std::error_code error;
    if (!fs::is_directory(path, error)) {
        throw core::UsageError(fmt::format(
            "{}: there is no such folder; give the folder of an earlier run (its --out)", path.string()));
    }
    if (!fs::exists(path / "config.yaml")) {
        throw core::UsageError(fmt::format(
            "{}: this folder does not hold a run (it has no config.yaml); give the folder of an earlier run "
            "(its --out)",
            path.string()));
    }
    RunFolder folder(path);
    folder.lock_ = lock_folder(path);
    fs::create_directories(path / "checkpoints", error);
    if (error) cannot_write(path / "checkpoints", error.value());
    return folder;
}

fs::path RunFolder::checkpoint_path(std::int64_t round) const {
    return path_ / "checkpoints" / fmt::format("round-{:05}.pt", round);
}

fs::path RunFolder::memory_path(std::int64_t round) const {
    return path_ / "checkpoints" / fmt::format("round-{:05}.server.pt", round);
}

std::vector<std::int64_t> RunFolder::checkpoints() const {
    std::vector<std::int64_t> rounds;
    std::error_code error;
    for (const auto& item : fs::directory_iterator(path_ / "checkpoints", error)) {
        if (const auto round = checkpoint_round(item.path().filename().string())) rounds.push_back(*round);
    }
    std::sort(rounds.begin(), rounds.end());
    return rounds;
}

void RunFolder::prune_checkpoints(std::int64_t keep) const {
    if (keep <= 0) return;
    const std::vector<std::int64_t> rounds = checkpoints();
    for (std::size_t i = 0; i + static_cast<std::size_t>(keep) < rounds.size(); ++i) {
        for (const fs::path& old : {checkpoint_path(rounds[i]), memory_path(rounds[i])}) {
            std::error_code error;
            fs::remove(old, error);
            if (error) {
                throw core::RunError(fmt::format("{}: the old checkpoint cannot be removed: {}", old.string(),
                                                 error.message()));
            }
        }
    }
}

void RunFolder::write_config(const std::string& yaml) const {
    core::write_atomically(path_ / "config.yaml", yaml);
}

std::string RunFolder::read_config() const {
    return core::read_file(path_ / "config.yaml");
}

void RunFolder::write_manifest(const Json& manifest) const {
    core::write_atomically(path_ / "manifest.json", json_text(manifest, 2) + "\n");
}

void RunFolder::extend_manifest(const Json& session) const {
    const fs::path path = path_ / "manifest.json";
    Json manifest = Json::parse(core::read_file(path), nullptr, false);
    if (!manifest.is_object() || (manifest.contains("resumed") && !manifest["resumed"].is_array())) {
        throw core::RunError(
            fmt::format("{}: this is not the JSON object that the run wrote there; restore it, or start a "
                        "new run with another --out",
                        path.string()));
    }
    manifest["resumed"].push_back(session);
    write_manifest(manifest);
}

void RunFolder::sweep() const {
    for (const fs::path& folder : {path_, path_ / "checkpoints"}) {
        std::error_code error;
        for (const auto& item : fs::directory_iterator(folder, error)) {
            // One that cannot be removed is in nobody's way: the next write to that name says what is wrong.
            if (item.path().extension() == ".part") fs::remove(item.path(), error);
        }
    }
}

void RunFolder::append_round(const Json& line) const {
    append_line(rounds_path(), line);
}

void RunFolder::append_analysis(const Json& line) const {
    append_line(analysis_path(), line);
}

void RunFolder::truncate_rounds(std::int64_t round) const {
    truncate(rounds_path(), round);
    truncate(analysis_path(), round);
}

std::vector<Json> RunFolder::read_rounds() const {
    return read_json_lines(rounds_path());
}

std::vector<Json> RunFolder::read_analysis() const {
    return read_json_lines(analysis_path());
}

}  // namespace thalweg::record
