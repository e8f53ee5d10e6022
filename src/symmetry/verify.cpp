#include <torch/types.h>

#include <algorithm>
#include <iterator>
#include <limits>
#include <sstream>

#include "thalweg/core/error.hpp"
#include "thalweg/core/interrupt.hpp"
#include "thalweg/model/interpreter.hpp"
#include "thalweg/symmetry/gauge.hpp"
#include "thalweg/symmetry/symmetry.hpp"

namespace thalweg::symmetry {

namespace {

/// A change of the function that rounding cannot make.
constexpr double seen = 1e-6;

/// The symbols a model that reads its input by embeddings knows; 0: it reads numbers.
std::int64_t symbols_of(const model::ModelGraph& graph) {
    std::int64_t symbols = 0;
    for (const auto& operation : graph.operations) {
        const auto* embedding = std::get_if<model::Embedding>(&operation.kind);
        if (embedding == nullptr || operation.inputs.front() != 0) continue;
        const auto rows = graph.layout->entries()[static_cast<std::size_t>(embedding->weight)].shape.front();
        symbols = symbols == 0 ? rows : std::min(symbols, rows);
    }
    return symbols;
}

/// A random model on random inputs, and how far others are from its function.
class Function {
  public:
    Function(const model::ModelGraph& graph, core::Random& random)
        : parameters(random_parameters(graph, random)),
          graph_(graph),
          inputs_(random_inputs(graph, 3, random)) {
        expected_ = output(parameters);
        const auto is_finite = [&] { return expected_.isfinite().all().item<bool>(); };
        // An imported model may compute only with numbers like its own.
        if (!is_finite() && graph.start) {
            parameters = graph.start->to_double();
            expected_ = output(parameters);
        }
        if (!is_finite()) {
            throw core::RunError(
                "the symmetries of this model cannot be proved, because its outputs are not finite on random "
                "parameters; without a proof no models are aligned");
        }
        scale_ = std::max(1.0, expected_.abs().max().item<double>());
    }

    model::Parameters parameters;

    /// NaN must not pass for small.
    double change(const model::Parameters& other) const {
        core::check_interrupt();
        const double error = (output(other) - expected_).abs().max().item<double>() / scale_;
        return error >= 0 ? error : std::numeric_limits<double>::infinity();
    }

  private:
    at::Tensor output(const model::Parameters& of) const {
        return model::forward(graph_, model::views(of), inputs_, model::Mode::evaluate);
    }
    const model::ModelGraph& graph_;
    at::Tensor inputs_, expected_;
    double scale_;
};

std::int64_t moved(const model::Parameters& a, const model::Parameters& b) {
    return (a.values != b.values).sum().item<std::int64_t>();
}

Permutations only(const Symmetries& symmetries, const Permutations& permutations, std::size_t group) {
    Permutations result = identity(symmetries);
    const int bond = symmetries.groups[group].bond;
    for (std::size_t g = 0; g < result.size(); ++g) {
        if (g == group || (bond >= 0 && symmetries.groups[g].bond == bond)) result[g] = permutations[g];
    }
    return result;
}

std::vector<double> only(const Gauge::Group& group, const std::vector<double>& factors) {
    std::vector<double> result(factors.size(), 1);
    const auto first = factors.begin() + group.first;
    std::copy(first, first + group.size, result.begin() + group.first);
    return result;
}

/// Forgets one tensor of the group, the first (which makes its channels) or the last (which may read them); false where
/// there is but one.
bool forget(Symmetries& symmetries, std::size_t group, bool last) {
    auto& uses = symmetries.groups[group].uses;
    if (uses.size() < 2) return false;
    uses.erase(last ? std::prev(uses.end()) : uses.begin());
    return true;
}

bool forget(Gauge& gauge, std::size_t group, bool last) {
    const std::int64_t first = gauge.groups[group].first, end = first + gauge.groups[group].size;
    std::vector<std::size_t> touching;
    for (std::size_t m = 0; m < gauge.marks.size(); ++m) {
        const at::Tensor& channel = gauge.marks[m].channel;
        if (channel.ge(first).logical_and(channel.lt(end)).any().item<bool>()) touching.push_back(m);
    }
    if (touching.size() < 2) return false;
    const auto forgotten = last ? touching.back() : touching.front();
    gauge.marks.erase(gauge.marks.begin() + static_cast<std::ptrdiff_t>(forgotten));
    return true;
}

/// `draw()`: an element; `applied(θ, symmetries, element)`; `one(element, group)`: the element in this group only.
template <class S, class Draw, class Applied, class One>
Proof prove(const model::ModelGraph& graph, const S& symmetries, core::Random& random, int draws, Draw draw,
            Applied applied, One one) {
    const at::NoGradGuard no_grad;
    Proof proof;
    std::vector<double> control(symmetries.groups.size(), -1);
    for (; proof.draws < draws; ++proof.draws) {
        const Function function(graph, random);
        const auto all = draw();
        const auto image = applied(function.parameters, symmetries, all);
        proof.max_error = std::max(proof.max_error, function.change(image));
        const auto elements = moved(image, function.parameters);
        proof.elements = proof.draws == 0 ? elements : std::min(proof.elements, elements);
        for (std::size_t g = 0; g < symmetries.groups.size(); ++g) {
            const auto element = one(all, g);
            proof.max_error =
                std::max(proof.max_error, function.change(applied(function.parameters, symmetries, element)));
            for (const bool last : {false, true}) {
                if (control[g] > seen) break;
                S wrong = symmetries;
                if (!forget(wrong, g, last)) continue;
                control[g] =
                    std::max(control[g], function.change(applied(function.parameters, wrong, element)));
            }
        }
    }
    std::erase(control, -1);
    if (!control.empty()) proof.control = *std::min_element(control.begin(), control.end());
    return proof;
}

}  // namespace

model::Parameters random_parameters(const model::ModelGraph& graph, core::Random& random) {
    model::Parameters parameters = model::initialise(graph, random).to_double();
    const auto& entries = graph.layout->entries();
    for (std::size_t i = 0; i < entries.size(); ++i) {
        const auto role = entries[i].role;
        const bool is_weight = role == model::Role::weight || role == model::Role::embedding;
        auto* data = parameters.values.data_ptr<double>() + entries[i].offset;
        // A weight that starts at a constant, such as a residual branch's last at zero, hides what is before it.
        const bool is_constant =
            std::all_of(data, data + entries[i].size, [&](double x) { return x == *data; });
        if (is_weight && !is_constant) continue;
        const bool positive = role == model::Role::norm_scale || role == model::Role::running_var;
        std::generate(data, data + entries[i].size,
                      [&] { return positive ? random.uniform(0.5, 1.5) : random.uniform(-0.3, 0.3); });
    }
    return parameters;
}

at::Tensor random_inputs(const model::ModelGraph& graph, std::int64_t count, core::Random& random) {
    std::vector<std::int64_t> shape = graph.input_shape();
    shape.insert(shape.begin(), count);
    at::Tensor inputs = at::empty(shape, at::kDouble);
    auto* data = inputs.data_ptr<double>();
    const std::int64_t symbols = symbols_of(graph);
    std::generate(data, data + inputs.numel(),
                  [&] { return symbols > 0 ? static_cast<double>(random.below(symbols)) : random.normal(); });
    return inputs;
}

Proof verify(const model::ModelGraph& graph, const Symmetries& symmetries, core::Random& random, int draws) {
    return prove(
        graph, symmetries, random, draws, [&] { return random_permutations(symmetries, random); }, permute,
        [&](const Permutations& all, std::size_t group) { return only(symmetries, all, group); });
}

void require_proof(const model::ModelGraph& graph, const Symmetries& symmetries) {
    if (symmetries.groups.empty()) return;
    const at::NoGradGuard no_grad;
    core::Random random(0, "symmetry proof");
    const Function function(graph, random);
    const auto image = permute(function.parameters, symmetries, random_permutations(symmetries, random));
    const double error = function.change(image);
    if (error < rounding) return;
    std::ostringstream text;
    text << "a permutation read off this model's graph changes its function, by " << error
         << " of its outputs: models aligned by it would be wrong. This is a mistake of the program; please "
            "report it "
            "with what `thalweg symmetry --verify` says. Pipelines without a permutation work all the same.";
    throw core::RunError(text.str());
}

Proof verify(const model::ModelGraph& graph, const Gauge& gauge, core::Random& random, int draws) {
    return prove(
        graph, gauge, random, draws, [&] { return random_factors(gauge, random); }, multiply,
        [&](const std::vector<double>& all, std::size_t group) { return only(gauge.groups[group], all); });
}

}  // namespace thalweg::symmetry
