#include <torch/types.h>

#include "thalweg/analysis/valley.hpp"

namespace thalweg::analysis {

namespace {

class ParametersThemselves final : public Noise {
  public:
    std::vector<double> draw(const model::ModelGraph&, const model::Parameters& parameters,
                             std::span<const std::int64_t> places, core::Random&) const override {
        const at::Tensor values = parameters.trainable().to(at::kDouble).contiguous();
        std::vector<double> numbers;
        numbers.reserve(places.size());
        for (const std::int64_t place : places) {
            const double value = values.data_ptr<double>()[place];
            numbers.push_back(value);
        }
        return numbers;
    }
};

const NoiseRegistration parameters_registration{
    {.kind = "noise",
     .name = "parameters",
     .help = "the parameters themselves: the model grows and shrinks; nothing is drawn",
     .citation =
         "Li et al., Exploring and Exploiting the Asymmetric Valley of DNNs, NeurIPS 2024 (arXiv 2405.12489)",
     .options = {}},
    [](const core::Value&) { return std::make_unique<ParametersThemselves>(); }};

}  // namespace

}  // namespace thalweg::analysis
