#include "measure_drawing.hpp"

// Figures of what a model's layers have each.
namespace thalweg::report {

void draw_variance_ratio(Section& section, const RunRecord& run, const Measure& measure) {
    add_layers(
        section, run, measure,
        {.name = "variance-ratio",
         .title = "Variance ratio",
         .caption =
             "Variance of the pre-activations in the fused model ÷ in the clients' models: 1 is healthy, "
             "near 0 is collapse.",
         .y = {.label = "variance ratio"}},
        {{"before the finishers", "before", ""}, {"after the finishers", "after", ""}}, 1);
}

void draw_cka(Section& section, const RunRecord& run, const Measure& measure) {
    add_layers(section, run, measure,
               {.name = "cka",
                .title = "Linear CKA between clients",
                .caption = "Similarity of the clients' representations as their models go into the "
                           "reduction: 1 is the same.",
                .y = {.label = "CKA"}},
               {{"CKA", "layers", ""}}, 1);
}

void draw_support(Section& section, const RunRecord& run, const Measure& measure) {
    add_layers(
        section, run, measure,
        {.name = "support",
         .title = "Effective dimension of the support",
         .caption = "(Σλ)² ÷ Σλ² of WᵀW, of WΣWᵀ, and of the covariance of the activations that the layer "
                    "reads.",
         .y = {.label = "effective dimension", .logarithmic = true}},
        {{"WᵀW", "", "weights"},
         {"WΣWᵀ", "", "outputs_covariance"},
         {"activations in", "", "inputs_covariance"}},
        1);
}

}  // namespace thalweg::report
