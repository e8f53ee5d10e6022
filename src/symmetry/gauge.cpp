#include "thalweg/symmetry/gauge.hpp"

#include <torch/types.h>

#include <cmath>
#include <map>
#include <stdexcept>
#include <utility>

#include "gauge_walk.hpp"
#include "labels.hpp"

namespace thalweg::symmetry {

Gauge derive_gauge(const model::ModelGraph& graph, Gauge::Kind kind) {
    const GaugeWalk walk(graph, kind);
    // Channels that stand in some entry, by the module that made them, oldest first.
    std::vector<std::pair<std::string, std::vector<Channel>>> free;
    std::map<Channel, std::int64_t> number{{walk.channels.find(GaugeWalk::one), -1}};
    std::vector<Gauge::Fixed> fixed;
    for (const auto& mark : walk.marks) {
        for (const Channel member : line_of(mark.factors)) {
            const Channel channel = walk.channels.find(member);
            if (!number.try_emplace(channel, -1).second) continue;
            const auto& name = walk.channels.name(channel);
            if (!walk.channels.frozen(channel).empty()) {
                const std::string& reason = walk.channels.frozen(channel);
                auto same = fixed.begin();
                while (same != fixed.end() && (same->name != name || same->reason != reason)) ++same;
                if (same == fixed.end()) same = fixed.insert(same, {name, 0, reason});
                same->channels += 1;
                continue;
            }
            auto found = free.begin();
            while (found != free.end() && found->first != name) ++found;
            if (found == free.end()) found = free.insert(found, {name, {}});
            found->second.push_back(channel);
        }
    }
    Gauge gauge{.kind = kind, .groups = {}, .marks = {}, .fixed = {}};
    for (const auto& [name, channels] : free) {
        gauge.groups.push_back({name, gauge.channels, static_cast<std::int64_t>(channels.size())});
        for (const Channel channel : channels) number[channel] = gauge.channels++;
    }
    gauge.fixed = std::move(fixed);
    for (const auto& mark : walk.marks) {
        std::vector<std::int64_t> numbers;
        bool any = false;
        for (const Channel member : line_of(mark.factors)) {
            numbers.push_back(number.at(walk.channels.find(member)));
            any = any || numbers.back() >= 0;
        }
        if (any) {
            gauge.marks.push_back(
                {mark.entry, at::tensor(numbers, at::kLong).view(mark.factors.sizes()), mark.exponent});
        }
    }
    return gauge;
}

model::Parameters multiply(const model::Parameters& parameters, const Gauge& gauge,
                           const std::vector<double>& factors) {
    if (static_cast<std::int64_t>(factors.size()) != gauge.channels)
        throw std::logic_error("multiply: a factor for each channel");
    for (const double factor : factors) {
        const bool fits =
            gauge.kind == Gauge::Kind::sign ? std::abs(factor) == 1.0 : std::isfinite(factor) && factor > 0;
        if (!fits) throw std::logic_error("multiply: factors are +1 or -1, or positive numbers");
    }
    std::vector<double> with_one(factors);
    with_one.push_back(1);  // channel −1
    const at::Tensor table = at::tensor(with_one, at::kDouble);
    model::Parameters result = parameters.clone();
    for (const Gauge::Mark& mark : gauge.marks) {
        const at::Tensor index =
            mark.channel.where(mark.channel.ge(0), at::full({}, gauge.channels, at::kLong));
        const at::Tensor factor =
            table.index_select(0, index.flatten()).view(mark.channel.sizes()).pow(mark.exponent);
        const at::Tensor entry = result.view(mark.entry);
        entry.copy_(entry.to(at::kDouble) * factor);
    }
    return result;
}

std::vector<double> random_factors(const Gauge& gauge, core::Random& random) {
    std::vector<double> factors;
    for (std::int64_t i = 0; i < gauge.channels; ++i) {
        const double u = random.uniform(-1, 1);
        factors.push_back(gauge.kind == Gauge::Kind::sign ? (u < 0 ? -1.0 : 1.0) : std::exp2(u));
    }
    return factors;
}

}  // namespace thalweg::symmetry
