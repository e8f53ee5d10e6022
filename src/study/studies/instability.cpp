#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>

#include "architectures.hpp"
#include "checks.hpp"
#include "common.hpp"
#include "estimates.hpp"
#include "thalweg/analysis/measures.hpp"
#include "thalweg/embedded/studies.hpp"
#include "units.hpp"

namespace thalweg::study::instability {

namespace {

using core::Value;

constexpr const char* paper = "Frankle et al., ICML 2020 (arXiv 1912.05671)";
constexpr double none = std::numeric_limits<double>::quiet_NaN();
constexpr double stable_below = 2;  ///< points of error, as the source has it
constexpr double early = 0.03;      ///< of the training: the latest that the source reports on CIFAR-10

/// The trainings of one architecture, each with copies that part from it.
struct Trainings {
    std::string name;
    std::shared_ptr<const Laboratory> laboratory;
    std::vector<double> shares;                        ///< of the training after which copies part
    std::vector<std::int64_t> steps;                   ///< the same in steps
    std::vector<std::string> originals;                ///< labels, by seed
    std::vector<std::vector<std::string>> copies{};    ///< [seed][fork]
    std::vector<double> accuracy{};                    ///< of the originals
    std::vector<std::vector<double>> error{}, loss{};  ///< barriers: [fork][seed]; error in points

    bool mlp() const { return is_mlp(*laboratory); }
    Estimate barrier(std::size_t fork) const { return known_mean(error[fork]); }
    Finding::Seen stable(std::size_t fork) const { return seen_below(barrier(fork), stable_below); }
    /// The first fork from which on the barrier's interval is below the threshold; a fork at the end, which parts nothing,
    /// does not count.
    std::optional<std::size_t> stable_from() const {
        std::optional<std::size_t> from;
        for (std::size_t fork = steps.size(); fork-- > 0;) {
            if (shares[fork] >= 1) continue;
            if (stable(fork) != Finding::Seen::yes) break;
            from = fork;
        }
        return from;
    }
};

class Instability final : public Study {
  public:
    std::string_view configuration() const override { return embedded::studies::instability_yaml; }

    Result conduct(const Value& options, Workbench& bench) const override {
        require_rising(options["forks"]);
        auto all = train(options, bench);
        for (auto& trainings : all) measure(trainings, options, bench);
        Result result;
        for (const auto& trainings : all) {
            result.findings.push_back(falls(trainings));
            result.findings.push_back(from_initialisation(trainings));
            result.findings.push_back(stable_early(trainings));
        }
        result.summary =
            "Two copies of a training that see the same samples up to step k and other orders after it: ";
        for (const auto& trainings : all)
            result.summary +=
                trainings.name + " " + stable_text(trainings) + (&trainings == &all.back() ? "." : "; ");
        result.sections = {section(all, options)};
        return result;
    }

  private:
    static std::vector<Trainings> train(const Value& options, Workbench& bench) {
        std::vector<Trainings> all;
        std::vector<Training> jobs;
        const auto seed = static_cast<std::uint64_t>(options["seed"].as_int());
        for (const auto& architecture : open_architectures(options, bench)) {
            Trainings trainings{architecture.name, architecture.laboratory, {}, {}, {}};
            const Laboratory& lab = *trainings.laboratory;
            const auto last = core::collectively(bench.all(), [&] {
                return clients::LocalTrainer(lab.graph(), lab.experiment.plan, seed)
                    .steps_for(lab.train->size());
            });
            for (const auto& share : options["forks"].items()) {
                trainings.shares.push_back(share.as_number());
                trainings.steps.push_back(std::llround(share.as_number() * static_cast<double>(last)));
            }
            for (std::int64_t i = 0; i < options["seeds"].as_int(); ++i) {
                const auto own = seed * 1000 + static_cast<std::uint64_t>(i);
                const std::string label = trainings.name + "-s" + std::to_string(i);
                trainings.originals.push_back(label);
                jobs.push_back(
                    {.label = label, .laboratory = trainings.laboratory, .seed = own, .initialisation = own});
                trainings.copies.emplace_back();
                for (std::size_t fork = 0; fork < trainings.steps.size(); ++fork) {
                    jobs.push_back(jobs.back());
                    auto& copy = jobs.back();
                    copy.label = label + "-f" + std::to_string(fork);
                    copy.fork_at = trainings.steps[fork];
                    copy.fork_seed = core::Random(own, "instability").next();
                    trainings.copies.back().push_back(copy.label);
                }
            }
            all.push_back(std::move(trainings));
        }
        const auto accuracy = numbers_in(bench.train(jobs), "accuracy");
        const std::size_t forks = options["forks"].items().size();
        std::size_t next = 0;
        for (auto& trainings : all) {
            for (std::size_t i = 0; i < trainings.originals.size(); ++i, next += forks + 1)
                trainings.accuracy.push_back(accuracy[next]);
        }
        return all;
    }

    /// A job is a training with all of its copies.
    static void measure(Trainings& trainings, const Value& options, Workbench& bench) {
        const Laboratory& lab = *trainings.laboratory;
        const auto results = bench.run("barriers-" + trainings.name, trainings.originals, [&](std::size_t i) {
            Json row = {{"error", Json::array()}, {"loss", Json::array()}};
            for (const auto& copy : trainings.copies[i]) {
                if (!bench.has_model(trainings.originals[i]) || !bench.has_model(copy)) {
                    row["error"].push_back(nullptr);
                    row["loss"].push_back(nullptr);
                    continue;
                }
                const auto curve =
                    analysis::linear_curve(lab.graph(), bench.model(trainings.originals[i]),
                                           bench.model(copy), {{"test", lab.test.get()}},
                                           {.points = options["points"].as_int()}, nullptr, bench.alone());
                row["error"].push_back(100 * curve.splits.front().second.error_barrier);
                row["loss"].push_back(curve.splits.front().second.loss_barrier);
            }
            return row;
        });
        const auto number = [](const Json& value) { return value.is_number() ? value.get<double>() : none; };
        for (std::size_t fork = 0; fork < trainings.steps.size(); ++fork) {
            trainings.error.emplace_back();
            trainings.loss.emplace_back();
            for (const auto& row : results) {
                trainings.error.back().push_back(number(row["error"][fork]));
                trainings.loss.back().push_back(number(row["loss"][fork]));
            }
        }
    }

    static std::string fork_text(const Trainings& trainings, std::size_t fork) {
        return "step " + std::to_string(trainings.steps[fork]) + " (" +
               core::to_flow(Value::of(100 * trainings.shares[fork])) + "% of training)";
    }

    static std::string stable_text(const Trainings& trainings) {
        const auto from = trainings.stable_from();
        return from ? "is stable (interval of the error barrier below 2 points) from " +
                          fork_text(trainings, *from) + " on"
                    : "is seen to be stable from no step that was tried on";
    }

    static Finding falls(const Trainings& trainings) {
        std::vector<double> units;
        for (std::size_t i = 0; i < trainings.originals.size(); ++i) {
            std::vector<double> step, barrier;
            for (std::size_t fork = 0; fork < trainings.steps.size(); ++fork) {
                // A copy that parts at the end is the original.
                if (trainings.shares[fork] >= 1 || std::isnan(trainings.error[fork][i])) continue;
                step.push_back(static_cast<double>(trainings.steps[fork]));
                barrier.push_back(trainings.error[fork][i]);
            }
            const double value = rank_correlation(step, barrier);
            if (!std::isnan(value)) units.push_back(value);
        }
        const auto estimate = known_mean(units);
        const double p = known_p(units);
        Finding finding{.claim = trainings.name +
                                 ": the later the copies part, the lower the error barrier between "
                                 "where they end",
                        .source = paper,
                        .published = trainings.mlp()
                                         ? "on CIFAR-10 it falls with k; LeNet on MNIST is stable at any k"
                                         : "falls with k",
                        .ours = "rank correlation of barrier and k, mean of " + std::to_string(units.size()) +
                                " trainings: " + counted_text(estimate, trainings.originals.size()) + ", " +
                                p_text(p, estimate.count),
                        .seen = seen_below(estimate),
                        .numbers = json_of(estimate)};
        finding.numbers["p"] = p;
        return finding;
    }

    /// What the source says of such nets: fully connected ones are stable, convolutional ones are not.
    static Finding from_initialisation(const Trainings& trainings) {
        std::size_t first = 0;
        for (std::size_t fork = 0; fork < trainings.steps.size(); ++fork) {
            if (trainings.steps[fork] < trainings.steps[first]) first = fork;
        }
        const auto estimate = trainings.barrier(first);
        const std::string when = " when the copies part at " + fork_text(trainings, first) + ")";
        return {
            .claim = trainings.name +
                     (trainings.mlp() ? ": stable from initialisation on (error barrier below 2 points"
                                      : ": not stable at initialisation (error barrier above 2 points") +
                     when,
            .source = paper,
            .published = trainings.mlp() ? "LeNet (an MLP 300-100) on MNIST is stable"
                                         : "ResNet-20 and VGG-16 on CIFAR-10 are not stable",
            .ours = "barrier " + counted_text(estimate, trainings.originals.size()) + " points",
            .seen = trainings.mlp() ? seen_below(estimate, stable_below) : seen_above(estimate, stable_below),
            .numbers = json_of(estimate)};
    }

    static Finding stable_early(const Trainings& trainings) {
        std::optional<std::size_t> at;
        for (std::size_t fork = 0; fork < trainings.steps.size(); ++fork) {
            if (trainings.shares[fork] <= early && (!at || trainings.steps[fork] > trainings.steps[*at]))
                at = fork;
        }
        Finding finding{.claim = trainings.name + ": stable early in training (by 3% of its steps)",
                        .source = paper,
                        .published = trainings.mlp()
                                         ? "LeNet (an MLP 300-100) on MNIST from initialisation on"
                                         : "ResNet-20 from 3%, VGG-16 from 1.5% of training on",
                        .ours = "no copies parted so early"};
        if (!at) return finding;
        const auto estimate = trainings.barrier(*at);
        finding.ours = "at " + fork_text(trainings, *at) + ": barrier " +
                       counted_text(estimate, trainings.originals.size()) + " points; " + trainings.name +
                       " " + stable_text(trainings);
        finding.seen = seen_below(estimate, stable_below);
        finding.numbers = json_of(estimate);
        const auto from = trainings.stable_from();
        finding.numbers["stable_from_step"] = from ? Json(trainings.steps[*from]) : Json();
        return finding;
    }

    static report::Section section(const std::vector<Trainings>& all, const Value& options) {
        const auto seeds = static_cast<std::size_t>(options["seeds"].as_int());
        auto least = static_cast<std::int64_t>(seeds);
        for (const auto& trainings : all) {
            for (std::size_t fork = 0; fork < trainings.steps.size(); ++fork)
                least = std::min(least, trainings.barrier(fork).count);
        }
        report::Figure figure{
            .name = "barrier-by-fork",
            .title = "Barrier between two copies by the step at which they part",
            .caption =
                "Largest excess of the test error on the line between a training's end and that of its copy, "
                "which saw the same samples up to step k and another order after it. Mean over trainings; "
                "band: 95% interval over " +
                counts_text(least, seeds, "trainings") + ". Below 2 points is called stable.",
            .x = {.label = "k (% of training)"},
            .y = {.label = "error barrier (points)"}};
        report::Series threshold{.name = "2 points", .style = report::Series::Style::dashed};
        for (const auto& share : options["forks"].items()) {
            threshold.x.push_back(static_cast<double>(figure.categories.size()));
            threshold.y.push_back(stable_below);
            figure.categories.push_back(core::to_flow(Value::of(100 * share.as_number())));
        }
        report::TextTable table{
            .name = "barriers",
            .title = "Barriers",
            .caption =
                "Test samples; mean over trainings with 95% interval, which lies below 2 points "
                "where the net is called stable. Accuracy: of the trainings that their copies "
                "part from.",
            .columns = {"net", "accuracy (%)", "k (steps)", "k (%)", "error barrier (points)", "loss barrier",
                        "stable"},
            .rows = {}};
        for (const auto& trainings : all) {
            report::Series series{.name = trainings.name};
            for (std::size_t fork = 0; fork < trainings.steps.size(); ++fork) {
                const auto barrier = trainings.barrier(fork);
                add_point(series, static_cast<double>(fork), barrier);
                table.rows.push_back({trainings.name, fixed(known_mean(trainings.accuracy, 100).value, 1),
                                      std::to_string(trainings.steps[fork]), figure.categories[fork],
                                      counted_text(barrier, seeds),
                                      counted_text(known_mean(trainings.loss[fork]), seeds, 3),
                                      std::string(seen_name(trainings.stable(fork)))});
            }
            figure.series.push_back(std::move(series));
        }
        figure.series.push_back(std::move(threshold));
        return {.title = "When trainings become stable", .figures = {figure}, .tables = {table}};
    }
};

const StudyRegistration instability_registration{
    {.kind = "study",
     .name = "instability",
     .help =
         "barrier between two copies of a training that part at step k, and from which step on there is none",
     .citation = paper,
     .options = {architectures_option("trained beside each other"),
                 core::integer("seeds", "trainings of each architecture").at_least(2),
                 core::numbers("forks", "after which shares of the training copies part, 0 to 1, rising")
                     .at_least(0)
                     .at_most(1)
                     .at_least_items(2),
                 core::integer("points", "on the line between two copies").at_least(3)}},
    [](const Value&) { return std::make_unique<Instability>(); }};

}  // namespace

}  // namespace thalweg::study::instability
