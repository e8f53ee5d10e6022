#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <string>

#include "context.hpp"
#include "thalweg/report/figure.hpp"

namespace thalweg::app {

/// `--samples`, `--split`, `--out` beside ModelArguments': what the commands share that measure a model on samples and may
/// leave figures.
struct MeasuringArguments {
    ModelArguments model;
    std::int64_t samples = 1000;
    std::string split = "train";
    std::string out;  ///< folder for report.html; empty: none

    /// Adds all options; `samples` and `split` as they stand are the defaults.
    void add_to(CLI::App& command);
    /// UsageError when `out` is there and no folder. Collective.
    void require_out(const Context& context) const;
    /// `samples` of the split, drawn by the seed, in the split's order; all when it has no more. UsageError for a
    /// train set that does not exist as a whole.
    std::shared_ptr<const data::SampleSet> draw(const data::Dataset& dataset) const;
    /// `1,000 test samples of fashion_mnist`, for captions.
    std::string describe(const data::Dataset& dataset, const data::SampleSet& drawn) const;
    /// Prints one or the other, and then leaves the report where `--out` says.
    void deliver(const Context& context, const Json& json, const std::string& text,
                 const report::Document& document) const;
};

/// Prints one or the other, leaves the report in `folder` (nothing when empty), and says where, but not between JSON.
void deliver(const Context& context, bool as_json, const Json& json, const std::string& text,
             const report::Document& document, const std::string& folder);

/// UsageError when `folder`, what --out says, holds a run: its report would be overwritten.
void refuse_run(const std::string& folder);

/// Makes `folder` (nothing when empty), before hours are spent on what belongs there. UsageError when it cannot be one, or
/// holds a run. Collective.
void require_folder(const Context& context, const std::string& folder);

/// runs/NAME, runs/NAME-2, …: the `number`th.
std::filesystem::path numbered_folder(const std::string& name, int number);
/// The first of them that is free.
std::filesystem::path free_folder(const std::string& name);

/// Draws report.html and figures/ into `folder`, which holds `what` already: a failure is a warning, and an interrupt says
/// how they are drawn later and is passed on. Rank 0 alone.
void draw_report(const std::function<report::Document()>& document, const std::filesystem::path& folder,
                 const std::string& what);

/// A folder for results: first result.json, then what is drawn from it. Nothing when `folder` is empty. Called after the
/// result was printed, which no full disk and no Ctrl-C shall lose. Rank 0 alone writes; RunError there when result.json
/// cannot be written.
void leave_report(const Context& context, const report::Document& document, const std::string& folder);

}  // namespace thalweg::app
