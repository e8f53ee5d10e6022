#include <memory>
#include <stdexcept>

#include "owners.hpp"
#include "thalweg/core/registry.hpp"

namespace thalweg::data {
namespace {

/// The data set says who holds what; there is nothing to split (FederatedData asks the data set instead).
class Natural final : public Partitioner {
  public:
    explicit Natural(const core::Value& options) : clients_(options["clients"].as_int()) {}
    std::int64_t clients() const override { return clients_; }
    Assignment split(std::span<const std::uint32_t>, std::span<const std::uint8_t>, std::int64_t,
                     core::Random&) const override {
        throw std::logic_error("natural data are not split");
    }

  private:
    std::int64_t clients_;
};

const core::Registration<std::unique_ptr<Partitioner>> natural_registration{
    {.kind = "partitioner",
     .name = "natural",
     .help = "the data set says who holds what: synthetic generates clients as they are asked for, text is "
             "divided by "
             "speaker or block",
     .citation = "",
     .options = {clients_option()}},
    [](const core::Value& options) { return std::make_unique<Natural>(options); }};

}  // namespace
}  // namespace thalweg::data
