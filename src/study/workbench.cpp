#include "thalweg/study/workbench.hpp"

#include <torch/types.h>

#include <algorithm>
#include <fstream>
#include <numeric>
#include <stdexcept>

#include "thalweg/core/error.hpp"
#include "thalweg/core/files.hpp"
#include "thalweg/core/interrupt.hpp"
#include "thalweg/model/model_file.hpp"
#include "thalweg/record/json.hpp"

namespace thalweg::study {

namespace {

/// `count` samples of `all` drawn by `seed` and `purpose`, in the set's order; all for 0. UsageError for more than there are.
std::shared_ptr<const data::SampleSet> some_of(std::shared_ptr<const data::SampleSet> all,
                                               const core::Value& count, std::uint64_t seed,
                                               const std::string& purpose) {
    const std::int64_t wanted = count.as_int();
    if (wanted == 0 || wanted == all->size()) return all;
    if (wanted > all->size())
        count.reject("the data set has " + std::to_string(all->size()) + " such samples, and " +
                     std::to_string(wanted) + " are asked for; 0 takes all");
    core::Random random(seed, purpose);
    std::vector<std::uint32_t> drawn;
    for (const auto index : random.sample(all->size(), wanted))
        drawn.push_back(static_cast<std::uint32_t>(index));
    return std::make_shared<data::Subset>(std::move(all), std::move(drawn));
}

void require_stem(const std::string& label) {
    const bool fine = !label.empty() && std::all_of(label.begin(), label.end(), [](char c) {
        return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '.';
    });
    if (!fine || label[0] == '.') throw std::logic_error("'" + label + "' cannot name a job's file");
}

/// What a federation's server does with an experiment, and a study that trains one model after another does not.
void require_no_server_work(const core::Value& experiment) {
    const auto& holdout = experiment["data"]["holdout"];
    if (holdout.as_int() != 0)
        holdout.reject(
            "this study has no server that keeps samples; matching and REPAIR look at samples.calibration of "
            "the training samples; leave this out");
    const auto& measures = experiment["analysis"]["measures"];
    if (!measures.items().empty())
        measures.reject("this study has no rounds to measure, and measures what it asks; leave this out");
}

/// Jobs of one name would share a file.
void require_unlike(const std::string& name, std::vector<std::string> labels) {
    std::sort(labels.begin(), labels.end());
    const auto twice = std::adjacent_find(labels.begin(), labels.end());
    if (twice == labels.end()) return;
    throw core::UsageError(
        "two jobs of '" + name + "' would both be called '" + *twice +
        "': the study's configuration lists something twice, or things whose names differ in "
        "signs only; leave one of them out");
}

/// The result of a job that an earlier process finished; nothing when there is none. A damaged file is one that is not there:
/// the job is done again.
std::optional<Json> finished(const std::filesystem::path& path) {
    std::error_code error;
    if (!std::filesystem::exists(path, error)) return std::nullopt;
    const Json json = Json::parse(core::read_file(path), nullptr, false);
    return json.is_discarded() ? std::nullopt : std::optional(json);
}

}  // namespace

core::Value changed(core::Value experiment, const std::vector<core::Value>& changes) {
    for (const auto& change : changes) core::apply_override(experiment, change);
    return experiment;
}

core::Option samples_option() {
    return core::object(
        "samples",
        {core::integer("train", "training samples, drawn by the seed; 0: all").at_least(0).by_default(0),
         core::integer("test", "test samples, drawn by the seed; 0: all").at_least(0).by_default(0),
         core::integer("calibration", "training samples that matching and REPAIR look at")
             .at_least(1)
             .by_default(1000)},
        "how much of the data is used");
}

void require_no_page(const core::Value& experiment) {
    const core::Value* record = experiment.find("record");
    if (record == nullptr) return;
    for (const char* key : {"serve", "token"}) {
        if (record->has(key))
            (*record)[key].reject(
                "what a study trains has no live page, and its configuration is written to its folder and "
                "its report; leave this out (`thalweg run` and `thalweg serve` have a page)");
    }
}

Workbench::Workbench(std::filesystem::path folder, core::Communicator& communicator, bool progress,
                     std::function<void()> begin)
    : folder_(std::move(folder)),
      communicator_(communicator),
      progress_(progress),
      begin_(std::move(begin)) {}

Workbench::~Workbench() = default;

void Workbench::open_folder() {
    if (begin_) {
        begin_();
        begin_ = {};
    }
    std::error_code error;
    for (const char* part : {"jobs", "models"}) {
        std::filesystem::create_directories(folder_ / part, error);
        if (error)
            throw core::RunError("cannot make the folder '" + (folder_ / part).string() +
                                 "': " + error.message());
    }
}

std::shared_ptr<const Laboratory> Workbench::laboratory(const core::Value& experiment,
                                                        const std::vector<core::Value>& changes,
                                                        const core::Value& samples) {
    auto made = std::make_shared<Laboratory>();
    made->experiment = core::collectively(communicator_, [&] {
        core::Value sections = changed(experiment, changes);
        require_no_page(sections);
        return federation::make_experiment(std::move(sections), {});
    });
    // Generated data follow the seed: another seed is another data set.
    const std::string name =
        core::to_flow(made->experiment.config["data"]["dataset"]) + std::to_string(made->experiment.seed);
    const auto known = std::find_if(datasets_.begin(), datasets_.end(),
                                    [&](const auto& candidate) { return candidate.first == name; });
    made->setting = federation::open_setting(made->experiment, communicator_,
                                             known == datasets_.end() ? nullptr : known->second);
    if (known == datasets_.end()) datasets_.emplace_back(name, made->setting.dataset);
    core::collectively(communicator_, [&] {
        const auto& dataset = *made->setting.dataset;
        if (!dataset.train())
            throw core::UsageError(dataset.name() +
                                   " has no training set as a whole, only clients' parts; studies need one");
        const std::uint64_t seed = made->experiment.seed;
        made->train = some_of(dataset.train(), samples["train"], seed, "study training samples");
        made->test = some_of(dataset.test(), samples["test"], seed, "study test samples");
        made->calibration = some_of(made->train, samples["calibration"], seed, "study calibration samples");
    });
    return made;
}

std::vector<Json> Workbench::run(const std::string& name, const std::vector<std::string>& labels,
                                 const std::function<Json(std::size_t)>& job) {
    const auto path_of = [&](std::size_t i) { return folder_ / "jobs" / name / (labels[i] + ".json"); };
    const auto ranks = static_cast<std::size_t>(communicator_.size());
    const auto rank = static_cast<std::size_t>(communicator_.rank());
    // Left by a rank whose job failed: the others look for it between jobs, for they agree only when all are done.
    const auto failed = folder_ / "jobs" / ".failed";
    // Which jobs are left is decided before any starts: the ranks share them evenly, whoever did the others.
    std::vector<std::size_t> left;
    core::collectively(communicator_, [&] {
        require_stem(name);
        require_unlike(name, labels);
        for (const auto& label : labels) require_stem(label);
    });
    core::collectively(communicator_, [&] {
        if (is_root()) open_folder();
    });
    core::collectively(communicator_, [&] {
        std::filesystem::create_directories(folder_ / "jobs" / name);
        if (is_root()) std::filesystem::remove(failed);
        for (std::size_t i = 0; i < labels.size(); ++i) {
            if (!finished(path_of(i))) left.push_back(i);
        }
    });
    core::collectively(communicator_, [&] {
        record::Progress progress(progress_ && is_root(), static_cast<std::int64_t>(labels.size()), name);
        for (std::size_t p = rank; p < left.size(); p += ranks) {
            core::check_interrupt();
            if (ranks > 1 && std::filesystem::exists(failed)) return;
            progress.update(static_cast<double>(labels.size() - left.size() + p), labels[left[p]]);
            try {
                const Json result = job(left[p]);
                core::write_atomically(path_of(left[p]), record::json_text(result, 1) + "\n");
            } catch (...) {
                if (ranks > 1)
                    std::ofstream(failed).flush();  // where it cannot be written, the others hear later
                throw;
            }
        }
        if (!left.empty()) progress.finish();
    });
    return core::collectively(communicator_, [&] {
        std::vector<Json> results;
        for (std::size_t i = 0; i < labels.size(); ++i) {
            const auto result = finished(path_of(i));
            if (!result)
                throw core::RunError(
                    "the result '" + path_of(i).string() +
                    "' of another rank cannot be seen here; a study's folder has to lie where "
                    "all ranks can read it");
            results.push_back(*result);
        }
        return results;
    });
}

std::filesystem::path Workbench::model_path(const std::string& label) const {
    return folder_ / "models" / (label + ".pt");
}

std::filesystem::path Workbench::training_path(const std::string& label) const {
    return folder_ / "jobs" / "training" / (label + ".json");
}

Json Workbench::train_one(const Training& training) const {
    const Laboratory& lab = *training.laboratory;
    auto parameters = federation::initial_model(lab.graph(), training.initialisation, -1);
    std::vector<std::pair<std::string, at::Tensor>> kept;
    const auto keep = [&](std::int64_t step) {
        if (std::find(training.snapshots.begin(), training.snapshots.end(), step) == training.snapshots.end())
            return;
        const model::Parameters copy = parameters.clone();
        kept.emplace_back("values-" + std::to_string(step), copy.values);
        kept.emplace_back("counters-" + std::to_string(step), copy.counters);
    };
    keep(0);
    const auto diverged = [](const std::string& why) {
        return Json{{"loss", nullptr},
                    {"steps", nullptr},
                    {"seconds", nullptr},
                    {"accuracy", nullptr},
                    {"diverged", why}};
    };
    clients::LocalTrainer trainer(lab.graph(), lab.experiment.plan, training.seed);
    const auto& samples = training.samples ? *training.samples : *lab.train;
    clients::LocalResult result;
    try {
        result = trainer.train(
            parameters, samples, 0, 1, {},
            {.after_step = keep, .fork_at = training.fork_at, .order_seed = training.fork_seed});
    } catch (const clients::Diverged& error) {
        return diverged(error.what());
    }
    // The loss is that before a step: nobody has looked at what the last one left.
    if (!at::isfinite(parameters.values).all().item<bool>())
        return diverged("the parameters after the last step are not finite");
    // First: a model that is there has its snapshots.
    if (!kept.empty()) model::save_tensors(folder_ / "models" / (training.label + ".steps.pt"), kept, {});
    model::save_model(model_path(training.label), lab.graph(), parameters,
                      federation::model_meta(lab.experiment));
    return {{"loss", result.loss},
            {"steps", result.steps},
            {"seconds", result.seconds},
            {"accuracy", lab.test_score(parameters).accuracy}};
}

std::vector<Json> Workbench::train(const std::vector<Training>& trainings) {
    std::vector<std::string> labels;
    for (const auto& training : trainings) labels.push_back(training.label);
    core::collectively(communicator_, [&] {
        for (const auto& training : trainings) require_no_server_work(training.laboratory->experiment.config);
    });
    return run("training", labels, [&](std::size_t i) { return train_one(trainings[i]); });
}

model::Parameters Workbench::model(const std::string& label) const {
    const auto training = finished(training_path(label));
    if (training && training->contains("diverged"))
        throw core::RunError("the model '" + label +
                             "' could not be trained: " + (*training)["diverged"].get<std::string>());
    return model::load_model(model_path(label)).parameters;
}

bool Workbench::has_model(const std::string& label) const {
    const auto training = finished(training_path(label));
    if (!training) throw core::RunError("the model '" + label + "' has not been trained");
    if (training->contains("diverged")) return false;
    if (!std::filesystem::exists(model_path(label)))
        throw core::RunError("the model '" + model_path(label).string() +
                             "' is gone, though its training is done; remove '" +
                             training_path(label).string() + "' to have it trained again");
    return true;
}

model::Parameters Workbench::snapshot(const std::string& label, std::int64_t step) const {
    model::Parameters parameters = model(label);
    const auto file = model::load_tensors(folder_ / "models" / (label + ".steps.pt"));
    parameters.values = file.at("values-" + std::to_string(step));
    parameters.counters = file.at("counters-" + std::to_string(step));
    return parameters;
}

}  // namespace thalweg::study
