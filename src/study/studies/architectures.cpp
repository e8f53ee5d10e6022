#include "architectures.hpp"

#include "checks.hpp"
#include "common.hpp"

namespace thalweg::study {

core::Option architectures_option(const std::string& help) {
    return core::objects("architectures",
                         {core::text("name", "in files, figures and tables: lower case, digits, `-`"),
                          core::plugin("model", "model", "instead of the experiment's"),
                          core::number("lr", "of the clients' algorithm, instead of the experiment's")
                              .above(0)
                              .optional(),
                          core::integer("epochs", "instead of the experiment's").at_least(1).optional(),
                          core::integer("samples", "training samples, instead of samples.train; 0: all")
                              .at_least(0)
                              .optional()},
                         help)
        .at_least_items(1);
}

Architecture open_architecture(const core::Value& item, const core::Value& options, Workbench& bench,
                               const std::vector<core::Value>& further) {
    require_name(item["name"]);
    if (item.has("epochs") && steps_in(options) != nullptr)
        item["epochs"].reject("this has no effect beside experiment.clients.steps; leave one of them out");
    std::vector<core::Value> changes{assignment("model", item["model"])};
    if (item.has("lr")) changes.push_back(assignment("clients.algorithm.lr", item["lr"]));
    if (item.has("epochs")) changes.push_back(assignment("clients.epochs", item["epochs"]));
    changes.insert(changes.end(), further.begin(), further.end());
    core::Value samples = options["samples"];
    if (item.has("samples")) samples.set("train", item["samples"]);
    return {label_of(item["name"]), bench.laboratory(options["experiment"], changes, samples)};
}

std::vector<Architecture> open_architectures(const core::Value& options, Workbench& bench) {
    std::vector<Architecture> all;
    for (const auto& item : options["architectures"].items())
        all.push_back(open_architecture(item, options, bench));
    return all;
}

}  // namespace thalweg::study
