#include "thalweg/clients/training.hpp"

namespace thalweg::clients {

core::Option TrainingPlan::schema() {
    return core::object(
               "clients",
               {core::plugin("algorithm", "algorithm", "the clients' optimizer").by_default("sgd"),
                core::plugin("objective", "objective", "a term added to the local loss").by_default("none"),
                core::plugin("schedule", "schedule", "how the learning rate changes").by_default("constant"),
                core::integer("epochs",
                              "passes over a client's samples each round; not used when steps is given")
                    .at_least(1)
                    .at_most(1e6)
                    .by_default(1),
                core::integer("steps", "optimizer steps each round, in place of epochs")
                    .at_least(1)
                    .at_most(1e9)
                    .optional(),
                core::integer("batch_size", "samples a step; the last batch of an epoch may be smaller")
                    .at_least(1)
                    .at_most(1e9)
                    .by_default(32),
                core::number("clip", "largest L2 norm of a step's gradient, the objective's part included")
                    .above(0)
                    .optional(),
                core::choice(
                    "init", {"shared", "independent"},
                    "round 1 starts from one model for all, or each client from its own initialisation")
                    .by_default("shared"),
                core::plugins(
                    "models", "model",
                    "architectures of the clients, in turn by client id, where they differ from `model` in "
                    "width; one round from independent initialisations, fused by optimal_transport or "
                    "matched_averaging")
                    .by_default("[]"),
                core::choice("on_failure", {"fail", "continue"},
                             "what becomes of the run when a client's loss is not finite: it stops, or goes "
                             "on without "
                             "that client's update")
                    .by_default("fail")},
               "what a client does in a round")
        .by_default("{}");
}

TrainingPlan TrainingPlan::from(const core::Value& clients, std::int64_t rounds) {
    TrainingPlan plan;
    plan.algorithm = clients["algorithm"];
    plan.objective = clients["objective"];
    plan.schedule = clients["schedule"];
    plan.epochs = clients["epochs"].as_int();
    if (clients.has("steps")) plan.steps = clients["steps"].as_int();
    plan.batch_size = clients["batch_size"].as_int();
    if (clients.has("clip")) plan.clip = clients["clip"].as_number();
    plan.rounds = rounds;
    return plan;
}

}  // namespace thalweg::clients
