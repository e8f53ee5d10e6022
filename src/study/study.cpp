#include "thalweg/study/study.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <span>

#include "thalweg/core/error.hpp"
#include "thalweg/core/files.hpp"
#include "thalweg/core/text.hpp"
#include "thalweg/record/json.hpp"
#include "thalweg/record/log.hpp"
#include "thalweg/version.hpp"

namespace thalweg::study {

namespace {

using core::Value;

constexpr const char* experiment_key = "experiment";
constexpr const char* configuration_file = "study.yaml";
/// Keys that the configuration holds beside the study's own: parts of another schema, and what sizes replace.
const std::vector<std::string> passed_through{experiment_key, "quick", "smoke"};

std::vector<std::string> study_names() {
    std::vector<std::string> names;
    for (const auto& plugin : core::plugins_of("study")) names.push_back(plugin.name);
    return names;
}

const core::PluginInfo& info_of(const std::string& name) {
    const auto* info = core::find_plugin("study", name);
    if (info == nullptr) throw core::UsageError(core::unknown_name("study", name, study_names()));
    return *info;
}

/// `changes` over `base`: maps field by field, everything else replaced. A map that names another plug-in replaces the
/// one there, whose options it does not have.
void lay_over(Value& base, const Value& changes) {
    if (!base.is_map() || !changes.is_map()) {
        base = changes;
        return;
    }
    for (const char* selector : {"kind", "scheme"}) {
        const auto* here = base.find(selector);
        const auto* there = changes.find(selector);
        if (there != nullptr && (here == nullptr || !(*here == *there))) {
            base = changes;
            return;
        }
    }
    for (const auto& [key, value] : changes.fields()) {
        if (Value* field = base.find(key)) {
            lay_over(*field, value);
        } else {
            base.set(key, value);
        }
    }
}

/// The sections `quick` and `smoke` are taken out; the wanted one is laid over the rest.
Value cut_to(Size size, const Value& whole) {
    Value cut = Value::map();
    cut.place_like(whole);
    for (const auto& [key, value] : whole.fields()) {
        if (key != "quick" && key != "smoke") cut.set(key, value);
    }
    const char* section = size == Size::quick ? "quick" : "smoke";
    if (size == Size::full) return cut;
    const Value* changes = whole.find(section);
    if (changes == nullptr)
        whole.reject(std::string("the study's configuration has no section '") + section +
                     "', which says what that size replaces");
    if (!changes->is_map()) changes->reject("this is a map of what that size replaces");
    lay_over(cut, *changes);
    return cut;
}

core::Schema schema_of(const core::PluginInfo& info) {
    std::vector<core::Option> options{
        core::choice("study", {info.name}, "which study this configures").by_default(info.name),
        core::integer("seed", "all random draws come from it").at_least(0).by_default(1),
        samples_option().by_default("{}")};
    for (const auto& option : info.options.options()) options.push_back(option);
    return core::Schema(std::move(options));
}

void require_same(const Value& config, const std::filesystem::path& file, const std::string& folder) {
    const Value before = core::read_yaml(file.string());
    const auto lines = core::differences(before, config);
    if (lines.empty()) return;
    throw core::UsageError("'" + folder + "' holds a study with another configuration (" +
                           core::join(lines, "; ") +
                           "); choose another --out, or give the same configuration to go on with it");
}

/// True where the folder holds this study with this configuration; UsageError where it holds anything else.
bool holds_this(const Value& config, const std::filesystem::path& folder) {
    std::error_code error;
    const auto file = folder / configuration_file;
    if (std::filesystem::exists(file, error)) {
        require_same(config, file, folder.string());
        return true;
    }
    if (std::filesystem::exists(folder, error) && !std::filesystem::is_empty(folder, error))
        throw core::UsageError("'" + folder.string() +
                               "' is not empty and holds no study; choose another --out");
    return false;
}

/// This program: its version, and a checksum of its file, for two builds of one version need not compute the same.
std::string this_program() {
    const std::string code = core::read_file("/proc/self/exe");
    return fmt::format("{} ({:08x})", THALWEG_VERSION, core::crc32(std::as_bytes(std::span(code))));
}

constexpr const char* programs_file = "programs.json";

/// The programs that have worked in the folder, first to last, this one included; warns where there are others.
std::vector<std::string> note_program(const std::filesystem::path& folder, bool going_on) {
    std::vector<std::string> programs;
    if (std::error_code error; std::filesystem::exists(folder / programs_file, error)) {
        const Json before = Json::parse(core::read_file(folder / programs_file), nullptr, false);
        if (before.is_array()) {
            for (const auto& program : before)
                programs.push_back(program.is_string() ? program.get<std::string>() : "");
        }
    }
    if (programs.empty() && going_on) programs.emplace_back("one that is not recorded");
    const std::string own = this_program();
    if (!programs.empty() && programs.back() != own)
        record::warn(
            fmt::format("'{}' holds results of another program: {}; this is {}. They are kept; choose "
                        "another --out to compute all "
                        "anew",
                        folder.string(), core::join(programs, ", then "), own));
    if (programs.empty() || programs.back() != own) {
        programs.push_back(own);
        core::write_atomically(folder / programs_file, record::json_text(Json(programs)) + "\n");
    }
    return programs;
}

/// The folder with the configuration in it, made anew unless it `goes_on`; gives the programs that have worked there.
std::vector<std::string> open_folder(const Value& config, const std::filesystem::path& folder, bool goes_on) {
    if (!goes_on) {
        std::error_code error;
        std::filesystem::create_directories(folder, error);
        if (error)
            throw core::RunError("cannot make the folder '" + folder.string() + "': " + error.message());
        core::write_atomically(folder / configuration_file, core::to_yaml(config));
    }
    return note_program(folder, goes_on);
}

Json findings_json(const std::vector<Finding>& findings) {
    Json json = Json::array();
    for (const auto& finding : findings) {
        json.push_back({{"claim", finding.claim},
                        {"source", finding.source},
                        {"published", finding.published},
                        {"ours", finding.ours},
                        {"seen", std::string(seen_name(finding.seen))},
                        {"numbers", finding.numbers}});
    }
    return json;
}

void write_result(const std::string& name, const Result& result, const Value& config,
                  const std::vector<std::string>& programs, const std::filesystem::path& folder) {
    report::Document document{.kind = "study", .title = name, .summary = result.summary};
    document.facts["study"] = name;
    document.facts["seed"] = config["seed"].as_int();
    document.facts["program"] = core::join(programs, ", then ");
    document.sections.push_back({.title = "Findings", .tables = {findings_table(result.findings)}});
    for (const auto& section : result.sections) document.sections.push_back(section);
    document.sections.push_back({.title = "Configuration", .code = core::to_yaml(config), .folded = true});
    Json json = report::to_json(document);
    json["findings"] = findings_json(result.findings);
    core::write_atomically(folder / "result.json", record::json_text(json, 1) + "\n");
    report::write_report(document, folder);
}

}  // namespace

std::string_view seen_name(Finding::Seen seen) {
    switch (seen) {
        case Finding::Seen::yes:
            return "yes";
        case Finding::Seen::no:
            return "no";
        case Finding::Seen::unsettled:
            return "unsettled";
    }
    return "";
}

report::TextTable findings_table(const std::vector<Finding>& findings) {
    report::TextTable table{.name = "findings",
                            .title = "What was published, and what is seen here",
                            .columns = {"claim", "source", "published", "here", "seen"},
                            .rows = {}};
    for (const auto& finding : findings) {
        table.rows.push_back({finding.claim, finding.source, finding.published, finding.ours,
                              std::string(seen_name(finding.seen))});
    }
    return table;
}

std::unique_ptr<Study> make_study(const std::string& name) {
    info_of(name);  // says which names there are
    return core::Registry<std::unique_ptr<Study>>::factories().at(name)({});
}

core::Value study_config(const std::string& name, const StudyOptions& options) {
    const auto& info = info_of(name);
    Value whole = options.config.empty()
                      ? core::parse_yaml(std::string(make_study(name)->configuration()), name + ".yaml")
                      : core::read_yaml(options.config);
    if (!whole.is_map()) whole.reject("a study's configuration is a map of its options");
    Value config = cut_to(options.size, whole);
    for (const auto& assignment : options.overrides) core::apply_override(config, assignment);
    Value resolved = core::resolve(schema_of(info), config, "", passed_through);
    if (!resolved.find(experiment_key))
        resolved.reject(
            "the study's configuration has no section 'experiment' with the data, the model and how clients "
            "train");
    if (!resolved[experiment_key].is_map())
        resolved[experiment_key].reject(
            "this is a map with the sections of a configuration file: data, model, clients, server");
    require_no_page(resolved[experiment_key]);
    resolved.find(experiment_key)->set("seed", resolved["seed"]);
    federation::make_experiment(resolved[experiment_key], {});  // faults are found before anything is trained
    return resolved;
}

Result conduct(const std::string& name, const StudyOptions& options, const std::filesystem::path& folder,
               core::Communicator& communicator) {
    const Value config = core::collectively(communicator, [&] { return study_config(name, options); });
    bool goes_on = false;  // on rank 0, as the next
    std::vector<std::string> programs;
    core::collectively(communicator, [&] {
        if (communicator.rank() == 0) goes_on = holds_this(config, folder);
    });
    // A configuration that the study itself refuses leaves no folder, which would be taken for that of another study.
    Workbench bench(folder, communicator, options.progress, [&] {
        goes_on = holds_this(config, folder);  // again: another study may have begun there since
        programs = open_folder(config, folder, goes_on);
    });
    const Result result = make_study(name)->conduct(config, bench);
    core::collectively(communicator, [&] {
        if (communicator.rank() == 0) write_result(name, result, config, programs, folder);
    });
    return result;
}

}  // namespace thalweg::study
