#include <algorithm>
#include <cmath>

#include "thalweg/analysis/valley.hpp"

namespace thalweg::analysis {

namespace {

class Sparse final : public Noise {
  public:
    explicit Sparse(double fraction) : fraction_(fraction) {}

    std::vector<double> draw(const model::ModelGraph&, const model::Parameters&,
                             std::span<const std::int64_t> places, core::Random& random) const override {
        const auto all = static_cast<std::int64_t>(places.size());
        const auto some =
            std::clamp<std::int64_t>(std::llround(fraction_ * static_cast<double>(all)), 1, all);
        std::vector<double> numbers(places.size(), 0.0);
        for (const std::int64_t place : random.sample(all, some))
            numbers[static_cast<std::size_t>(place)] = random.normal();
        return numbers;
    }

  private:
    double fraction_;
};

const NoiseRegistration sparse_registration{
    {.kind = "noise",
     .name = "sparse",
     .help = "standard normal numbers on a random share of the entries, 0 on the others",
     .citation =
         "Li et al., Exploring and Exploiting the Asymmetric Valley of DNNs, NeurIPS 2024 (arXiv 2405.12489)",
     .options = {core::number("fraction", "share of the entries, rounded; at least one entry")
                     .above(0)
                     .at_most(1)
                     .by_default(0.1)}},
    [](const core::Value& options) { return std::make_unique<Sparse>(options["fraction"].as_number()); }};

}  // namespace

}  // namespace thalweg::analysis
