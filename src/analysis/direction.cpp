#include <torch/types.h>

#include <algorithm>
#include <cmath>
#include <iterator>
#include <set>
#include <string>
#include <variant>

#include "modules.hpp"
#include "thalweg/core/error.hpp"
#include "thalweg/core/schema.hpp"
#include "thalweg/core/text.hpp"
#include "valley_support.hpp"

namespace thalweg::analysis {

namespace {

/// Entries of the part, buffers too; empty when it names nothing.
std::set<std::size_t> part_entries(const model::ModelGraph& graph, const std::string& part) {
    const auto& entries = graph.layout->entries();
    std::set<std::size_t> classifier, chosen;
    const auto affine = graph.affine_operations();
    if (!affine.empty()) {
        const auto last = entries_of(graph.operations[affine.back()]);
        classifier = {last.begin(), last.end()};
    }
    if (part == "classifier") return classifier;
    if (part == "batch_norm") {
        for (const auto& operation : graph.operations) {
            if (!std::holds_alternative<model::BatchNorm>(operation.kind)) continue;
            const auto named = entries_of(operation);
            chosen.insert(named.begin(), named.end());
        }
        return chosen;
    }
    for (std::size_t e = 0; e < entries.size(); ++e) {
        const bool in_part = part == "all" || (part == "features" && !classifier.contains(e)) ||
                             entries[e].name == part || entries[e].name.starts_with(part + ".");
        if (in_part) chosen.insert(e);
    }
    return chosen;
}

std::vector<std::int64_t> trainable_places(const model::ModelGraph& graph, const std::string& part) {
    std::vector<std::int64_t> places;
    for (const std::size_t e : part_entries(graph, part)) {
        const auto& entry = graph.layout->entries()[e];
        for (std::int64_t i = 0; entry.trainable && i < entry.size; ++i) places.push_back(entry.offset + i);
    }
    return places;
}

[[noreturn]] void refuse_part(const model::ModelGraph& graph, const std::string& part) {
    const std::vector<std::string> kinds{"all", "classifier", "features", "batch_norm"};
    std::vector<std::string> names = kinds, valid;
    for (const Module& module : modules(graph)) names.push_back(module.name);
    std::copy_if(names.begin(), names.end(), std::back_inserter(valid),
                 [&](const std::string& name) { return !trainable_places(graph, name).empty(); });
    const bool known =
        std::find(kinds.begin(), kinds.end(), part) != kinds.end() || !part_entries(graph, part).empty();
    if (known) {
        throw core::UsageError("The part '" + part +
                               "' of this model holds no trainable entries. Its parts are: " +
                               core::join(valid) + " (or a tensor's name).");
    }
    throw core::UsageError(core::unknown_name("part of the model", part, valid) +
                           " (or a tensor's name). It must hold trainable entries.");
}

/// Where filter number i of an entry starts, and how long each is.
struct Filters {
    std::int64_t count, length;
};

Filters filters_of(const model::Entry& entry) {
    const std::int64_t count = std::max<std::int64_t>(1, entry.shape.front());
    return {count, entry.size / count};
}

double norm(const double* values, std::int64_t count) {
    double squares = 0;
    for (std::int64_t i = 0; i < count; ++i) squares += values[i] * values[i];
    return std::sqrt(squares);
}

[[noreturn]] void refuse_zero(const ValleyOptions& options) {
    throw core::RunError("The valley's direction is zero: the part '" + options.part +
                         "' of the model, or the noise on it, holds nothing but zeros, and noise is scaled "
                         "to the length of the parameters; choose another part or noise.");
}

/// |ε|·sign θ on exactly the share r of the places, the opposite on the others.
void control_signs(std::vector<double>& noise, const double* theta, const std::vector<std::int64_t>& places,
                   double ratio, core::Random& random) {
    const auto all = static_cast<std::int64_t>(places.size());
    const auto with = std::llround(ratio * static_cast<double>(all));
    std::vector<double> sign(places.size(), -1.0);
    for (const std::int64_t place : random.sample(all, with)) sign[static_cast<std::size_t>(place)] = 1;
    for (std::size_t i = 0; i < places.size(); ++i) {
        if (theta[places[i]] < 0) sign[i] = -sign[i];
        noise[i] = sign[i] * std::abs(noise[i]);
    }
}

void scale_filters(const model::ModelGraph& graph, double* noise, const double* theta, double scale) {
    for (const auto& entry : graph.layout->entries()) {
        if (!entry.trainable || entry.shape.size() < 2) continue;
        const auto [count, length] = filters_of(entry);
        for (std::int64_t first = entry.offset; first < entry.offset + count * length; first += length) {
            const double now = norm(noise + first, length);
            const double factor = now > 0 ? scale * norm(theta + first, length) / now : 0;
            for (std::int64_t i = 0; i < length; ++i) noise[first + i] *= factor;
        }
    }
}

}  // namespace

std::vector<std::int64_t> part_places(const model::ModelGraph& graph, const std::string& part) {
    auto places = trainable_places(graph, part);
    if (places.empty()) refuse_part(graph, part);
    return places;
}

std::vector<std::int64_t> noisy_places(const model::ModelGraph& graph, const ValleyOptions& options) {
    if (options.norm != "global" && options.norm != "filter")
        throw core::UsageError(core::unknown_name("norm", options.norm, {"global", "filter"}));
    if (!(options.scale > 0) || !std::isfinite(options.scale))
        throw core::UsageError("The scale of a valley's noise is a number above 0.");
    if (options.sign_ratio && !(*options.sign_ratio >= 0 && *options.sign_ratio <= 1))
        throw core::UsageError("The sign ratio is a share, from 0 to 1.");
    auto places = part_places(graph, options.part);
    if (options.norm == "global") return places;
    std::vector<bool> has_filters(static_cast<std::size_t>(graph.layout->trainable_size()), false);
    for (const auto& entry : graph.layout->entries()) {
        if (!entry.trainable || entry.shape.size() < 2) continue;
        std::fill_n(has_filters.begin() + entry.offset, entry.size, true);
    }
    std::erase_if(places, [&](std::int64_t place) { return !has_filters[static_cast<std::size_t>(place)]; });
    if (places.empty()) {
        throw core::UsageError("The part '" + options.part +
                               "' has no filters (entries of more than one axis), so that filter-normalised "
                               "noise leaves it as it is; use the norm global.");
    }
    return places;
}

at::Tensor valley_direction(const model::ModelGraph& graph, const model::Parameters& parameters,
                            const ValleyOptions& options, std::uint64_t seed, std::int64_t repeat) {
    const at::NoGradGuard no_grad;
    const auto places = noisy_places(graph, options);
    core::Random random(seed, "valley", 0, repeat);
    auto noise = make_noise(options.noise)->draw(graph, parameters, places, random);
    const at::Tensor values = parameters.values.to(at::kDouble).contiguous();
    const double* theta = values.data_ptr<double>();
    if (options.sign_ratio) {
        core::Random signs(seed, "valley signs", 0, repeat);
        control_signs(noise, theta, places, *options.sign_ratio, signs);
    }
    at::Tensor direction = at::zeros({graph.layout->size()}, at::kDouble);
    double* out = direction.data_ptr<double>();
    for (std::size_t i = 0; i < places.size(); ++i) out[places[i]] = noise[i];
    const std::int64_t trainable = graph.layout->trainable_size();
    if (options.norm == "filter") {
        scale_filters(graph, out, theta, options.scale);
    } else {
        double squares = 0;
        for (const std::int64_t place : places) squares += theta[place] * theta[place];
        const double now = norm(out, trainable);
        if (now > 0) direction.mul_(options.scale * std::sqrt(squares) / now);
    }
    if (norm(out, trainable) == 0) refuse_zero(options);
    return direction;
}

}  // namespace thalweg::analysis
