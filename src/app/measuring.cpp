#include "measuring.hpp"

#include <algorithm>
#include <filesystem>

#include "thalweg/core/error.hpp"
#include "thalweg/core/files.hpp"
#include "thalweg/core/interrupt.hpp"
#include "thalweg/core/random.hpp"
#include "thalweg/data/dataset.hpp"

namespace thalweg::app {

namespace fs = std::filesystem;

void MeasuringArguments::add_to(CLI::App& command) {
    command
        .add_option("--samples", samples, "samples measured on, drawn by --seed (all, when there are fewer)")
        ->capture_default_str()
        ->check(CLI::PositiveNumber);
    command.add_option("--split", split, "train or test: where the samples come from")
        ->capture_default_str()
        ->check(CLI::IsMember({"train", "test"}));
    command.add_option("--out", out, "folder for report.html, result.json and the figures");
    model.add_data_to(command);
    model.add_model_to(command);
    model.add_json_to(command);
}

void MeasuringArguments::require_out(const Context& context) const {
    require_folder(context, out);
}

std::shared_ptr<const data::SampleSet> MeasuringArguments::draw(const data::Dataset& dataset) const {
    const auto all = split == "train" ? dataset.train() : dataset.test();
    if (!all) {
        throw core::UsageError(dataset.name() +
                               " has no train set as a whole, only clients' parts; use --split test");
    }
    if (samples >= all->size()) return all;
    core::Random random(model.seed, "measured samples");
    std::vector<std::uint32_t> indices;
    for (const auto index : random.sample(all->size(), samples))
        indices.push_back(static_cast<std::uint32_t>(index));
    return std::make_shared<data::Subset>(all, std::move(indices));
}

std::string MeasuringArguments::describe(const data::Dataset& dataset, const data::SampleSet& drawn) const {
    return record::number(static_cast<double>(drawn.size())) + " " + split + " samples of " + dataset.name();
}

void MeasuringArguments::deliver(const Context& context, const Json& json, const std::string& text,
                                 const report::Document& document) const {
    app::deliver(context, model.json, json, text, document, out);
}

void deliver(const Context& context, bool as_json, const Json& json, const std::string& text,
             const report::Document& document, const std::string& folder) {
    if (as_json) {
        context.print(json);
    } else {
        context.print(text);
    }
    leave_report(context, document, folder);
    if (!as_json && !folder.empty())
        context.print("written to " + (fs::path(folder) / "report.html").string() + "\n");
}

void refuse_run(const std::string& folder) {
    std::error_code error;
    const fs::path path = folder;
    if (fs::exists(path / "rounds.jsonl", error) ||
        (fs::exists(path / "config.yaml", error) && fs::is_directory(path / "checkpoints", error)))
        throw core::UsageError("--out '" + folder +
                               "' holds a run, whose report would be overwritten; name another folder");
}

void require_folder(const Context& context, const std::string& folder) {
    core::collectively(context.communicator, [&] {
        if (!context.is_root || folder.empty()) return;
        std::error_code error;
        if (fs::exists(folder, error) && !fs::is_directory(folder, error))
            throw core::UsageError("--out '" + folder + "' is a file; name a folder");
        refuse_run(folder);
        fs::create_directories(folder, error);
        if (error)
            throw core::UsageError("--out '" + folder + "' cannot be made: " + error.message() +
                                   "; name another folder");
    });
}

fs::path numbered_folder(const std::string& name, int number) {
    return fs::path("runs") / (number == 1 ? name : name + "-" + std::to_string(number));
}

fs::path free_folder(const std::string& name) {
    int number = 1;
    std::error_code error;
    while (fs::exists(numbered_folder(name, number), error)) ++number;
    return numbered_folder(name, number);
}

void draw_report(const std::function<report::Document()>& document, const fs::path& folder,
                 const std::string& what) {
    const std::string later = "`thalweg report " + folder.string() + "`";
    try {
        core::check_interrupt();
        report::write_report(document(), folder);
    } catch (const core::Interrupted&) {
        record::note(what + " in " + folder.string() + ", but its figures are not all drawn; " + later +
                     " draws them");
        throw;
    } catch (const std::exception& error) {
        record::warn(what + ", but its report could not be drawn: " + std::string(error.what()) + ". " +
                     later + " tries again");
    }
}

void leave_report(const Context& context, const report::Document& document, const std::string& folder) {
    if (folder.empty() || !context.is_root) return;
    std::error_code error;
    fs::remove(fs::path(folder) / "report.html", error);  // an older one would not show this result
    core::write_atomically(fs::path(folder) / "result.json",
                           record::json_text(report::to_json(document), 1) + "\n");
    draw_report([&] { return document; }, folder, "the result is kept");
}

}  // namespace thalweg::app
