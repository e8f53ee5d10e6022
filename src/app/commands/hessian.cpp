#include "thalweg/analysis/hessian.hpp"

#include <optional>

#include "../measuring.hpp"
#include "thalweg/core/error.hpp"

namespace thalweg::app {

namespace {

struct HessianArguments {
    MeasuringArguments measuring;
    std::string path;
    std::int64_t top = 5;
    std::int64_t probes = 10;
    bool density = false;
    analysis::LanczosOptions lanczos;
    analysis::DensityOptions density_options;
};

struct Curvature {
    std::optional<analysis::HessianTop> top;
    std::optional<analysis::Trace> trace;
    std::optional<analysis::SpectralDensity> density;
};

Json hessian_json(const Curvature& found, std::int64_t parameters, std::int64_t samples) {
    Json json{{"parameters", parameters}, {"samples", samples}};
    json["eigenvalues"] = json["residuals"] = json["trace"] = json["density"] = nullptr;
    if (found.top) {
        json["eigenvalues"] = found.top->eigenvalues;
        json["residuals"] = found.top->residuals;
        json["smallest"] = found.top->smallest;
        json["steps"] = found.top->steps;
        json["converged"] = found.top->converged;
    }
    if (found.trace) {
        json["trace"] = {{"value", found.trace->trace},
                         {"standard_error", found.trace->standard_error},
                         {"probes", found.trace->probes.size()}};
    }
    if (found.density) {
        json["density"] = {{"grid", found.density->grid},         {"density", found.density->density},
                           {"sigma", found.density->sigma},       {"mean", found.density->mean},
                           {"negative", found.density->negative}, {"smallest", found.density->smallest},
                           {"largest", found.density->largest}};
    }
    return json;
}

/// A line that says so; nothing when they did converge.
std::string unconverged(const analysis::HessianTop& top) {
    if (top.converged) return "";
    return "Not all eigenvalues converged: see their residuals, and give more --steps than " +
           std::to_string(top.steps) + "\n";
}

/// `812.4 ± 10.2 (standard error), 10 probes`
std::string trace_text(const analysis::Trace& trace) {
    std::string text = record::number(trace.trace);
    const std::size_t probes = trace.probes.size();
    text += probes > 1 ? " ± " + record::number(trace.standard_error) + " (standard error)"
                       : std::string(" (standard error unknown)");
    return text + ", " + std::to_string(probes) + (probes == 1 ? " probe" : " probes");
}

std::string hessian_text(const Curvature& found) {
    std::string text;
    if (found.top) {
        record::Table table({"#", "eigenvalue", "residual"});
        for (std::size_t i = 0; i < found.top->eigenvalues.size(); ++i) {
            table.row({std::to_string(i + 1), record::number(found.top->eigenvalues[i]),
                       record::number(found.top->residuals[i])});
        }
        text += table.text();
        text += "lowest Ritz value " + record::number(found.top->smallest) + ", after " +
                std::to_string(found.top->steps) + " products\n" + unconverged(*found.top);
    }
    if (found.trace) {
        text += "trace " + trace_text(*found.trace) + "\n";
    }
    if (found.density) {
        text += "spectrum from " + record::number(found.density->smallest) + " to " +
                record::number(found.density->largest) + ", mean " + record::number(found.density->mean) +
                ", " + record::percent(found.density->negative) + " negative\n";
    }
    return text;
}

report::Document hessian_document(const Curvature& found, const std::string& path, const std::string& on) {
    report::Document document{.kind = "hessian", .title = "Curvature of " + path};
    document.summary = "The Hessian of the mean cross-entropy over " + on + ".";
    report::Section section{.title = "Spectrum"};
    if (found.top) {
        document.facts["largest eigenvalue"] = found.top->eigenvalues.front();
        report::TextTable table{.name = "eigenvalues",
                                .title = "Largest eigenvalues",
                                .caption = "Lanczos, full reorthogonalisation, " +
                                           std::to_string(found.top->steps) + " products.",
                                .columns = {"rank", "eigenvalue (nats per squared unit)", "residual"},
                                .rows = {}};
        for (std::size_t i = 0; i < found.top->eigenvalues.size(); ++i) {
            table.rows.push_back({std::to_string(i + 1), record::number(found.top->eigenvalues[i]),
                                  record::number(found.top->residuals[i])});
        }
        section.tables.push_back(std::move(table));
        if (!found.top->converged) {
            std::string warning = unconverged(*found.top);
            warning.back() = '.';
            document.summary += " " + warning;
        }
    }
    if (found.trace) document.facts["trace"] = trace_text(*found.trace);
    if (found.density) {
        report::Figure figure{.name = "spectral-density", .title = "Spectral density of the Hessian"};
        figure.caption = "Stochastic Lanczos quadrature, " + std::to_string(found.density->nodes.size()) +
                         " probes, Gaussians of σ = " + record::number(found.density->sigma) + "; " + on +
                         ".";
        figure.x = {.label = "eigenvalue (nats per squared unit)"};
        figure.y = {.label = "density", .logarithmic = true, .low = 1e-10};
        figure.series.push_back({.name = "density", .x = found.density->grid, .y = found.density->density});
        section.figures.push_back(std::move(figure));
    }
    document.sections.push_back(std::move(section));
    return document;
}

void hessian(const Context& context, const HessianArguments& arguments) {
    if (arguments.top == 0 && arguments.probes == 0 && !arguments.density)
        throw core::UsageError("nothing to measure: --top 0, --probes 0 and no --density");
    const auto& measuring = arguments.measuring;
    measuring.require_out(context);
    const auto file = measuring.model.load(context, {arguments.path}).front();
    const auto dataset = measuring.model.open(context, file, arguments.path, true);
    const auto samples = core::collectively(context.communicator, [&] { return measuring.draw(*dataset); });
    const std::uint64_t seed = measuring.model.seed;
    Curvature found;
    if (arguments.top > 0) {
        found.top = analysis::top_eigenvalues(file.graph, file.parameters, *samples, arguments.top,
                                              arguments.lanczos, seed, context.communicator);
    }
    if (arguments.probes > 0) {
        found.trace = analysis::hutchinson_trace(file.graph, file.parameters, *samples, arguments.probes,
                                                 seed, context.communicator);
    }
    if (arguments.density) {
        found.density = analysis::spectral_density(file.graph, file.parameters, *samples,
                                                   arguments.density_options, seed, context.communicator);
    }
    measuring.deliver(context, hessian_json(found, file.graph.layout->trainable_size(), samples->size()),
                      hessian_text(found),
                      hessian_document(found, arguments.path, measuring.describe(*dataset, *samples)));
}

}  // namespace

void add_hessian(CLI::App& program, Context& context) {
    auto* command = program.add_subcommand(
        "hessian", "curvature of a model's loss: largest eigenvalues, trace, spectral density");
    auto arguments = std::make_shared<HessianArguments>();
    command->add_option("MODEL", arguments->path, "model file")->required();
    command->add_option("--top", arguments->top, "largest eigenvalues (Lanczos); 0: none")
        ->capture_default_str()
        ->check(CLI::NonNegativeNumber);
    command
        ->add_option("--steps", arguments->lanczos.steps,
                     "products at most for them (default: 4 a value + 60)")
        ->check(CLI::PositiveNumber);
    command
        ->add_option("--probes", arguments->probes, "random probes for the trace (Hutchinson); 0: no trace")
        ->capture_default_str()
        ->check(CLI::NonNegativeNumber);
    command->add_flag("--density", arguments->density, "spectral density (stochastic Lanczos quadrature)");
    command->add_option("--density-probes", arguments->density_options.probes, "random starts for it")
        ->capture_default_str()
        ->check(CLI::PositiveNumber);
    command->add_option("--density-steps", arguments->density_options.steps, "Lanczos steps from each")
        ->capture_default_str()
        ->check(CLI::PositiveNumber);
    arguments->measuring.add_to(*command);
    command->footer("Example:\n  thalweg hessian a.pt --top 3 --density --samples 2000 --out curvature");
    command->callback(
        [&context, arguments] { context.action = [&context, arguments] { hessian(context, *arguments); }; });
}

}  // namespace thalweg::app
