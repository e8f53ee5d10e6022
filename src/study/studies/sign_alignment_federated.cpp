#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "checks.hpp"
#include "common.hpp"
#include "estimates.hpp"
#include "federated_run.hpp"
#include "thalweg/embedded/studies.hpp"

namespace thalweg::study::sign_alignment_federated {

namespace {

using core::Value;

constexpr const char* paper = "Li et al., NeurIPS 2024 (arXiv 2405.12489)";
constexpr double none = std::numeric_limits<double>::quiet_NaN();

/// FedAvg or one of its rivals.
struct Method {
    enum class Kind { average, proximal, client_signs, server_signs };
    Kind kind = Kind::average;
    std::string name;
    std::vector<Value> changes;
};

/// One degree of heterogeneity with one amount of local work: what every method came to, by seed.
struct Cell {
    double alpha = 0;
    std::int64_t epochs = 0;
    std::vector<std::vector<double>> accuracy;  ///< [method][seed], in percent, after the last round
    std::vector<std::vector<double>>
        signs;  ///< clients with the new global model, mean over rounds, in percent
    std::string name() const {
        return fmt::format("α = {}, {} epoch{}", core::to_flow(Value::of(alpha)), epochs,
                           epochs == 1 ? "" : "s");
    }
};

class SignAlignmentFederated final : public Study {
  public:
    std::string_view configuration() const override {
        return embedded::studies::sign_alignment_federated_yaml;
    }

    Result conduct(const Value& options, Workbench& bench) const override {
        require_epochs(options);
        const auto methods = methods_of(options);
        if (methods.size() < 2)
            options["objectives"].reject(
                "there is nothing to set beside the first; give another objective, or server_signs");
        const auto experiments = experiments_of(methods, options, bench);
        const auto cells = run(methods, experiments, options, bench);
        Result result;
        for (std::size_t method = 1; method < methods.size(); ++method) {
            result.findings.push_back(gain(methods, cells, method));
            if (cells.front().alpha < cells.back().alpha)
                result.findings.push_back(gain_by_skew(methods, cells, method));
            if (methods[method].kind == Method::Kind::client_signs)
                result.findings.push_back(keeps_signs(methods, cells, method));
        }
        const auto rounds = experiments.front().rounds;
        result.summary = "Test accuracy after " + std::to_string(rounds) + " rounds minus " +
                         methods.front().name + "'s, mean over all degrees of skew and local epochs: ";
        for (std::size_t method = 1; method < methods.size(); ++method)
            result.summary += methods[method].name + " " +
                              estimate_text(known_mean(by_seed(all_of(cells), method, accuracy_of))) +
                              (method + 1 == methods.size() ? " points." : ", ");
        result.sections = {section(methods, cells, options),
                           {.title = "All cells", .tables = {table(methods, cells)}}};
        return result;
    }

  private:
    using Pick = const std::vector<std::vector<double>>& (*)(const Cell&);
    static const std::vector<std::vector<double>>& accuracy_of(const Cell& cell) { return cell.accuracy; }
    static const std::vector<std::vector<double>>& signs_of(const Cell& cell) { return cell.signs; }

    static std::string options_text(const Value& plugin) {
        std::string text;
        for (const auto& [key, value] : plugin.fields()) {
            if (key == "kind") continue;
            if (!text.empty()) text += ", ";
            text += fmt::format("{}={}", key, core::to_flow(value));
        }
        return text;
    }

    static std::vector<Method> methods_of(const Value& options) {
        std::vector<Method> methods;
        for (const auto& objective : options["objectives"].items()) {
            const auto kind = objective["kind"].as_text();
            methods.push_back(
                {kind == "none"      ? Method::Kind::average
                 : kind == "fedprox" ? Method::Kind::proximal
                                     : Method::Kind::client_signs,
                 kind == "none" ? std::string("FedAvg")
                                : fmt::format("{}({})", kind, options_text(objective)),
                 {assignment("clients.objective", objective), Value::of("server.fusion=[mean]")}});
        }
        for (const auto& signs : options["server_signs"].items()) {
            Value stage = signs;
            stage.set("kind", Value::of("sign_alignment"));
            methods.push_back({Method::Kind::server_signs,
                               fmt::format("server signs ({})", options_text(signs)),
                               {Value::of(fmt::format("server.fusion=[{}, mean]", core::to_flow(stage)))}});
        }
        return methods;
    }

    static std::vector<Cell> cells_of(const Value& options) {
        std::vector<Cell> cells;
        for (const auto& alpha : options["alphas"].items()) {
            for (const auto& epochs : options["epochs"].items())
                cells.push_back({alpha.as_number(), epochs.as_int(), {}, {}});
        }
        return cells;
    }

    /// By cell, method and seed. A seed has the same partition, initial model and batches with every method.
    static std::vector<federation::Experiment> experiments_of(const std::vector<Method>& methods,
                                                              const Value& options, Workbench& bench) {
        std::vector<federation::Experiment> experiments;
        core::collectively(bench.all(), [&] {
            for (const auto& cell : cells_of(options)) {
                for (const auto& method : methods) {
                    for (std::int64_t i = 0; i < options["seeds"].as_int(); ++i) {
                        auto changes = method.changes;
                        changes.push_back(assignment("seed", Value::of(options["seed"].as_int() * 1000 + i)));
                        changes.push_back(assignment("data.partition.alpha", Value::of(cell.alpha)));
                        changes.push_back(assignment("clients.epochs", Value::of(cell.epochs)));
                        experiments.push_back(
                            federation::make_experiment(changed(options["experiment"], changes), {}));
                    }
                }
            }
        });
        return experiments;
    }

    /// A job is a federation.
    static std::vector<Cell> run(const std::vector<Method>& methods,
                                 const std::vector<federation::Experiment>& experiments, const Value& options,
                                 Workbench& bench) {
        auto cells = cells_of(options);
        const auto seeds = options["seeds"].as_int();
        std::vector<std::string> labels;
        for (std::size_t cell = 0; cell < cells.size(); ++cell) {
            for (std::size_t method = 0; method < methods.size(); ++method) {
                for (std::int64_t i = 0; i < seeds; ++i)
                    labels.push_back(fmt::format("c{}-m{}-s{}", cell, method, i));
            }
        }
        const auto lab = bench.laboratory(options["experiment"], {Value::of("data.partition.alpha=1")},
                                          options["samples"]);
        core::collectively(bench.all(), [&] {
            for (std::size_t i = 0; i < experiments.size(); i += static_cast<std::size_t>(seeds))
                require_runnable(experiments[i], *lab, bench);
        });
        const auto results = bench.run("federations", labels, [&](std::size_t i) {
            const auto lines = run_federation(experiments[i], *lab, labels[i], bench);
            Json result = {{"accuracy", Json::array()}, {"signs", Json::array()}};
            for (const auto& line : lines) {
                result["accuracy"].push_back(number_at(line, {"test", "accuracy"}));
                result["signs"].push_back(number_at(line, {"sign_consistency", "client_global"}));
            }
            return result;
        });
        std::size_t next = 0;
        for (auto& cell : cells) {
            for (std::size_t method = 0; method < methods.size(); ++method) {
                cell.accuracy.emplace_back();
                cell.signs.emplace_back();
                for (std::int64_t i = 0; i < seeds; ++i, ++next) {
                    const Json& accuracy = results[next].at("accuracy");
                    cell.accuracy.back().push_back(accuracy.empty() || !accuracy.back().is_number()
                                                       ? none
                                                       : 100 * accuracy.back().get<double>());
                    cell.signs.back().push_back(100 * mean_at(results[next], {"signs"}));
                }
            }
        }
        return cells;
    }

    static std::vector<const Cell*> all_of(const std::vector<Cell>& cells) {
        std::vector<const Cell*> all;
        for (const auto& cell : cells) all.push_back(&cell);
        return all;
    }

    /// The method minus the first one, mean over `cells` seed by seed; a seed that diverged anywhere is NaN.
    static std::vector<double> by_seed(const std::vector<const Cell*>& cells, std::size_t method, Pick pick) {
        std::vector<double> sum(pick(*cells.front()).front().size(), 0.0);
        for (const Cell* cell : cells) {
            const auto differences = differences_of(pick(*cell)[method], pick(*cell).front());
            for (std::size_t i = 0; i < sum.size(); ++i)
                sum[i] += differences[i] / static_cast<double>(cells.size());
        }
        return sum;
    }

    /// Federations of the method that diverged: they left no accuracy.
    static std::int64_t diverged(const std::vector<const Cell*>& cells, std::size_t method) {
        std::int64_t count = 0;
        for (const Cell* cell : cells) {
            for (const double accuracy : cell->accuracy[method]) count += std::isnan(accuracy) ? 1 : 0;
        }
        return count;
    }

    /// A method is not better for its good seeds alone: where it diverged more often than the first, nothing is settled.
    static Finding with_diverged(Finding finding, const std::vector<Method>& methods,
                                 const std::vector<const Cell*>& cells, std::size_t method) {
        const auto own = diverged(cells, method), first = diverged(cells, 0);
        if (own > first) finding.seen = Finding::Seen::unsettled;
        if (own > 0 || first > 0)
            finding.ours += fmt::format("; {} of {} federations diverged, {} of {}", own,
                                        cells.size() * cells.front()->accuracy.front().size(), first,
                                        methods.front().name);
        finding.numbers["diverged"] = own;
        finding.numbers["diverged_of_first"] = first;
        return finding;
    }

    static Finding judged(std::string claim, std::string source, std::string published,
                          const std::string& unit, const std::vector<double>& units, int digits = 2) {
        const auto estimate = known_mean(units);
        const double p = known_p(units);
        Finding finding{.claim = std::move(claim),
                        .source = std::move(source),
                        .published = std::move(published),
                        .ours = estimate_text(estimate, digits) + " " + unit + " over " +
                                std::to_string(estimate.count) + " seeds, " + p_text(p),
                        .seen = seen_above(estimate),
                        .numbers = json_of(estimate)};
        finding.numbers["p"] = p;
        return finding;
    }

    static Finding gain(const std::vector<Method>& methods, const std::vector<Cell>& cells,
                        std::size_t method) {
        const auto kind = methods[method].kind;
        const bool ours = kind == Method::Kind::server_signs;
        auto found = judged(methods[method].name + " is more accurate than " + methods.front().name +
                                ", over all degrees of skew and local epochs",
                            ours                             ? "question of this program"
                            : kind == Method::Kind::proximal ? "Li et al., MLSys 2020 (arXiv 1812.06127)"
                                                             : paper,
                            ours ? ""
                            : kind == Method::Kind::proximal
                                ? "helps where data differ; 88.2 against 88.1% (Dirichlet 0.5, "
                                  "Flower's baseline)"
                                : "better than FedAvg",
                            "points of accuracy", by_seed(all_of(cells), method, accuracy_of));
        return with_diverged(std::move(found), methods, all_of(cells), method);
    }

    /// At the smallest α minus at the largest.
    static Finding gain_by_skew(const std::vector<Method>& methods, const std::vector<Cell>& cells,
                                std::size_t method) {
        double lowest = cells.front().alpha, highest = lowest;
        for (const auto& cell : cells) {
            lowest = std::min(lowest, cell.alpha);
            highest = std::max(highest, cell.alpha);
        }
        std::vector<const Cell*> skewed, even;
        for (const auto& cell : cells) {
            if (cell.alpha == lowest) skewed.push_back(&cell);
            if (cell.alpha == highest) even.push_back(&cell);
        }
        auto found = judged(
            methods[method].name + " gains more where clients' labels differ most (α = " +
                core::to_flow(Value::of(lowest)) + " against " + core::to_flow(Value::of(highest)) + ")",
            "question of this program", "", "points more",
            differences_of(by_seed(skewed, method, accuracy_of), by_seed(even, method, accuracy_of)));
        skewed.insert(skewed.end(), even.begin(), even.end());
        return with_diverged(std::move(found), methods, skewed, method);
    }

    static Finding keeps_signs(const std::vector<Method>& methods, const std::vector<Cell>& cells,
                               std::size_t method) {
        // What they are compared with is the new global model, the mean of what they send, not the one that they started
        // from, whose signs the term keeps.
        auto found = judged(
            "Clients of " + methods[method].name +
                " agree in more signs with the new global model, the mean of their own, than those of " +
                methods.front().name,
            paper, "the term keeps the signs of the model that clients start from",
            "points of sign consistency", by_seed(all_of(cells), method, signs_of), 3);
        return with_diverged(std::move(found), methods, all_of(cells), method);
    }

    static report::Figure figure(const std::vector<Method>& methods, const std::vector<Cell>& cells,
                                 const std::string& seeds, Pick pick) {
        report::Figure figure{.x = {.label = "Dirichlet α and local epochs"}};
        for (const auto& cell : cells) figure.categories.push_back(cell.name());
        for (std::size_t method = 1; method < methods.size(); ++method) {
            report::Series series{.name = methods[method].name, .style = report::Series::Style::points};
            for (std::size_t cell = 0; cell < cells.size(); ++cell)
                add_point(series, static_cast<double>(cell),
                          known_mean(differences_of(pick(cells[cell])[method], pick(cells[cell]).front())));
            figure.series.push_back(std::move(series));
        }
        figure.caption = "Minus " + methods.front().name +
                         " with the same partition, initial model and batches; mean "
                         "and 95% interval over " +
                         seeds + " seeds, not corrected for looking at many cells.";
        return figure;
    }

    static report::Section section(const std::vector<Method>& methods, const std::vector<Cell>& cells,
                                   const Value& options) {
        const auto seeds = options["seeds"].as_text();
        auto accuracy = figure(methods, cells, seeds, accuracy_of);
        accuracy.name = "accuracy-gain";
        accuracy.title = "Accuracy beside " + methods.front().name;
        accuracy.y.label = "gain in test accuracy (points)";
        auto signs = figure(methods, cells, seeds, signs_of);
        signs.name = "sign-gain";
        signs.title = "Sign consistency of clients and global model beside " + methods.front().name;
        signs.y.label = "gain in sign consistency (points)";
        return {.title = "Gains", .figures = {accuracy, signs}};
    }

    static report::TextTable table(const std::vector<Method>& methods, const std::vector<Cell>& cells) {
        report::TextTable table{
            .name = "cells",
            .title = "All cells",
            .caption = "After the last round, mean over seeds with 95% interval. Gain: beside " +
                       methods.front().name +
                       ", paired by seed; single cells are not corrected "
                       "for their number. Signs: clients with the new global model, mean over "
                       "rounds.",
            .columns = {"α", "epochs", "method", "accuracy (%)", "gain (points)", "p", "signs (%)"},
            .rows = {}};
        for (const auto& cell : cells) {
            for (std::size_t method = 0; method < methods.size(); ++method) {
                const auto gains = differences_of(cell.accuracy[method], cell.accuracy.front());
                table.rows.push_back({core::to_flow(Value::of(cell.alpha)), std::to_string(cell.epochs),
                                      methods[method].name, estimate_text(known_mean(cell.accuracy[method])),
                                      method == 0 ? "" : estimate_text(known_mean(gains)),
                                      method == 0 ? "" : p_text(known_p(gains)),
                                      estimate_text(known_mean(cell.signs[method]))});
            }
        }
        return table;
    }
};

const StudyRegistration sign_alignment_federated_registration{
    {.kind = "study",
     .name = "sign-alignment-federated",
     .help = "FedAvg, FedProx, FedSign and signs elected by the server over Dirichlet α and local epochs",
     .citation = paper,
     .options = {core::numbers("alphas", "of the Dirichlet partition").above(0).at_least_items(1),
                 core::integers("epochs", "local, each with each α").at_least(1).at_least_items(1),
                 core::plugins("objectives", "objective",
                               "terms of the clients' loss; the others are set beside the first")
                     .at_least_items(1),
                 core::objects(
                     "server_signs",
                     {core::choice("mode", {"elect", "attenuate"}, "of the stage sign_alignment"),
                      core::choice("vote", {"majority", "sum", "global"}, "of the stage sign_alignment")},
                     "the stage sign_alignment before the mean"),
                 core::integer("seeds", "federations of each method in each cell").at_least(2)}},
    [](const Value&) { return std::make_unique<SignAlignmentFederated>(); }};

}  // namespace

}  // namespace thalweg::study::sign_alignment_federated
