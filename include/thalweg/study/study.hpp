#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "thalweg/core/registry.hpp"
#include "thalweg/report/figure.hpp"
#include "thalweg/study/workbench.hpp"

namespace thalweg::study {

/// One published statement beside what was seen here.
struct Finding {
    enum class Seen { yes, no, unsettled };
    std::string claim;      ///< the direction or number, in a sentence
    std::string source;     ///< `Li et al., NeurIPS 2024`
    std::string published;  ///< theirs, with its unit; empty where only a direction is
    std::string ours;       ///< with its interval and p, where there are any
    Seen seen = Seen::unsettled;
    Json numbers = Json::object();  ///< what `ours` says, for programs
};

/// What a study found: the same on every rank and any number of ranks (times excepted, which it does not hold).
struct Result {
    std::string summary;  ///< one paragraph
    std::vector<Finding> findings;
    std::vector<report::Section> sections;  ///< figures and tables
};

/// A published question asked again: one configuration (configs/studies/NAME.yaml) and one driver. Registry kind `study`;
/// the schema says what its configuration holds beside `seed`, `samples` and `experiment`; values stand in the file alone.
class Study {
  public:
    virtual ~Study() = default;
    /// The built-in configuration, the text of configs/studies/NAME.yaml.
    virtual std::string_view configuration() const = 0;
    /// All of it, from the first model to the figures; cut into jobs, see Workbench. `options`: the resolved configuration;
    /// UsageError, before the first job, for what cannot be done as it says. Collective.
    virtual Result conduct(const core::Value& options, Workbench& bench) const = 0;
};
using StudyRegistration = core::Registration<std::unique_ptr<Study>>;

/// How much of a study is done: its configuration, or that with what its sections `quick` or `smoke` replace.
enum class Size { full, quick, smoke };

struct StudyOptions {
    Size size = Size::full;
    std::string config{};  ///< a file of the user's instead of the built-in configuration; empty: that one
    std::vector<std::string> overrides{};  ///< `key.path=value`
    bool progress = true;
};

/// The configuration as it will be used: built-in or the user's, cut to size, overridden and checked. UsageError.
core::Value study_config(const std::string& name, const StudyOptions& options);
/// A new study by its name. UsageError for an unknown one, with the nearest name.
std::unique_ptr<Study> make_study(const std::string& name);

/// Conducts a study in `folder` and writes what it found there: `study.yaml` (resolved), `programs.json` (those that worked
/// in it), `jobs/`, `models/`, `result.json`, `report.html`, `figures/`; nothing before the first job. A folder that holds the
/// same study with the same configuration is gone on with; another one is a UsageError that says where they differ. What
/// another program has computed there stands, with a warning and in the report. Collective; the same on every rank.
Result conduct(const std::string& name, const StudyOptions& options, const std::filesystem::path& folder,
               core::Communicator& communicator);

/// The findings as a table, `claim, published, here, seen`.
report::TextTable findings_table(const std::vector<Finding>& findings);
std::string_view seen_name(Finding::Seen seen);

}  // namespace thalweg::study
