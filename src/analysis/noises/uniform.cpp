#include "thalweg/analysis/valley.hpp"

namespace thalweg::analysis {

namespace {

class Uniform final : public Noise {
  public:
    std::vector<double> draw(const model::ModelGraph&, const model::Parameters&,
                             std::span<const std::int64_t> places, core::Random& random) const override {
        std::vector<double> numbers(places.size());
        for (double& number : numbers) number = random.uniform(-1, 1);
        return numbers;
    }
};

const NoiseRegistration uniform_registration{
    {.kind = "noise",
     .name = "uniform",
     .help = "independent numbers, uniform in [-1, 1)",
     .citation =
         "Li et al., Exploring and Exploiting the Asymmetric Valley of DNNs, NeurIPS 2024 (arXiv 2405.12489)",
     .options = {}},
    [](const core::Value&) { return std::make_unique<Uniform>(); }};

}  // namespace

}  // namespace thalweg::analysis
