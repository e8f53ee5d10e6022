#include <algorithm>
#include <cmath>
#include <numeric>

#include "thalweg/federation/plan.hpp"

namespace thalweg::federation {

namespace {

/// How many clients `fraction` or `count` asks for.
std::int64_t cohort_size(const core::Value& options, std::int64_t clients) {
    const bool by_count = options.has("count");
    if (by_count && options.has("fraction"))
        options["count"].reject("give either count or fraction, not both");
    if (by_count) {
        const auto count = options["count"].as_int();
        if (count > clients) {
            options["count"].reject("asks for " + std::to_string(count) +
                                    " clients a round, but there are only " + std::to_string(clients));
        }
        return count;
    }
    const double fraction = options.has("fraction") ? options["fraction"].as_number() : 1.0;
    return std::max<std::int64_t>(1, std::llround(fraction * static_cast<double>(clients)));
}

core::Schema cohort_options() {
    return core::Schema{
        core::number("fraction", "share of all clients in a round (default: all)")
            .above(0)
            .at_most(1)
            .optional(),
        core::integer("count", "clients in a round, instead of fraction").at_least(1).optional()};
}

class All final : public Sampler {
  public:
    std::vector<std::int64_t> sample(const data::FederatedData& data, core::Random&) const override {
        std::vector<std::int64_t> clients(static_cast<std::size_t>(data.clients()));
        std::iota(clients.begin(), clients.end(), 0);
        return clients;
    }
};

class Uniform final : public Sampler {
  public:
    explicit Uniform(core::Value options) : options_(std::move(options)) {}
    std::vector<std::int64_t> sample(const data::FederatedData& data, core::Random& random) const override {
        return random.sample(data.clients(), cohort_size(options_, data.clients()));
    }

  private:
    core::Value options_;
};

/// Without replacement, client k's chance in each draw in proportion to its samples: the `count` largest of the keys
/// u^(1/n_k) (Efraimidis & Spirakis 2006), compared as log(u)/n_k.
class Weighted final : public Sampler {
  public:
    explicit Weighted(core::Value options) : options_(std::move(options)) {}
    std::vector<std::int64_t> sample(const data::FederatedData& data, core::Random& random) const override {
        const auto count = static_cast<std::size_t>(cohort_size(options_, data.clients()));
        std::vector<std::pair<double, std::int64_t>> keys;
        keys.reserve(static_cast<std::size_t>(data.clients()));
        for (std::int64_t client = 0; client < data.clients(); ++client) {
            keys.emplace_back(-std::log1p(-random.uniform()) / static_cast<double>(data.samples(client)),
                              client);
        }
        std::partial_sort(keys.begin(), keys.begin() + static_cast<std::ptrdiff_t>(count), keys.end());
        std::vector<std::int64_t> clients;
        for (std::size_t i = 0; i < count; ++i) clients.push_back(keys[i].second);
        std::sort(clients.begin(), clients.end());
        return clients;
    }

  private:
    core::Value options_;
};

const SamplerRegistration all{
    {.kind = "sampler", .name = "all", .help = "every client in every round", .citation = "", .options = {}},
    [](const core::Value&) { return std::make_unique<All>(); }};
const SamplerRegistration uniform{
    {.kind = "sampler",
     .name = "uniform",
     .help = "a fresh uniform draw without replacement each round",
     .citation = "McMahan et al., AISTATS 2017",
     .options = cohort_options()},
    [](const core::Value& options) { return std::make_unique<Uniform>(options); }};
const SamplerRegistration weighted{
    {.kind = "sampler",
     .name = "weighted",
     .help = "without replacement, chances in proportion to the clients' samples",
     .citation = "Efraimidis & Spirakis, Information Processing Letters 2006",
     .options = cohort_options()},
    [](const core::Value& options) { return std::make_unique<Weighted>(options); }};

}  // namespace

}  // namespace thalweg::federation
