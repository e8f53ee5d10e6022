#include "thalweg/live/follow.hpp"

#include <sys/stat.h>

#include <algorithm>
#include <fstream>
#include <utility>

#include "thalweg/core/error.hpp"
#include "thalweg/core/files.hpp"
#include "thalweg/core/interrupt.hpp"
#include "thalweg/core/value.hpp"
#include "thalweg/record/json.hpp"
#include "thalweg/record/log.hpp"
#include "thalweg/record/run_folder.hpp"

namespace thalweg::live {

namespace fs = std::filesystem;

namespace {
/// The newest round counts so much in the time that a round takes.
constexpr double newest = 0.3;
/// Read at one look, so that a long record neither fills the memory nor delays Ctrl-C.
constexpr std::size_t most_bytes = std::size_t{8} << 20;
}  // namespace

Follower::Follower(fs::path folder, Feed& feed, std::size_t most_line_bytes)
    : folder_(std::move(folder)),
      feed_(feed),
      most_line_bytes_(most_line_bytes),
      piece_bytes_(std::min(most_bytes, most_line_bytes)) {
    std::error_code error;
    if (!fs::is_directory(folder_, error)) {
        throw core::UsageError(
            "'" + folder_.string() +
            "': there is no such folder; give the folder of a run (its --out, or runs/NAME)");
    }
    publish(false);
}

/// Name and configuration, as soon as they are there.
void Follower::describe() {
    const auto path = folder_ / "config.yaml";
    std::error_code error;
    if (described_ || !fs::exists(path, error)) return;
    Json run = {{"folder", folder_.string()}};
    try {
        const std::string text = core::read_file(path);
        run["config"] = text;
        const auto config = core::parse_yaml(text, path.string());
        if (const auto* name = config.find("name")) run["name"] = name->as_text();
        if (const auto* server = config.find("server"); server && server->find("rounds"))
            total_ = (*server)["rounds"].as_int();
    } catch (const core::Error& problem) {
        record::warn(problem.what());
    }
    described_ = true;
    feed_.describe(run);
}

bool Follower::read_lines() {
    const auto path = folder_ / "rounds.jsonl";
    struct stat status {};
    if (::stat(path.c_str(), &status) != 0) status = {};
    const auto size = static_cast<std::uint64_t>(status.st_size);
    if (inode_ != 0 && (status.st_ino != inode_ || size < offset_)) {
        feed_.reset();
        offset_ = 0;
        line_ = last_ = 0;
        skipping_ = false;
        described_ = false;
    }
    inode_ = status.st_ino;
    if (size <= offset_) return false;
    std::ifstream file(path, std::ios::binary);
    file.seekg(static_cast<std::streamoff>(offset_));
    std::string text(std::min<std::size_t>(static_cast<std::size_t>(size - offset_), piece_bytes_), '\0');
    file.read(text.data(), static_cast<std::streamsize>(text.size()));
    text.resize(static_cast<std::size_t>(file.gcount()));
    std::size_t begin = 0;
    for (auto end = text.find('\n'); end != std::string::npos;
         begin = end + 1, end = text.find('\n', begin)) {
        ++line_;
        if (!std::exchange(skipping_, false)) add(text.substr(begin, end - begin));
    }
    const bool is_torn = begin == 0 && text.size() < piece_bytes_;
    if (begin > 0) {
        piece_bytes_ = std::min(most_bytes, most_line_bytes_);
    } else if (!is_torn && !skipping_ && piece_bytes_ < most_line_bytes_) {
        piece_bytes_ = std::min(2 * piece_bytes_, most_line_bytes_);
    } else if (!is_torn) {
        if (!skipping_) warn_of(line_ + 1, "this line is too long to be a round");
        skipping_ = true;
        begin = text.size();
    }
    offset_ += begin;
    grew_ = grew_ || begin > 0;
    return !is_torn && offset_ < size;
}

void Follower::warn_of(std::int64_t line, const std::string& why) const {
    record::warn((folder_ / "rounds.jsonl").string() + ":" + std::to_string(line) + ": " + why +
                 "; it is left out");
}

void Follower::add(const std::string& text) {
    const Json line = Json::parse(text, nullptr, false);
    const Json& round = record::json_at(line, {"round"});
    if (!round.is_number_integer()) return warn_of(line_, "this line is no round");
    feed_.add_round(round_summary(line));
    last_ = round.get<std::int64_t>();
    if (const Json& total = record::json_at(line, {"seconds", "total"}); total.is_number()) {
        const double took = total.get<double>();
        seconds_ = seconds_ > 0 ? (1 - newest) * seconds_ + newest * took : took;
    }
}

void Follower::look() {
    // Asked before the record is read: what a run wrote last before it let go is read then.
    const bool is_free = record::is_recorded_into(folder_) == false;
    grew_ = false;
    describe();
    while (!core::interrupt_requested() && read_lines()) {
    }
    describe();
    // A run on another machine, whose lock is not seen here, or a copy that is kept up to date. It counts as going on until
    // many rounds' time has passed without one.
    constexpr double patience_seconds = 120, patience_rounds = 20;
    const auto now = std::chrono::steady_clock::now();
    if (is_free && was_free_ && grew_) grew_elsewhere_ = now;
    if (!is_free) grew_elsewhere_.reset();
    const bool elsewhere = grew_elsewhere_ && std::chrono::duration<double>(now - *grew_elsewhere_).count() <
                                                  std::max(patience_seconds, patience_rounds * seconds_);
    was_free_ = is_free;
    publish(is_free && !elsewhere && described_);
}

/// `is_left`: a run began here, and nobody writes it any more.
void Follower::publish(bool is_left) {
    std::error_code error;
    const bool finished = last_ > 0 && last_ >= total_ && fs::exists(folder_ / "final.pt", error);
    const auto left = static_cast<double>(total_ - last_) * seconds_;
    std::string phase = "following",
                what = last_ == 0 ? "waiting for the first round" : "waiting for the next round";
    if (finished) {
        phase = "finished";
        what = "final.pt holds the global model";
    } else if (is_left) {
        phase = "stopped";
        what = "no program on this machine writes here: the run ended " +
               (last_ == 0 ? "in its first round" : "after round " + std::to_string(last_)) +
               ", and --resume goes on with it";
    }
    const bool is_timed = phase == "following" && last_ > 0;
    const Json now = {{"phase", phase},
                      {"what", what},
                      {"done", last_},
                      {"rounds", total_},
                      {"seconds_left", is_timed ? Json(left) : Json(nullptr)}};
    auto text = record::json_text(now);
    if (text == published_) return;
    published_ = std::move(text);
    feed_.progress(now);
}

}  // namespace thalweg::live
