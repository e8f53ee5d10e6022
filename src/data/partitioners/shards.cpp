#include <memory>
#include <numeric>
#include <string>

#include "owners.hpp"
#include "thalweg/core/registry.hpp"

namespace thalweg::data {
namespace {

/// The samples sorted by label are cut into clients × shards_per_client pieces and each client gets that many
/// at random. Pieces differ by one sample at most, so that all samples are used.
class Shards final : public Partitioner {
  public:
    explicit Shards(core::Value options) : options_(std::move(options)) {}
    std::int64_t clients() const override { return options_["clients"].as_int(); }

    Assignment split(std::span<const std::uint32_t> pool, std::span<const std::uint8_t> labels,
                     std::int64_t classes, core::Random& random) const override {
        require_a_sample_each(options_, pool.size());
        const std::int64_t each = options_["shards_per_client"].as_int();
        const auto samples = static_cast<std::int64_t>(pool.size());
        if (each > samples / clients()) {
            options_["shards_per_client"].reject(
                std::to_string(clients()) + " clients with " + std::to_string(each) +
                " shards each need more shards than there are samples, " + std::to_string(samples));
        }
        const std::int64_t shards = clients() * each;
        Owners shard_owner(static_cast<std::size_t>(shards));
        for (std::size_t s = 0; s < shard_owner.size(); ++s) {
            shard_owner[s] = static_cast<std::uint32_t>(s / static_cast<std::size_t>(each));
        }
        random.shuffle(std::span(shard_owner));

        const ByLabel groups = group_by_label(labels, classes);
        Owners owners(pool.size());
        for (std::int64_t s = 0; s < shards; ++s) {
            for (std::int64_t i = s * samples / shards; i < (s + 1) * samples / shards; ++i) {
                owners[groups.positions[static_cast<std::size_t>(i)]] =
                    shard_owner[static_cast<std::size_t>(s)];
            }
        }
        return assign(pool, owners, clients());
    }

  private:
    core::Value options_;
};

const core::Registration<std::unique_ptr<Partitioner>> shards_registration{
    {.kind = "partitioner",
     .name = "shards",
     .help = "label skew: samples sorted by label, cut into equal shards, some for each client; all samples "
             "are used",
     .citation =
         "McMahan et al.: Communication-efficient learning of deep networks from decentralized data (AISTATS "
         "2017), arXiv:1602.05629",
     .options = {clients_option(), core::integer("shards_per_client", "shards for each client")
                                       .at_least(1)
                                       .at_most(1e9)
                                       .by_default(2)}},
    [](const core::Value& options) { return std::make_unique<Shards>(options); }};

}  // namespace
}  // namespace thalweg::data
