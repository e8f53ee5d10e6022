#include "thalweg/analysis/valley.hpp"

namespace thalweg::analysis {

namespace {

/// Norm scales start at 1 and shifts at 0: they are not drawn.
class Initialisation final : public Noise {
  public:
    std::vector<double> draw(const model::ModelGraph& graph, const model::Parameters&,
                             std::span<const std::int64_t> places, core::Random& random) const override {
        // What the builder says, not the values an imported model starts from, which are one point and no draw.
        model::ModelGraph fresh = graph;
        fresh.start = nullptr;
        const auto drawn = model::initialise(fresh, random);
        std::vector<double> numbers;
        numbers.reserve(places.size());
        for (const std::int64_t place : places) numbers.push_back(static_cast<double>(drawn.data()[place]));
        return numbers;
    }
};

const NoiseRegistration initialisation_registration{
    {.kind = "noise",
     .name = "initialisation",
     .help = "a fresh initialisation of the model",
     .citation =
         "Li et al., Exploring and Exploiting the Asymmetric Valley of DNNs, NeurIPS 2024 (arXiv 2405.12489)",
     .options = {}},
    [](const core::Value&) { return std::make_unique<Initialisation>(); }};

}  // namespace

}  // namespace thalweg::analysis
