#include "thalweg/aggregator/update.hpp"

#include <torch/types.h>

#include <stdexcept>

#include "thalweg/core/error.hpp"

namespace thalweg::aggregator {

std::vector<double> weights(const std::vector<Member>& members, Weighting weighting) {
    if (members.empty()) throw std::logic_error("weights of no members");
    if (weighting == Weighting::uniform) {
        return std::vector<double>(members.size(), 1.0 / static_cast<double>(members.size()));
    }
    double total = 0;  // of integers: exact, so that the weights do not depend on the order
    for (const Member& member : members) total += static_cast<double>(member.samples);
    if (total <= 0) {
        throw core::UsageError(
            "No client of this round has any samples, so models cannot be weighted by them. Give the clients "
            "data, or weigh all alike (weights: uniform).");
    }
    std::vector<double> result;
    for (const Member& member : members) result.push_back(static_cast<double>(member.samples) / total);
    return result;
}

Weighting weighting_of(const std::string& name) {
    if (name == "samples") return Weighting::samples;
    if (name == "uniform") return Weighting::uniform;
    throw std::logic_error("no weighting is called " + name);
}

}  // namespace thalweg::aggregator
