#include <torch/types.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <numeric>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "matching_support.hpp"
#include "thalweg/aggregator/exchange.hpp"
#include "thalweg/core/error.hpp"
#include "thalweg/core/interrupt.hpp"
#include "widths.hpp"

namespace thalweg::aggregator {

namespace {

/// For every client the global neuron of each of its own.
using Assignments = std::vector<std::vector<std::int64_t>>;

/// Global neurons of one layer as a Beta-Bernoulli process explains them: each client's neuron is a global one plus normal
/// noise (variance σ²), global ones are normal around 0 (σ₀²), and how many there are is governed by γ.
class NeuronMatching {
  public:
    struct Prior {
        double sigma2, sigma02, gamma;
    };
    NeuronMatching(std::vector<at::Tensor> clients, Prior prior, std::int64_t most)
        : clients_(std::move(clients)), prior_(prior), most_(most), assignments_(clients_.size()) {}

    /// Clients in the order of their sizes, then `sweeps` times in random order, each matched anew to what the others say.
    void run(int sweeps, core::Random& random) {
        std::vector<std::size_t> order(clients_.size());
        std::iota(order.begin(), order.end(), std::size_t{0});
        std::stable_sort(order.begin(), order.end(), [&](std::size_t x, std::size_t y) {
            return clients_[x].size(0) > clients_[y].size(0);
        });
        for (const std::size_t k : order) match(k);
        for (int sweep = 0; sweep < sweeps; ++sweep) {
            for (const std::int64_t next : random.permutation(static_cast<std::int64_t>(clients_.size()))) {
                core::check_interrupt();
                remove(static_cast<std::size_t>(next));
                match(static_cast<std::size_t>(next));
            }
        }
    }
    const Assignments& assignments() const { return assignments_; }
    std::int64_t size() const { return static_cast<std::int64_t>(counts_.size()); }

  private:
    /// What each pair of one of the client's neurons and a global one, or a new one, adds to the log posterior (times 2): the
    /// gain of the fit, and of the popularity. [own, global + new]
    at::Tensor scores(const at::Tensor& own, std::int64_t fresh) const {
        const auto clients = static_cast<double>(clients_.size());
        const at::Tensor w = own / prior_.sigma2;
        std::vector<at::Tensor> columns;
        if (size() > 0) {
            const at::Tensor counts =
                at::tensor(std::vector<double>(counts_.begin(), counts_.end()), at::kDouble);
            const at::Tensor before = counts / prior_.sigma2 + 1 / prior_.sigma02;  // inverse variances
            const at::Tensor after = before + 1 / prior_.sigma2;
            const at::Tensor squares =
                w.square().sum(1, true) + 2 * at::mm(w, sums_.t()) + sums_.square().sum(1).unsqueeze(0);
            at::Tensor known = squares / after.unsqueeze(0) - (sums_.square().sum(1) / before).unsqueeze(0);
            known = known + 2 * (counts / (clients - counts)).log().unsqueeze(0);
            columns.push_back(known);
        }
        if (fresh > 0) {
            const double precision = 1 / prior_.sigma2 + 1 / prior_.sigma02;
            const at::Tensor fit = w.square().sum(1, true) / precision;
            const at::Tensor rank = at::arange(1, fresh + 1, at::kDouble).log().unsqueeze(0);
            columns.push_back(fit - 2 * rank + 2 * std::log(prior_.gamma / clients));
        }
        return at::cat(columns, 1);
    }

    void match(std::size_t k) {
        const at::Tensor& own = clients_[k];
        const std::int64_t n = own.size(0);
        const std::int64_t fresh = std::min(n, std::max(most_, n) - std::min(size(), std::max(most_, n)));
        const at::Tensor score = scores(own, fresh);
        const std::int64_t columns = score.size(1);
        // Square, with rows that take what is left at no cost.
        const at::Tensor square = at::zeros({columns, columns}, at::kDouble);
        square.narrow(0, 0, n).copy_(score);
        symmetry::AssignmentSolver solver;
        const auto chosen = best_assignment(solver, square, "a layer");
        auto& assignment = assignments_[k];
        assignment.clear();
        const std::int64_t before = size();
        std::int64_t next = before;
        std::vector<std::pair<std::int64_t, std::int64_t>> made;  // place among the new ones, own neuron
        for (std::int64_t l = 0; l < n; ++l) {
            const std::int64_t column = chosen[static_cast<std::size_t>(l)];
            assignment.push_back(column);
            if (column >= before) made.emplace_back(column, l);
        }
        std::sort(made.begin(), made.end());
        std::vector<at::Tensor> grown{sums_.defined() ? sums_ : at::zeros({0, own.size(1)}, at::kDouble)};
        for (const auto& [column, l] : made) {
            assignment[static_cast<std::size_t>(l)] = next++;
            counts_.push_back(0);
            grown.push_back(at::zeros({1, own.size(1)}, at::kDouble));
        }
        sums_ = at::cat(grown, 0);
        for (std::int64_t l = 0; l < n; ++l) add(assignment[static_cast<std::size_t>(l)], own[l], 1);
    }

    void add(std::int64_t global, const at::Tensor& neuron, int sign) {
        sums_[global].add_(neuron / prior_.sigma2, sign);
        counts_[static_cast<std::size_t>(global)] += sign;
    }

    /// Forgets a client; global neurons that only it had go, and the numbers of those behind them fall.
    void remove(std::size_t k) {
        for (std::size_t l = 0; l < assignments_[k].size(); ++l)
            add(assignments_[k][l], clients_[k][static_cast<std::int64_t>(l)], -1);
        std::vector<std::int64_t> number(counts_.size(), -1), kept;
        for (std::size_t i = 0; i < counts_.size(); ++i) {
            if (counts_[i] == 0) continue;
            number[i] = static_cast<std::int64_t>(kept.size());
            kept.push_back(static_cast<std::int64_t>(i));
        }
        sums_ = sums_.index_select(0, at::tensor(kept, at::kLong));
        std::vector<std::int64_t> counts;
        for (const std::int64_t i : kept) counts.push_back(counts_[static_cast<std::size_t>(i)]);
        counts_ = counts;
        for (std::size_t j = 0; j < assignments_.size(); ++j) {
            if (j == k) continue;
            for (std::int64_t& i : assignments_[j]) i = number[static_cast<std::size_t>(i)];
        }
        assignments_[k].clear();
    }

    std::vector<at::Tensor> clients_;
    Prior prior_;
    std::int64_t most_;
    Assignments assignments_;
    std::vector<std::int64_t> counts_;
    at::Tensor sums_;  ///< Σ w ÷ σ² of the neurons assigned; the prior's mean is 0
};

/// What the clients' neurons are matched in: an architecture with room for as many global neurons as there may be.
Architecture room_for(const FusionContext& context, const std::vector<std::int64_t>& sizes) {
    Architecture room{context.graph, context.symmetries};
    bool same = true;
    for (std::size_t g = 0; g < sizes.size(); ++g)
        same = same && sizes[g] == context.symmetries.groups[g].size;
    if (same) return room;
    core::Value spec = context.graph.spec;
    if (!spec.has("kind") || spec["kind"].as_text() != "mlp" ||
        spec["hidden"].items().size() != sizes.size()) {
        throw core::RunError(
            "matched_averaging can let the global model grow only where the architecture is an mlp, whose "
            "widths it "
            "can write anew; set grow: false for " +
            context.graph.summary());
    }
    core::Value hidden = core::Value::list();
    for (const std::int64_t size : sizes) hidden.items().push_back(core::Value::of(size));
    spec.set("hidden", hidden);
    room.graph = model::build_model_from_spec(spec);
    room.symmetries = symmetry::derive(room.graph);
    return room;
}

/// A client's place in the matching: how its model is carried into the room.
struct Client {
    const model::ModelGraph& graph;
    symmetry::Symmetries symmetries;
    model::Parameters parameters;
};

/// [to, from], 1 where a neuron has gone.
at::Tensor placed(const std::vector<std::int64_t>& assignment, std::int64_t to) {
    const at::Tensor matrix = at::zeros({to, static_cast<std::int64_t>(assignment.size())}, at::kDouble);
    return matrix.scatter_(0, at::tensor(assignment, at::kLong).unsqueeze(0), 1.0);
}

/// By group, every client's assignment; and how many global neurons there are. On one rank.
struct Matched {
    std::vector<Assignments> assignments;
    std::vector<std::int64_t> sizes;
};

Matched match_neurons(const std::vector<Client>& clients, const Architecture& room,
                      const std::vector<std::int64_t>& most, const NeuronMatching::Prior& prior, int sweeps,
                      core::Random& random) {
    const std::size_t groups = room.symmetries.groups.size();
    Matched result{std::vector<Assignments>(groups), std::vector<std::int64_t>(groups, 0)};
    std::vector<Widths> widths;
    widths.reserve(clients.size());
    for (const Client& client : clients)
        widths.emplace_back(client.graph, client.symmetries, room.graph, room.symmetries);
    std::vector<std::vector<Widths::Plan>> plans(clients.size(), std::vector<Widths::Plan>(groups));
    std::vector<bool> known(groups, false);
    for (const std::size_t g : widths.front().order()) {
        core::check_interrupt();
        std::vector<at::Tensor> features;
        for (std::size_t k = 0; k < clients.size(); ++k) {
            features.push_back(widths[k].features_of_from(clients[k].parameters, g, plans[k], known));
            if (!features.back().defined())
                features.back() = at::zeros({clients[k].symmetries.groups[g].size, 1}, at::kDouble);
        }
        NeuronMatching matching(std::move(features), prior, most[g]);
        matching.run(sweeps, random);
        result.assignments[g] = matching.assignments();
        result.sizes[g] = matching.size();
        for (std::size_t k = 0; k < clients.size(); ++k) {
            const at::Tensor matrix = placed(result.assignments[g][k], room.symmetries.groups[g].size);
            plans[k][g] = {matrix, matrix};
        }
        known[g] = true;
    }
    return result;
}

/// From rank 0 to all: the sizes, then the assignments client by client.
void broadcast(Matched& matched, const std::vector<Client>& clients, core::Communicator& communicator) {
    std::vector<std::int64_t> flat;
    if (communicator.rank() == 0) {
        flat = matched.sizes;
        for (const auto& of_group : matched.assignments) {
            for (const auto& assignment : of_group)
                flat.insert(flat.end(), assignment.begin(), assignment.end());
        }
    } else {
        std::size_t length = matched.sizes.size();
        for (const Client& client : clients) {
            for (const auto& group : client.symmetries.groups) length += static_cast<std::size_t>(group.size);
        }
        flat.resize(length);
    }
    communicator.broadcast(std::as_writable_bytes(std::span(flat)), 0);
    auto from = flat.begin();
    for (auto& size : matched.sizes) size = *from++;
    for (std::size_t g = 0; g < matched.assignments.size(); ++g) {
        matched.assignments[g].resize(clients.size());
        for (std::size_t k = 0; k < clients.size(); ++k) {
            const auto size = static_cast<std::ptrdiff_t>(clients[k].symmetries.groups[g].size);
            matched.assignments[g][k].assign(from, from + size);
            from += size;
        }
    }
}

/// How client k's channels are carried to the global neurons; and with ones in place of its model, which of those it has.
struct Places {
    std::vector<Widths::Plan> plans, presence;
};

Places places_of(const Matched& matched, std::size_t k, const Architecture& architecture) {
    Places places;
    for (std::size_t g = 0; g < matched.assignments.size(); ++g) {
        const std::int64_t size = architecture.symmetries.groups[g].size;
        const at::Tensor matrix = placed(matched.assignments[g][k], size);
        places.plans.push_back({matrix, matrix});
        // A channel it does not have is missing where it is made; what reads it counts, as zero.
        places.presence.push_back({matrix, at::full({size, matrix.size(1)},
                                                    1.0 / static_cast<double>(matrix.size(1)), at::kDouble)});
    }
    return places;
}

/// By entry, the running statistics of every global neuron as the clients that have it say, each by its samples (0 and 1
/// where nobody has it): masks cover trainable entries only, and a client without the neuron must not pull its statistics
/// anywhere. Undefined for other entries.
std::vector<at::Tensor> common_statistics(const std::vector<Client>& clients,
                                          const std::vector<Member>& members, const Matched& matched,
                                          const Architecture& architecture) {
    const auto& entries = architecture.graph.layout->entries();
    const bool any_samples =
        std::any_of(members.begin(), members.end(), [](const Member& member) { return member.samples > 0; });
    const auto w = weights(members, any_samples ? Weighting::samples : Weighting::uniform);
    std::vector<at::Tensor> sums(entries.size()), voices(entries.size());
    for (std::size_t k = 0; k < clients.size(); ++k) {
        const Widths widths(clients[k].graph, clients[k].symmetries, architecture.graph,
                            architecture.symmetries);
        const Places places = places_of(matched, k, architecture);
        for (std::size_t i = 0; i < entries.size(); ++i) {
            if (entries[i].trainable) continue;
            const at::Tensor own = clients[k].parameters.view(i);
            const at::Tensor has = widths.carried(at::ones_like(own), i, places.presence) * w[k];
            const at::Tensor value = widths.carried(own, i, places.plans) * w[k];
            sums[i] = sums[i].defined() ? sums[i].add_(value) : value;
            voices[i] = voices[i].defined() ? voices[i].add_(has) : has;
        }
    }
    for (std::size_t i = 0; i < entries.size(); ++i) {
        if (!sums[i].defined()) continue;
        const double nobody = entries[i].role == model::Role::running_var ? 1.0 : 0.0;
        sums[i] = at::where(voices[i].gt(0), sums[i] / voices[i], at::full_like(sums[i], nobody));
    }
    return sums;
}

/// Matched averaging (FedMA, Wang et al., ICLR 2020, with the score of PFNM, Yurochkin et al., ICML 2019): from input to
/// output, the clients' neurons are assigned to global ones by the Beta-Bernoulli score, one Hungarian assignment a client,
/// until they settle; neurons that fit no other become new ones. Every update is brought to the global widths: what it has
/// no neuron for is left out of the mean on the side that makes the channel (by a mask) and counts as zero on the side that
/// reads it, as in the source. Running statistics of channels that a client lacks are what the others' mean says. Follow it
/// by `mean`.
///
/// `grow`: the global model may have more neurons than the round's architecture, which `fuse` and one-shot comparisons can
/// deal with; otherwise no more than that, or than the widest client has. Fewer are never used: places that stay empty are
/// filled with dead neurons. Departures: the source retrains between layers (its clients hold what is matched and train
/// the rest); one-shot matching without it is the earlier PFNM, applied to any graph.
class MatchedAveraging final : public Stage {
  public:
    explicit MatchedAveraging(const core::Value& options)
        : prior_{options["sigma2"].as_number(), options["sigma02"].as_number(), options["gamma"].as_number()},
          sweeps_(static_cast<int>(options["sweeps"].as_int())),
          grows_(options["grow"].as_bool()) {}

    StageTraits traits() const override {
        return {.kind = StageKind::cross_update,
                .permutes = true,
                .changes_frame = true,
                .takes_any_width = true,
                .grows = grows_,
                .sets_mask = true};
    }

    StageNotes apply(FusionState& state, const FusionContext& context) const override;

  private:
    static void carry(Update& update, const Client& client, std::size_t k, const Matched& matched,
                      const Architecture& architecture, const std::vector<at::Tensor>& statistics);

    NeuronMatching::Prior prior_;
    int sweeps_;
    bool grows_;
};

StageNotes MatchedAveraging::apply(FusionState& state, const FusionContext& context) const {
    const auto updates = gather_updates(state, context);
    const std::size_t groups = context.symmetries.groups.size();
    std::vector<Client> clients;
    std::vector<std::int64_t> most(groups, 0);
    const auto room = core::collectively(context.communicator, [&] {
        for (const Update& update : updates) {
            const auto& graph = update.graph ? *update.graph : context.graph;
            clients.push_back(
                {graph, update.graph ? symmetry::derive(graph) : context.symmetries, update.parameters});
            if (clients.back().symmetries.groups.size() != groups)
                Widths(graph, clients.back().symmetries, context.graph,
                       context.symmetries);  // says what differs
            for (std::size_t g = 0; g < groups; ++g) {
                const std::int64_t size = clients.back().symmetries.groups[g].size;
                most[g] = grows_ ? most[g] + size : std::max(most[g], size);
                if (context.symmetries.groups[g].blocks > 1) {
                    throw core::RunError(
                        "the channels of " + context.symmetries.groups[g].name +
                        " lie in blocks (heads, grouped convolutions), which matched_averaging cannot "
                        "assign one by one; use weight_matching or merge_many");
                }
            }
        }
        for (std::size_t g = 0; g < groups; ++g) {
            const std::int64_t own = context.symmetries.groups[g].size;
            if (grows_) {
                most[g] = std::max(most[g], own);
            } else if (most[g] > own) {
                throw core::RunError("a client has " + std::to_string(most[g]) + " channels of " +
                                     context.symmetries.groups[g].name + " and the global model room for " +
                                     std::to_string(own) +
                                     "; give it the width of the widest client, or set grow: true");
            } else {
                most[g] = own;
            }
        }
        return room_for(context, most);
    });
    Matched matched{std::vector<Assignments>(groups), std::vector<std::int64_t>(groups, 0)};
    core::collectively(context.communicator, [&] {
        if (context.communicator.rank() != 0) return;
        core::Random random(context.seed, "matched_averaging", context.round);
        matched = match_neurons(clients, room, most, prior_, sweeps_, random);
    });
    broadcast(matched, clients, context.communicator);
    core::collectively(context.communicator, [&] {
        std::vector<std::int64_t> sizes;
        for (std::size_t g = 0; g < groups; ++g)
            sizes.push_back(std::max(matched.sizes[g], context.symmetries.groups[g].size));
        auto architecture = std::make_shared<Architecture>(room_for(context, sizes));
        const auto statistics = common_statistics(clients, context.members, matched, *architecture);
        std::size_t next = 0;
        for (std::size_t k = 0; k < clients.size(); ++k) {
            if (context.members[k].owner != context.communicator.rank()) continue;
            carry(state.updates[next++], clients[k], k, matched, *architecture, statistics);
        }
        if (grows_) state.architecture = std::move(architecture);
    });
    StageNotes notes;
    for (std::size_t g = 0; g < groups; ++g)
        notes.emplace_back("neurons " + context.symmetries.groups[g].name,
                           static_cast<double>(matched.sizes[g]));
    return notes;
}

/// The update in the global neurons' places, and the mask of what it has.
void MatchedAveraging::carry(Update& update, const Client& client, std::size_t k, const Matched& matched,
                             const Architecture& architecture, const std::vector<at::Tensor>& statistics) {
    const Widths widths(client.graph, client.symmetries, architecture.graph, architecture.symmetries);
    const Places places = places_of(matched, k, architecture);
    model::Parameters ones = client.parameters.clone();
    ones.values.fill_(1);
    const model::Parameters present = widths.carried(ones, places.presence);
    update.parameters = widths.carried(client.parameters, places.plans);
    update.mask = present.trainable().gt(0.5).contiguous();
    for (std::size_t i = 0; i < statistics.size(); ++i) {
        if (!statistics[i].defined()) continue;
        const at::Tensor own = update.parameters.view(i);
        own.copy_(at::where(present.view(i).gt(0.5), own.to(at::kDouble), statistics[i]));
    }
    update.graph = nullptr;
    update.start = model::Parameters();  // stays behind, in another frame
}

const StageRegistration matched_averaging_registration{
    {.kind = "stage",
     .name = "matched_averaging",
     .help = "assigns all clients' neurons to global ones, which may be more than any client has; then mean",
     .citation =
         "Wang et al., Federated Learning with Matched Averaging, ICLR 2020; Yurochkin et al., Bayesian "
         "Nonparametric Federated Learning of Neural Networks, ICML 2019",
     .options =
         {core::boolean("grow",
                        "the global model may get more neurons than the configured one (mlp; one shot only)")
              .by_default(false),
          core::number("sigma2", "variance of a client's neuron around its global one")
              .above(0)
              .by_default(1),
          core::number("sigma02", "variance of global neurons around 0").above(0).by_default(1),
          core::number("gamma", "readiness to make new global neurons").above(0).by_default(7),
          core::integer("sweeps", "passes over the clients after the first").at_least(0).by_default(5)},
     .cost = "O(K · L² · fan) and K assignments of L global neurons a layer and sweep, on one rank, which "
             "holds the "
             "cohort"},
    [](const core::Value& options) { return std::make_unique<MatchedAveraging>(options); }};

}  // namespace

}  // namespace thalweg::aggregator
