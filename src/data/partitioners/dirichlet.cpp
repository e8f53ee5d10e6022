#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <string>

#include "owners.hpp"
#include "thalweg/core/interrupt.hpp"
#include "thalweg/core/registry.hpp"

namespace thalweg::data {
namespace {

/// The samples of each class are split over the clients in proportions p ~ Dirichlet(alpha), drawn again
/// until every client has `min_size`. `balanced` is NIID-Bench's rule: who already holds an equal share gets
/// none of the classes that follow; sizes come out alike, but the later classes are missing altogether at many
/// clients, a much stronger skew than alpha says. All samples are used.
class Dirichlet final : public Partitioner {
  public:
    explicit Dirichlet(core::Value options)
        : options_(std::move(options)),
          alpha_(std::max(options_["alpha"].as_number(), 1e-12)),  // below, log(u)/alpha could overflow
          balanced_(options_["balanced"].as_bool()) {}
    std::int64_t clients() const override { return options_["clients"].as_int(); }

    Assignment split(std::span<const std::uint32_t> pool, std::span<const std::uint8_t> labels,
                     std::int64_t classes, core::Random& random) const override {
        require_a_sample_each(options_, pool.size());
        ByLabel groups = group_by_label(labels, classes);
        for (std::size_t c = 0; c < static_cast<std::size_t>(classes); ++c) random.shuffle(groups.of(c));

        core::Random accepted = find_accepted(groups, random);
        Owners owners(pool.size());
        std::size_t next = 0;
        draw(groups, accepted, [&](std::size_t client, std::size_t count) {
            for (; count > 0; --count) owners[groups.positions[next++]] = static_cast<std::uint32_t>(client);
        });
        return assign(pool, owners, clients());
    }

  private:
    /// The random stream as it stands before a draw that gives every client enough: drawing sizes only is
    /// cheap.
    core::Random find_accepted(const ByLabel& groups, core::Random& random) const {
        const std::int64_t min_size = options_["min_size"].as_int();
        const auto samples = static_cast<std::int64_t>(groups.positions.size());
        if (clients() * min_size > samples) {
            options_["min_size"].reject(std::to_string(clients()) + " clients with at least " +
                                        std::to_string(min_size) + " samples each need more than the " +
                                        std::to_string(samples) + " there are");
        }
        const auto classes = static_cast<std::int64_t>(groups.begin.size()) - 1;
        // A few seconds of drawing at most, except for very many clients.
        const std::int64_t tries = std::clamp<std::int64_t>(5000000 / (clients() * classes), 3, 10000);
        std::uint64_t best = 0;
        for (std::int64_t i = 0; i < tries; ++i) {
            const core::Random before = random;
            const std::vector<std::uint64_t> sizes = draw(groups, random, [](std::size_t, std::size_t) {});
            const std::uint64_t smallest = *std::min_element(sizes.begin(), sizes.end());
            if (smallest >= static_cast<std::uint64_t>(std::max<std::int64_t>(min_size, 1))) return before;
            best = std::max(best, smallest);
        }
        options_["min_size"].reject("in " + std::to_string(tries) + " draws the smallest client had " +
                                    std::to_string(best) + " samples at best, " + std::to_string(min_size) +
                                    " are asked for; raise alpha, lower min_size or the number of clients");
    }

    /// Draws the proportions of every class; give(client, count) is called in the order of classes and
    /// clients and the counts of a class sum to its samples. Returns the clients' sizes.
    template <class Give>
    std::vector<std::uint64_t> draw(const ByLabel& groups, core::Random& random, const Give& give) const {
        const auto count = static_cast<std::size_t>(clients());
        const double equal_share = static_cast<double>(groups.positions.size()) / static_cast<double>(count);
        std::vector<std::uint64_t> sizes(count, 0);
        std::vector<double> share(count);
        for (std::size_t c = 0; c + 1 < groups.begin.size(); ++c) {
            core::check_interrupt();  // a million clients take a while
            const std::size_t samples = groups.of(c).size();
            if (samples == 0) continue;
            const auto open = [&](std::size_t k) {
                return !balanced_ || static_cast<double>(sizes[k]) < equal_share;
            };
            const std::size_t last = draw_shares(random, open, share);
            double cumulated = 0.0;
            std::size_t given = 0;
            for (std::size_t k = 0; k <= last; ++k) {
                cumulated += share[k];
                const auto until = static_cast<std::size_t>(cumulated * static_cast<double>(samples) + 0.5);
                const std::size_t end = k == last ? samples : std::clamp(until, given, samples);
                give(k, end - given);
                sizes[k] += end - given;
                given = end;
            }
        }
        return sizes;
    }

    /// Dirichlet proportions over the open clients, 0 for the others; returns the last open one. A gamma
    /// variate of a small shape is often too small for a double, its logarithm is not: log G(a) = log G(a +
    /// 1) + log(U)/a.
    template <class Open>
    std::size_t draw_shares(core::Random& random, const Open& open, std::vector<double>& share) const {
        std::size_t last = 0;
        double highest = -std::numeric_limits<double>::infinity();
        for (std::size_t k = 0; k < share.size(); ++k) {
            const double gamma = random.gamma(alpha_ + 1.0);
            share[k] = std::log(gamma) + std::log1p(-random.uniform()) / alpha_;
            if (!open(k)) continue;
            last = k;
            highest = std::max(highest, share[k]);
        }
        double sum = 0.0;
        for (std::size_t k = 0; k < share.size(); ++k) {
            share[k] = open(k) ? std::exp(share[k] - highest) : 0.0;
            sum += share[k];
        }
        for (double& value : share) value /= sum;
        return last;
    }

    core::Value options_;
    double alpha_;
    bool balanced_;
};

const core::Registration<std::unique_ptr<Partitioner>> dirichlet_registration{
    {.kind = "partitioner",
     .name = "dirichlet",
     .help = "label skew: each class is split in Dirichlet(alpha) proportions; all samples are used",
     .citation = "Li, Diao, Chen, He: Federated learning on non-IID data silos (ICDE 2022), "
                 "arXiv:2102.02079; Hsu, Qi, "
                 "Brown (2019), arXiv:1909.06335",
     .options = {clients_option(),
                 core::number("alpha", "small: few classes a client; large: as iid")
                     .above(0)
                     .at_most(1e9)
                     .by_default(0.5),
                 core::integer("min_size", "draws again until every client has this many samples")
                     .at_least(1)
                     .at_most(1e9)
                     .by_default(10),
                 core::boolean("balanced",
                               "who holds an equal share already gets none of the classes that follow, as "
                               "in NIID-Bench: sizes alike, skew stronger")
                     .by_default(false)}},
    [](const core::Value& options) { return std::make_unique<Dirichlet>(options); }};

}  // namespace
}  // namespace thalweg::data
