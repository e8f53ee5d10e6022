// How a run is shown while it goes on, and steered: the part of Federation that speaks with its live page and its bar.
#include <chrono>
#include <thread>

#include "thalweg/core/interrupt.hpp"
#include "thalweg/federation/federation.hpp"
#include "thalweg/live/run_page.hpp"
#include "thalweg/record/json.hpp"

namespace thalweg::federation {

using record::Json;

/// First of all that a run does: an address that is taken is known before anything is computed or written. Collective.
void Federation::open_page(const RunOptions& options) {
    core::collectively(communicator_, [&] {
        if (!is_root() || experiment_.serve.empty()) return;
        const Json run = {{"name", experiment_.name},
                          {"folder", options.folder.string()},
                          {"rounds", experiment_.rounds},
                          {"ranks", communicator_.size()},
                          {"clients", data_->clients()},
                          {"parameters", setting_.graph.layout->size()},
                          {"config", core::to_yaml(experiment_.config)}};
        page_ =
            std::make_unique<live::RunPage>(run, experiment_.rounds, live::parse_address(experiment_.serve),
                                            live::token_or_environment(experiment_.token));
    });
}

/// The rounds that an earlier process computed.
void Federation::show_past() {
    if (!is_root() || finished_ == 0) return;
    const auto lines = folder_->read_rounds();
    for (const auto& line : lines) show_accuracy(line);
    if (page_) page_->begin(lines);
}

void Federation::show_accuracy(const Json& line) {
    if (const Json& accuracy = record::json_at(line, {"test", "accuracy"}); accuracy.is_number())
        progress_->accuracy(accuracy.get<double>());
}

void Federation::show_round(const Json& line) {
    show_accuracy(line);
    if (page_) page_->round(line);
}

void Federation::show(double done, const std::string& what) {
    progress_->update(done, what);
    if (page_) page_->progress(done, what);
}

void Federation::show_end(const std::string& phase, const std::string& what) {
    if (page_) page_->end(phase, what);
}

/// Rank 0 waits where the others agree with it, so that an interrupt ends the wait on all ranks.
void Federation::wait_while_paused() {
    const auto& control = page_->control();
    if (!control.pause_requested()) return;
    record::Stopwatch watch;
    // As the pause goes on, not at its end: meanwhile the time left would grow.
    const auto leave_out = [&] {
        const double waited = watch.seconds();
        watch.restart();
        page_->waited(waited);
        progress_->exclude(waited);
    };
    page_->phase("paused", "paused after round " + std::to_string(finished_));
    while (control.pause_requested()) {
        core::check_interrupt();
        leave_out();
        progress_->update(static_cast<double>(finished_), "paused on the live page");
        // A checkpoint that is asked for during the pause need not wait for its end.
        checkpoint_if_asked();
        std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
    leave_out();
    page_->phase("running", "");
}

void Federation::checkpoint_if_asked() {
    if (!page_) return;
    const auto& control = page_->control();
    // A run that is stopped goes on from here another time; one that is complete has nowhere to go on to.
    const bool asked = control.checkpoint_requested() || (control.stop_requested() && !is_complete());
    if (!asked || finished_ == 0) return;
    if (!std::filesystem::exists(folder_->checkpoint_path(finished_))) write_checkpoint(finished_);
    page_->checkpoint_done();
}

/// At the beginning of a round: does what the live page asked for. False: the run is to end here. Collective.
bool Federation::obey() {
    if (experiment_.serve.empty()) return true;
    std::uint8_t go = 1;
    core::collectively(communicator_, [&] {
        if (!is_root()) return;
        wait_while_paused();
        go = page_->control().stop_requested() ? 0 : 1;
        checkpoint_if_asked();
    });
    communicator_.broadcast(std::as_writable_bytes(std::span(&go, 1)), 0);
    return go == 1;
}

}  // namespace thalweg::federation
