#include <torch/types.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "architectures.hpp"
#include "common.hpp"
#include "estimates.hpp"
#include "rows.hpp"
#include "thalweg/analysis/valley.hpp"
#include "thalweg/embedded/studies.hpp"
#include "units.hpp"

namespace thalweg::study::valley_symmetry {

namespace {

using core::Value;

constexpr double none = std::numeric_limits<double>::quiet_NaN();
constexpr double flatter = 5;  ///< points of error between the sides, as the statement is put
constexpr const char* paper = "Li et al., NeurIPS 2024 (arXiv 2405.12489)";

/// Models of one architecture whose batch norms start one way; they differ in their seeds alone.
struct Variant {
    std::string name, architecture, initialisation;
    std::shared_ptr<const Laboratory> laboratory;
    std::vector<std::string> models;
    std::vector<double> accuracy;
    std::vector<std::vector<double>>
        by_ratio;  ///< [model][ratio]: asymmetry in points; NaN: training diverged
    std::vector<std::vector<double>>
        error;  ///< [ratio][λ]: mean over models, in percent; empty: all diverged
    std::vector<std::vector<double>> by_noise;   ///< [model][noise]
    std::vector<std::vector<double>> agreement;  ///< [model][noise]: of signs with the model's, in percent
};

std::vector<double> slopes(const std::vector<double>& x, const std::vector<std::vector<double>>& rows) {
    std::vector<double> numbers;
    for (const auto& row : rows) numbers.push_back(slope(x, row));
    return numbers;
}

/// The initial model of a seed, its batch norms' scales drawn anew.
model::Parameters started(const Laboratory& laboratory, const std::string& initialisation,
                          std::uint64_t seed) {
    auto start = federation::initial_model(laboratory.graph(), seed, -1);
    if (initialisation == "ones") return start;
    core::Random random(seed, "norm scales");
    const auto& entries = start.layout->entries();
    for (const auto& entry : entries) {
        if (entry.role != model::Role::norm_scale) continue;
        float* const scales = start.data() + entry.offset;
        for (std::int64_t i = 0; i < entry.size; ++i)
            scales[i] =
                static_cast<float>(initialisation == "uniform" ? random.uniform() : random.uniform(-1, 1));
    }
    return start;
}

bool has_norm_scales(const Laboratory& laboratory) {
    for (const auto& entry : laboratory.graph().layout->entries()) {
        if (entry.role == model::Role::norm_scale) return true;
    }
    return false;
}

/// The share of entries that are zero in neither whose signs agree, in percent.
double sign_agreement(const at::Tensor& noise, const model::Parameters& parameters) {
    const at::Tensor products =
        noise.narrow(0, 0, parameters.layout->trainable_size()).sign() * parameters.trainable().sign();
    const auto agree = (products > 0).sum().item<std::int64_t>();
    const auto counted = (products != 0).sum().item<std::int64_t>();
    return counted > 0 ? 100 * static_cast<double>(agree) / static_cast<double>(counted) : none;
}

class ValleySymmetry final : public Study {
  public:
    std::string_view configuration() const override { return embedded::studies::valley_symmetry_yaml; }

    Result conduct(const Value& options, Workbench& bench) const override {
        static const std::array<const char*, 3> known{"ones", "uniform", "symmetric"};
        for (const auto& item : options["batch_norm_initialisations"].items()) {
            if (std::find(known.begin(), known.end(), item.as_text()) == known.end())
                item.reject("'" + item.as_text() + "' is none of ones, uniform, symmetric");
        }
        auto variants = train(options, bench);
        for (auto& variant : variants) {
            sweep_ratios(variant, options, bench);
            sweep_noises(variant, options, bench);
        }
        Result result;
        for (const auto& variant : variants) {
            result.findings.push_back(rises(variant, options));
            result.findings.push_back(sides(variant, options));
            result.findings.push_back(noises_agree(variant, options));
        }
        compare_initialisations(variants, options, result);
        result.summary =
            "Along noise whose signs are set against a share of a model's own and with the rest, the error "
            "rises more steeply on one side: asymmetry over the share of agreeing signs in " +
            variants.front().name + ": " + result.findings[0].ours + ".";
        result.sections = {ratio_section(variants, options), noise_section(variants, options)};
        return result;
    }

  private:
    static std::vector<Variant> train(const Value& options, Workbench& bench) {
        std::vector<Variant> variants;
        std::vector<Training> trainings;
        const auto seed = static_cast<std::uint64_t>(options["seed"].as_int());
        for (const auto& architecture : open_architectures(options, bench)) {
            const bool norms = has_norm_scales(*architecture.laboratory);
            for (const auto& item : options["batch_norm_initialisations"].items()) {
                const auto initialisation = item.as_text();
                Variant variant{.name = architecture.name + (norms ? "-" + initialisation : ""),
                                .architecture = architecture.name,
                                .initialisation = norms ? initialisation : "",
                                .laboratory = architecture.laboratory};
                for (std::int64_t i = 0; i < options["models"].as_int(); ++i) {
                    const auto own = seed * 1000 + static_cast<std::uint64_t>(i);
                    variant.models.push_back(variant.name + "-m" + std::to_string(i));
                    auto laboratory = architecture.laboratory;
                    if (norms) {
                        auto changed = std::make_shared<Laboratory>(*laboratory);
                        changed->setting.graph.start =
                            std::make_shared<model::Parameters>(started(*laboratory, initialisation, own));
                        laboratory = changed;
                    }
                    trainings.push_back({.label = variant.models.back(),
                                         .laboratory = laboratory,
                                         .seed = own,
                                         .initialisation = own});
                }
                variants.push_back(std::move(variant));
                if (!norms) break;
            }
        }
        const auto accuracy = numbers_in(bench.train(trainings), "accuracy");
        std::size_t next = 0;
        for (auto& variant : variants) {
            for (std::size_t i = 0; i < variant.models.size(); ++i)
                variant.accuracy.push_back(accuracy[next++]);
        }
        return variants;
    }

    static analysis::ValleyOptions valley_options(const Value& options) {
        return {.scale = options["scale"].as_number(),
                .points = options["points"].as_int(),
                .repeats = options["repeats"].as_int(),
                .reset_batch_norm = options["reset_batch_norm"].as_bool()};
    }

    static analysis::Valley measure(const Variant& variant, const model::Parameters& parameters,
                                    const analysis::ValleyOptions& how, std::uint64_t seed,
                                    Workbench& bench) {
        const Laboratory& lab = *variant.laboratory;
        return analysis::valley(lab.graph(), parameters, *lab.test, how, seed, lab.calibration,
                                bench.alone());
    }

    static void sweep_ratios(Variant& variant, const Value& options, Workbench& bench) {
        const auto seed = static_cast<std::uint64_t>(options["seed"].as_int());
        const auto results = bench.run("ratios", variant.models, [&](std::size_t i) {
            if (!bench.has_model(variant.models[i])) return Json{{"asymmetry", nullptr}, {"error", nullptr}};
            const auto parameters = bench.model(variant.models[i]);
            Json row = {{"asymmetry", Json::array()}, {"error", Json::array()}};
            for (const auto& ratio : options["ratios"].items()) {
                auto how = valley_options(options);
                how.sign_ratio = ratio.as_number();
                const auto valley = measure(variant, parameters, how, seed * 1000 + i, bench);
                row["asymmetry"].push_back(100 * valley.asymmetry);
                Json error = Json::array();
                for (const double accuracy : valley.accuracy) error.push_back(100 * (1 - accuracy));
                row["error"].push_back(error);
            }
            return row;
        });
        std::size_t known = 0;
        for (const auto& row : results) {
            variant.by_ratio.push_back(row_in(row, "asymmetry", options["ratios"].items().size()));
            if (row["error"].is_null()) continue;
            ++known;
            const auto error = row["error"].get<std::vector<std::vector<double>>>();
            if (variant.error.empty())
                variant.error.assign(error.size(), std::vector<double>(error[0].size()));
            for (std::size_t r = 0; r < error.size(); ++r) {
                for (std::size_t p = 0; p < error[r].size(); ++p) variant.error[r][p] += error[r][p];
            }
        }
        for (auto& curve : variant.error) {
            for (double& error : curve) error /= static_cast<double>(known);
        }
    }

    static void sweep_noises(Variant& variant, const Value& options, Workbench& bench) {
        const auto seed = static_cast<std::uint64_t>(options["seed"].as_int());
        const auto results = bench.run("noises", variant.models, [&](std::size_t i) {
            if (!bench.has_model(variant.models[i]))
                return Json{{"asymmetry", nullptr}, {"agreement", nullptr}};
            const auto parameters = bench.model(variant.models[i]);
            Json row = {{"asymmetry", Json::array()}, {"agreement", Json::array()}};
            for (const auto& noise : options["noises"].items()) {
                auto how = valley_options(options);
                how.noise = noise;
                // Nothing is drawn: every repeat would be the same.
                if (noise["kind"].as_text() == "parameters" || noise["kind"].as_text() == "sign")
                    how.repeats = 1;
                const auto own = seed * 1000 + i;
                row["asymmetry"].push_back(100 * measure(variant, parameters, how, own, bench).asymmetry);
                std::vector<double> agreement;
                for (std::int64_t repeat = 0; repeat < how.repeats; ++repeat)
                    agreement.push_back(sign_agreement(
                        analysis::valley_direction(variant.laboratory->graph(), parameters, how, own, repeat),
                        parameters));
                row["agreement"].push_back(mean_of(agreement).value);
            }
            return row;
        });
        for (const auto& row : results) {
            const auto kinds = options["noises"].items().size();
            variant.by_noise.push_back(row_in(row, "asymmetry", kinds));
            variant.agreement.push_back(row_in(row, "agreement", kinds));
        }
    }

    static std::vector<double> ratios(const Value& options) {
        std::vector<double> numbers;
        for (const auto& ratio : options["ratios"].items()) numbers.push_back(ratio.as_number());
        return numbers;
    }

    static Finding rises(const Variant& variant, const Value& options) {
        const auto units = slopes(ratios(options), variant.by_ratio);
        const auto estimate = known_mean(units);
        const double p = known_p(units);
        return {
            .claim = variant.name +
                     ": the more signs the noise shares with the model, the flatter the side of λ > 0 (error "
                     "at λ < 0 minus error at λ > 0 rises with r)",
            .source = paper,
            .published = "rises with r",
            .ours = estimate_text(estimate, 1) + " points from r = 0 to r = 1, " + p_text(p, estimate.count),
            .seen = seen_by(p, estimate.value),
            .numbers = json_of(estimate, p)};
    }

    /// At r = 0 one side is flatter, at r = 1 the other one: settled when the intervals exclude 5 points.
    static Finding sides(const Variant& variant, const Value& options) {
        const auto at = ratios(options);
        const auto estimate_at = [&](double ratio) {
            for (std::size_t i = 0; i < at.size(); ++i) {
                if (at[i] == ratio) return known_mean(column(variant.by_ratio, i));
            }
            return Estimate{none, none, none, 0};
        };
        const auto against = estimate_at(0), with = estimate_at(1);
        const bool yes = against.high < -flatter && with.low > flatter;
        const bool no = against.low > -flatter || with.high < flatter;
        return {.claim = variant.name +
                         ": at r = 0 the side of λ < 0 is flatter by more than 5 points, at r = 1 "
                         "the side of λ > 0",
                .source = paper,
                .published = "r = 0: λ < 0 flatter; r = 1: λ > 0 flatter",
                .ours = "r = 0: " + estimate_text(against, 1) + ", r = 1: " + estimate_text(with, 1) +
                        " points, λ < 0 minus λ > 0",
                .seen = yes  ? Finding::Seen::yes
                        : no ? Finding::Seen::no
                             : Finding::Seen::unsettled,
                .numbers = {{"against", json_of(against, none)}, {"with", json_of(with, none)}}};
    }

    /// Where the kind stands in the study's list; its length where it does not.
    static std::size_t place_of(const std::string& kind, const Value& options) {
        const auto& noises = options["noises"].items();
        std::size_t place = 0;
        while (place < noises.size() && noises[place]["kind"].as_text() != kind) ++place;
        return place;
    }

    /// The model's signs against kinds of noise whose signs know nothing of it. Not of these: the model itself, which is the
    /// zero net at λ = −1 whatever its signs do, and fresh initialisations, which have another shape (scales of 1).
    static Finding noises_agree(const Variant& variant, const Value& options) {
        const auto& noises = options["noises"].items();
        const auto signs = place_of("sign", options), fresh = place_of("initialisation", options);
        std::vector<double> with, without, units, agreement;
        for (std::size_t i = 0; i < variant.models.size(); ++i) {
            std::vector<double> independent, agreeing;
            for (std::size_t n = 0; n < noises.size(); ++n) {
                const auto kind = noises[n]["kind"].as_text();
                if (kind == "sign" || kind == "initialisation" || kind == "parameters") continue;
                independent.push_back(variant.by_noise[i][n]);
                agreeing.push_back(variant.agreement[i][n]);
            }
            with.push_back(signs < noises.size() ? variant.by_noise[i][signs] : none);
            without.push_back(mean_of(independent).value);
            agreement.push_back(mean_of(agreeing).value);
        }
        units = differences_of(with, without);
        const auto estimate = known_mean(units);
        const double p = known_p(units);
        Finding finding{
            .claim = variant.name +
                     ": noise with the model's signs has the more asymmetric valley, beside kinds of noise "
                     "whose signs are independent of it",
            .source = paper,
            .published = "sign consistency of noise and model decides",
            .ours = fixed(known_mean(with).value, 1) + " points against " +
                    fixed(known_mean(without).value, 1) + " with " + fixed(known_mean(agreement).value, 0) +
                    "% of the signs: " + estimate_text(estimate, 1) + " more, " + p_text(p, estimate.count),
            .seen = seen_by(p, estimate.value),
            .numbers = json_of(estimate, p)};
        if (fresh < noises.size()) add_counter_example(variant, fresh, finding);
        return finding;
    }

    /// Fresh initialisations, which agree in no more signs than other independent noise: are they asymmetric all the same?
    static void add_counter_example(const Variant& variant, std::size_t fresh, Finding& finding) {
        const auto asymmetry = known_mean(column(variant.by_noise, fresh));
        const auto agreement = known_mean(column(variant.agreement, fresh));
        finding.ours += "; fresh initialisations agree in " + fixed(agreement.value, 0) + "%, " +
                        estimate_text(asymmetry, 1) + " points";
        // By the threshold of the statement on the two sides.
        const bool asymmetric = asymmetry.low > flatter || asymmetry.high < -flatter;
        if (asymmetric && std::abs(agreement.value - 50) < 5)
            finding.ours +=
                ": asymmetric though half of the signs agree, so that signs are not all that decides";
        finding.numbers["initialisation"] = json_of(asymmetry);
        finding.numbers["initialisation_agreement"] = agreement.value;
    }

    /// A fresh initialisation as noise has scales of 1: it agrees with trained scales that started above zero, and with half
    /// of those that started about zero.
    static void compare_initialisations(const std::vector<Variant>& variants, const Value& options,
                                        Result& result) {
        const auto fresh = place_of("initialisation", options);
        if (fresh == options["noises"].items().size()) return;
        for (const auto& a : variants) {
            if (a.initialisation != "ones") continue;
            for (const auto& b : variants) {
                if (b.architecture != a.architecture || b.initialisation != "symmetric") continue;
                const auto units = differences_of(column(a.by_noise, fresh), column(b.by_noise, fresh));
                const auto estimate = known_mean(units);
                const double p = known_p(units);
                result.findings.push_back(
                    {.claim =
                         a.architecture +
                         ": batch-norm scales that start at 1 make the valley more asymmetric along fresh "
                         "initialisations than scales that start symmetrically about 0",
                     .source = paper,
                     .published = "batch norm's initialisation matters to symmetry",
                     .ours = "asymmetry " + estimate_text(estimate, 1) + " points more, " +
                             p_text(p, estimate.count),
                     .seen = seen_by(p, estimate.value),
                     .numbers = json_of(estimate, p)});
            }
        }
    }

    /// `8`; `7 to 8` where trainings diverged.
    static std::string model_count(const std::vector<Variant>& variants) {
        std::size_t least = variants.front().models.size(), most = 0;
        for (const auto& variant : variants) {
            least = std::min(least, known_of(variant.accuracy).size());
            most = std::max(most, known_of(variant.accuracy).size());
        }
        return least == most ? std::to_string(most) : std::to_string(least) + " to " + std::to_string(most);
    }

    static report::Section ratio_section(const std::vector<Variant>& variants, const Value& options) {
        const auto at = ratios(options);
        report::Figure rising{
            .name = "asymmetry-by-ratio",
            .title = "Asymmetry and the share of agreeing signs",
            .caption =
                "Mean error at λ < 0 minus mean error at λ > 0 on test samples, along noise that has "
                "the model's signs on a share r of the parameters and the opposite ones elsewhere. "
                "Mean over models; band: 95% interval over " +
                model_count(variants) + " models.",
            .x = {.label = "r: parameters whose sign the noise shares (%)"},
            .y = {.label = "asymmetry (points of error)"}};
        report::TextTable table{.name = "ratios",
                                .title = "Asymmetry by share of agreeing signs",
                                .caption =
                                    "Points of error, λ < 0 minus λ > 0; mean over models with 95% "
                                    "interval. The slope is per model from r = 0 to r = 1.",
                                .columns = {"models", "accuracy (%)", "slope", "p"},
                                .rows = {}};
        for (const double ratio : at) table.columns.emplace_back("r = " + fixed(ratio, 2));
        for (const auto& variant : variants) {
            const auto units = slopes(at, variant.by_ratio);
            table.rows.push_back({variant.name, fixed(100 * known_mean(variant.accuracy).value, 2),
                                  estimate_text(known_mean(units), 1), p_text(known_p(units))});
            report::Series series{.name = variant.name};
            for (std::size_t i = 0; i < at.size(); ++i) {
                const auto estimate = known_mean(column(variant.by_ratio, i));
                table.rows.back().push_back(estimate_text(estimate, 1));
                add_point(series, 100 * at[i], estimate);
            }
            rising.series.push_back(std::move(series));
        }
        report::Section section{.title = "Signs of the noise", .figures = {rising}, .tables = {table}};
        for (const auto& variant : variants) {
            if (!variant.error.empty()) section.figures.push_back(valley_figure(variant, at));
        }
        return section;
    }

    static report::Figure valley_figure(const Variant& variant, const std::vector<double>& at) {
        report::Figure figure{.name = "valley-" + variant.name,
                              .title = "Valleys of " + variant.name,
                              .caption =
                                  "Test error at θ + λε, ε as long as θ times the study's scale; mean "
                                  "over " +
                                  std::to_string(known_of(variant.accuracy).size()) +
                                  " models and all repeats.",
                              .x = {.label = "λ (lengths of the noise)"},
                              .y = {.label = "test error (%)"}};
        for (std::size_t r = 0; r < at.size(); ++r) {
            report::Series series{.name = "r = " + fixed(at[r], 2), .y = variant.error[r]};
            const auto points = variant.error[r].size();
            for (std::size_t p = 0; p < points; ++p)
                series.x.push_back(2 * static_cast<double>(p) / static_cast<double>(points - 1) - 1);
            figure.series.push_back(std::move(series));
        }
        return figure;
    }

    static report::Section noise_section(const std::vector<Variant>& variants, const Value& options) {
        report::Figure map{
            .name = "asymmetry-by-noise",
            .title = "Asymmetry by kind of noise",
            .caption = "Mean error at λ < 0 minus mean error at λ > 0 on test samples; mean over " +
                       model_count(variants) + " models.",
            .x = {.label = "noise"},
            .y = {.label = "models"},
            .grid = report::Grid{.values = {}, .label = "asymmetry (points of error)"}};
        report::TextTable table{.name = "noises",
                                .title = "Asymmetry by kind of noise",
                                .caption =
                                    "Points of error, λ < 0 minus λ > 0; mean over models with 95% "
                                    "interval. In brackets: signs that agree with the model's.",
                                .columns = {"models"},
                                .rows = {}};
        for (const auto& noise : options["noises"].items()) {
            map.grid->column_names.push_back(noise["kind"].as_text());
            table.columns.push_back(noise["kind"].as_text());
        }
        for (const auto& variant : variants) {
            map.grid->row_names.push_back(variant.name);
            map.grid->values.emplace_back();
            table.rows.emplace_back(1, variant.name);
            for (std::size_t n = 0; n < map.grid->column_names.size(); ++n) {
                const auto estimate = known_mean(column(variant.by_noise, n));
                map.grid->values.back().push_back(estimate.value);
                table.rows.back().push_back(estimate_text(estimate, 1) + " (" +
                                            fixed(known_mean(column(variant.agreement, n)).value, 0) + "%)");
            }
        }
        return {.title = "Kinds of noise", .figures = {map}, .tables = {table}};
    }
};

const StudyRegistration valley_symmetry_registration{
    {.kind = "study",
     .name = "valley-symmetry",
     .help = "is the error's rise on the two sides of a model a matter of the noise's signs?",
     .citation = paper,
     .options =
         {architectures_option("what is trained"),
          core::integer("models", "of each architecture").at_least(2),
          core::texts("batch_norm_initialisations",
                      "ones: scales start at 1; uniform: in [0, 1); symmetric: uniform in [-1, 1)")
              .at_least_items(1),
          core::numbers("ratios", "shares r of entries whose sign the noise has")
              .at_least(0)
              .at_most(1)
              .at_least_items(1),
          core::plugins("noises", "noise", "kinds of noise, their signs not controlled").at_least_items(1),
          core::number("scale", "length of the noise ÷ length of the model's parameters").above(0),
          core::integer("points", "of λ from −1 to 1").at_least(3),
          core::integer("repeats", "directions drawn for a model").at_least(1),
          core::boolean("reset_batch_norm", "running statistics taken anew at every point")}},
    [](const Value&) { return std::make_unique<ValleySymmetry>(); }};

}  // namespace

}  // namespace thalweg::study::valley_symmetry
