#include <torch/types.h>

#include "thalweg/analysis/valley.hpp"

namespace thalweg::analysis {

namespace {

class Sign final : public Noise {
  public:
    std::vector<double> draw(const model::ModelGraph&, const model::Parameters& parameters,
                             std::span<const std::int64_t> places, core::Random&) const override {
        const at::Tensor values = parameters.trainable().to(at::kDouble).contiguous();
        std::vector<double> numbers;
        numbers.reserve(places.size());
        for (const std::int64_t place : places) {
            const double value = values.data_ptr<double>()[place];
            numbers.push_back(value > 0 ? 1.0 : value < 0 ? -1.0 : 0.0);
        }
        return numbers;
    }
};

const NoiseRegistration sign_registration{
    {.kind = "noise",
     .name = "sign",
     .help = "the sign of each parameter (0 for 0); nothing is drawn",
     .citation =
         "Li et al., Exploring and Exploiting the Asymmetric Valley of DNNs, NeurIPS 2024 (arXiv 2405.12489)",
     .options = {}},
    [](const core::Value&) { return std::make_unique<Sign>(); }};

}  // namespace

}  // namespace thalweg::analysis
