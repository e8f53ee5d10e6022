#include "thalweg/analysis/valley.hpp"

namespace thalweg::analysis {

namespace {

class Rademacher final : public Noise {
  public:
    std::vector<double> draw(const model::ModelGraph&, const model::Parameters&,
                             std::span<const std::int64_t> places, core::Random& random) const override {
        std::vector<double> numbers(places.size());
        for (double& number : numbers) number = random.uniform() < 0.5 ? -1.0 : 1.0;
        return numbers;
    }
};

const NoiseRegistration rademacher_registration{
    {.kind = "noise",
     .name = "rademacher",
     .help = "-1 or 1, a fair coin each",
     .citation =
         "Li et al., Exploring and Exploiting the Asymmetric Valley of DNNs, NeurIPS 2024 (arXiv 2405.12489)",
     .options = {}},
    [](const core::Value&) { return std::make_unique<Rademacher>(); }};

}  // namespace

}  // namespace thalweg::analysis
