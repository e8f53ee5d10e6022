#include "thalweg/aggregator/spheres.hpp"

#include <torch/types.h>

#include <algorithm>
#include <cmath>
#include <set>
#include <variant>

#include "thalweg/core/error.hpp"

namespace thalweg::aggregator {

Spheres::Spheres(const model::ModelGraph& graph) : graph_(graph) {
    find_foldable();
    gauge_ = symmetry::derive_gauge(without_folded(), symmetry::Gauge::Kind::scale);
    const auto& layout = *graph.layout;
    unit_of_ = at::full({layout.trainable_size()}, -1, at::kLong);
    std::vector<std::set<std::size_t>> makers(
        static_cast<std::size_t>(gauge_.channels));  // weights that make a channel
    for (const auto& mark : gauge_.marks) {
        if (mark.exponent < 0 || layout.entries()[mark.entry].role != model::Role::weight) continue;
        const at::Tensor flat = mark.channel.contiguous().flatten();
        for (std::int64_t i = 0; i < flat.numel(); ++i) {
            const auto channel = flat.data_ptr<std::int64_t>()[i];
            if (channel >= 0) makers[static_cast<std::size_t>(channel)].insert(mark.entry);
        }
    }
    std::vector<bool> is_unit(static_cast<std::size_t>(gauge_.channels) + 1, false);
    for (const auto& group : gauge_.groups) {
        const auto first = makers.begin() + group.first;
        is_unit_.push_back(
            std::all_of(first, first + group.size, [](const auto& of) { return of.size() == 1; }));
        for (std::int64_t c = group.first; c < group.first + group.size; ++c)
            is_unit[static_cast<std::size_t>(c)] = is_unit_.back();
    }
    const at::Tensor counts = at::empty({gauge_.channels + 1}, at::kBool);
    for (std::int64_t c = 0; c <= gauge_.channels; ++c)
        counts.data_ptr<bool>()[c] = is_unit[static_cast<std::size_t>(c)];
    for (const auto& mark : gauge_.marks) {
        const auto& entry = layout.entries()[mark.entry];
        if (mark.exponent < 0 || !entry.trainable) continue;
        const at::Tensor of_entry = unit_of_.narrow(0, entry.offset, entry.size).view(entry.shape);
        const at::Tensor channel = mark.channel.expand(entry.shape);
        const at::Tensor known = at::where(channel.ge(0), channel, at::full({}, gauge_.channels, at::kLong));
        const at::Tensor chosen = counts.index_select(0, known.flatten()).view(entry.shape);
        of_entry.copy_(at::where(chosen, channel, of_entry));
    }
    const auto affine = graph.affine_operations();
    if (affine.empty()) return;
    const auto take = [&](int index) {
        if (index < 0) return;
        const auto& entry = layout.entries()[static_cast<std::size_t>(index)];
        unit_of_.narrow(0, entry.offset, entry.size).fill_(units());
    };
    std::visit(
        [&](const auto& kind) {
            using Kind = std::decay_t<decltype(kind)>;
            if constexpr (std::is_same_v<Kind, model::Linear> || std::is_same_v<Kind, model::Convolution>) {
                take(kind.weight);
                take(kind.bias);
            }
        },
        graph.operations[affine.back()].kind);
}

namespace {

/// Entries that an operation names.
struct Named {
    std::set<int> entries;
    void entry(const char*, int index) { entries.insert(index); }
    void counter(const char*, int) {}
    template <class Value>
    void value(const char*, const Value&) {}
};

/// True when more than one operation uses the entry.
bool is_shared(const model::ModelGraph& graph, int entry) {
    return std::count_if(graph.operations.begin(), graph.operations.end(), [&](const auto& operation) {
               Named named;
               std::visit([&](const auto& kind) { kind.fields(kind, named); }, operation.kind);
               return named.entries.contains(entry);
           }) > 1;
}

}  // namespace

void Spheres::find_foldable() {
    for (std::size_t i = 0; i < graph_.operations.size(); ++i) {
        const auto* norm = std::get_if<model::BatchNorm>(&graph_.operations[i].kind);
        if (norm == nullptr || norm->weight < 0 || norm->bias < 0 || norm->running_mean < 0) continue;
        const int read = graph_.operations[i].inputs.front();
        if (read == 0 || graph_.consumers(read).size() != 1) continue;
        const auto& producer = graph_.operations[static_cast<std::size_t>(read - 1)].kind;
        Folded folded{0,
                      -1,
                      static_cast<std::size_t>(norm->weight),
                      static_cast<std::size_t>(norm->bias),
                      static_cast<std::size_t>(norm->running_mean),
                      static_cast<std::size_t>(norm->running_var),
                      norm->epsilon,
                      false};
        if (const auto* linear = std::get_if<model::Linear>(&producer)) {
            folded.weight = static_cast<std::size_t>(linear->weight);
            folded.bias = linear->bias;
        } else if (const auto* conv = std::get_if<model::Convolution>(&producer)) {
            if (conv->transposed && conv->groups > 1) continue;
            folded.weight = static_cast<std::size_t>(conv->weight);
            folded.bias = conv->bias;
            folded.transposed = conv->transposed;
        } else {
            continue;
        }
        // Folding changes the weight, which another operation reads unfolded.
        if (is_shared(graph_, static_cast<int>(folded.weight)) || is_shared(graph_, norm->weight)) continue;
        foldable_.push_back(i);
        folded_.push_back(folded);
    }
}

/// The same entries, with the foldable batch norms as what is left of them: a shift.
model::ModelGraph Spheres::without_folded() const {
    model::ModelGraph result = graph_;
    result.operations.clear();
    result.shapes = {graph_.shapes.front()};
    std::vector<int> value_of(graph_.operations.size() + 1, 0);
    const auto append = [&](std::string name, model::OperationKind kind, std::vector<int> inputs,
                            const std::vector<std::int64_t>& shape) {
        result.shapes.push_back(shape);
        const int output = static_cast<int>(result.operations.size()) + 1;
        result.operations.push_back({std::move(name), std::move(kind), std::move(inputs), output});
        return output;
    };
    for (std::size_t i = 0; i < graph_.operations.size(); ++i) {
        const auto& operation = graph_.operations[i];
        const auto& shape = graph_.shapes[static_cast<std::size_t>(operation.output)];
        std::vector<int> inputs;
        for (const int input : operation.inputs) inputs.push_back(value_of[static_cast<std::size_t>(input)]);
        int& value = value_of[static_cast<std::size_t>(operation.output)];
        if (std::find(foldable_.begin(), foldable_.end(), i) == foldable_.end()) {
            value = append(operation.name, operation.kind, inputs, shape);
            continue;
        }
        std::vector<std::int64_t> row(shape.size(), 1);
        row.front() = shape.front();
        const int shift =
            append(operation.name,
                   model::Parameter{.weight = std::get<model::BatchNorm>(operation.kind).bias, .shape = row},
                   {}, row);
        value = append(operation.name, model::Add{}, {inputs.front(), shift}, shape);
    }
    return result;
}

void Spheres::fold_batch_norms(model::Parameters& model) const {
    for (const Folded& folded : folded_) {
        const auto as_double = [&](std::size_t entry) { return model.view(entry).to(at::kDouble); };
        const at::Tensor variance = as_double(folded.running_var);
        const at::Tensor factor = as_double(folded.norm_weight) / (variance + folded.epsilon).sqrt();
        const at::Tensor weight = model.view(folded.weight);
        std::vector<std::int64_t> shape(static_cast<std::size_t>(weight.dim()), 1);
        shape[folded.transposed ? 1 : 0] = factor.numel();
        weight.copy_(weight.to(at::kDouble) * factor.view(shape));
        if (folded.bias >= 0) {
            const at::Tensor bias = model.view(static_cast<std::size_t>(folded.bias));
            bias.copy_(bias.to(at::kDouble) * factor);
        }
        const at::Tensor shift = model.view(folded.norm_bias);
        shift.copy_(shift.to(at::kDouble) - factor * as_double(folded.running_mean));
        model.view(folded.running_mean).zero_();
        model.view(folded.running_var).fill_(1);
        model.view(folded.norm_weight).fill_(std::sqrt(1 + folded.epsilon));
    }
}

void Spheres::normalise(model::Parameters& model) const {
    const auto lengths = [&] {
        const at::Tensor square = model.trainable().to(at::kDouble).square();
        const at::Tensor sums = at::zeros({units() + 2}, at::kDouble);
        // −1 counts in the last place, which nobody reads.
        const at::Tensor place = at::where(unit_of_.ge(0), unit_of_, at::full({}, units() + 1, at::kLong));
        return sums.index_add_(0, place, square).sqrt();
    };
    // Lengths change with what was normalised before: units inside a residual branch read the stream, whose channels stay as
    // they are, and of a chain of layers one sweep is all.
    double furthest = 1;
    for (int sweep = 0; sweep < 100 && furthest > 1e-6; ++sweep) {
        furthest = 0;
        for (std::size_t g = 0; g < gauge_.groups.size(); ++g) {
            if (!is_unit_[g]) continue;
            const auto& group = gauge_.groups[g];
            const at::Tensor length = lengths();
            std::vector<double> factors(static_cast<std::size_t>(units()), 1.0);
            for (std::int64_t unit = group.first; unit < group.first + group.size; ++unit) {
                const double now = length.data_ptr<double>()[unit];
                if (now == 0) continue;
                factors[static_cast<std::size_t>(unit)] = 1 / now;
                furthest = std::max(furthest, std::abs(now - 1));
            }
            model = symmetry::multiply(model, gauge_, factors);
        }
    }
    const double classifier = lengths().data_ptr<double>()[units()];
    if (classifier == 0) return;
    const at::Tensor values = model.trainable();
    values.copy_(at::where(unit_of_.eq(units()), values / classifier, values));
}

}  // namespace thalweg::aggregator
