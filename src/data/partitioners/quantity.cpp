#include <algorithm>
#include <cmath>
#include <memory>
#include <numeric>
#include <string>

#include "owners.hpp"
#include "thalweg/core/registry.hpp"

namespace thalweg::data {
namespace {

/// Sizes in proportion to log-normal weights exp(sigma z), at least `min_size`, over all samples; who gets
/// which sample is uniform.
class Quantity final : public Partitioner {
  public:
    explicit Quantity(core::Value options) : options_(std::move(options)) {}
    std::int64_t clients() const override { return options_["clients"].as_int(); }

    Assignment split(std::span<const std::uint32_t> pool, std::span<const std::uint8_t>, std::int64_t,
                     core::Random& random) const override {
        require_a_sample_each(options_, pool.size());
        const std::int64_t min_size = options_["min_size"].as_int();
        if (min_size > static_cast<std::int64_t>(pool.size()) / clients()) {
            options_["min_size"].reject(std::to_string(clients()) + " clients with at least " +
                                        std::to_string(min_size) + " samples each need more than the " +
                                        std::to_string(pool.size()) + " there are");
        }
        std::vector<double> sizes(static_cast<std::size_t>(clients()));
        const double sigma = options_["sigma"].as_number();
        for (double& weight : sizes) weight = std::exp(sigma * random.normal());
        scale(sizes, static_cast<double>(pool.size()), static_cast<double>(min_size));

        Owners owners(pool.size());
        double cumulated = 0.0;
        std::size_t given = 0;
        for (std::size_t k = 0; k < sizes.size(); ++k) {
            cumulated += sizes[k];
            // Rounding the cumulated sizes down leaves every client at least the floor of its own.
            const bool last = k + 1 == sizes.size();
            const std::size_t end =
                last ? owners.size() : std::min(static_cast<std::size_t>(cumulated), owners.size());
            for (; given < end; ++given) owners[given] = static_cast<std::uint32_t>(k);
        }
        random.shuffle(std::span(owners));
        return assign(pool, owners, clients());
    }

  private:
    /// Turns weights into sizes that sum to `total`: in proportion to the weights, but those that come out
    /// below `least` are raised to it and the others pay.
    static void scale(std::vector<double>& weights, double total, double least) {
        std::vector<double> ascending = weights;
        std::sort(ascending.begin(), ascending.end());
        double rest = std::accumulate(ascending.begin(), ascending.end(), 0.0);
        double room = total;
        double threshold = 0.0;  // weights below are raised
        for (const double weight : ascending) {
            if (weight * room >= least * rest) break;
            room -= least;
            rest -= weight;
            threshold = weight;
        }
        const double factor = room / rest;
        for (double& weight : weights)
            weight = weight <= threshold ? least : std::max(least, weight * factor);
    }

    core::Value options_;
};

const core::Registration<std::unique_ptr<Partitioner>> quantity_registration{
    {.kind = "partitioner",
     .name = "quantity",
     .help = "quantity skew: log-normal sizes, samples drawn uniformly; all samples are used",
     .citation = "Zeng et al.: FedLab (JMLR 2023), arXiv:2107.11621",
     .options = {clients_option(),
                 core::number("sigma", "deviation of the logarithm of a size; 0: equal sizes")
                     .at_least(0)
                     .at_most(10)
                     .by_default(1),
                 core::integer("min_size", "samples of the smallest client at least")
                     .at_least(1)
                     .at_most(1e9)
                     .by_default(1)}},
    [](const core::Value& options) { return std::make_unique<Quantity>(options); }};

}  // namespace
}  // namespace thalweg::data
