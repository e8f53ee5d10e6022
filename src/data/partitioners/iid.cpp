#include <memory>

#include "owners.hpp"
#include "thalweg/core/registry.hpp"

namespace thalweg::data {
namespace {

/// Every client gets a uniformly drawn share; shares differ by one sample at most. All samples are used.
class Iid final : public Partitioner {
  public:
    explicit Iid(core::Value options) : options_(std::move(options)) {}
    std::int64_t clients() const override { return options_["clients"].as_int(); }

    Assignment split(std::span<const std::uint32_t> pool, std::span<const std::uint8_t>, std::int64_t,
                     core::Random& random) const override {
        require_a_sample_each(options_, pool.size());
        const auto count = static_cast<std::size_t>(clients());
        Owners owners(pool.size());
        for (std::size_t i = 0; i < owners.size(); ++i) owners[i] = static_cast<std::uint32_t>(i % count);
        random.shuffle(std::span(owners));
        return assign(pool, owners, clients());
    }

  private:
    core::Value options_;
};

const core::Registration<std::unique_ptr<Partitioner>> iid_registration{
    {.kind = "partitioner",
     .name = "iid",
     .help = "equal shares drawn uniformly; all samples are used",
     .citation = "",
     .options = {clients_option()}},
    [](const core::Value& options) { return std::make_unique<Iid>(options); }};

}  // namespace
}  // namespace thalweg::data
