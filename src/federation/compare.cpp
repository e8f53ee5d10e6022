#include "thalweg/federation/compare.hpp"

#include <algorithm>
#include <boost/math/distributions/students_t.hpp>
#include <cmath>
#include <limits>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <utility>

#include "ensemble.hpp"
#include "thalweg/aggregator/exchange.hpp"
#include "thalweg/analysis/measures.hpp"
#include "thalweg/core/error.hpp"
#include "thalweg/federation/cohort.hpp"
#include "thalweg/federation/measure.hpp"
#include "thalweg/record/json.hpp"

namespace thalweg::federation {

namespace {

using record::Json;
constexpr double none = std::numeric_limits<double>::quiet_NaN();

bool has_widths(const aggregator::FusionState& state) {
    return std::any_of(state.updates.begin(), state.updates.end(),
                       [](const auto& update) { return update.graph != nullptr; });
}

CompareRow failed_row(std::uint64_t seed, std::int64_t round, std::size_t pipeline, std::string error) {
    return {seed, round, static_cast<std::int64_t>(pipeline), none, none, none, none, none, std::move(error)};
}

/// What the clients started from, on every rank. Collective.
void gather_starts(std::vector<aggregator::Update>& all, const aggregator::FusionState& state,
                   const aggregator::FusionContext& context) {
    std::size_t next = 0;
    for (std::size_t k = 0; k < all.size(); ++k) {
        const auto& member = context.members[k];
        const bool is_mine = member.owner == context.communicator.rank();
        all[k].start =
            aggregator::broadcast_parameters(is_mine ? state.updates[next++].start : model::Parameters(),
                                             member.owner, context, aggregator::layout_of(member, context));
    }
}

/// One seed of the comparison: data, clients and the trajectories.
class Repetition {
  public:
    Repetition(Experiment experiment, const CompareOptions& options,
               std::vector<aggregator::Pipeline>& pipelines, core::Communicator& communicator);
    void run(Comparison& comparison, record::Progress& progress, std::int64_t repetition);

  private:
    /// A global model that goes from round to round by one pipeline.
    struct Trajectory {
        model::Parameters global;
        std::size_t followed = 0;
        std::unique_ptr<ServerStep> server;
        std::string error;  ///< why it ended
    };
    /// Trajectories whose clients start alike, and the pipelines that are applied to these clients' updates.
    struct Shared {
        std::vector<std::size_t> trajectories, applied;
    };
    std::vector<Shared> shared_in(std::int64_t round) const;
    void round(std::int64_t round, const Shared& shared, Comparison& comparison,
               const Cohort::Progress& progress);
    std::vector<CompareRow> apply(const Shared& shared, const model::Parameters& global,
                                  const std::vector<aggregator::Update>& updates,
                                  const std::vector<aggregator::Member>& members, std::int64_t round,
                                  std::map<std::size_t, model::Parameters>& wanted) const;
    void step(std::int64_t round, Trajectory& trajectory, const model::Parameters& fused, CompareRow& row);
    bool each() const { return options_.follow < 0; }
    CompareRow apply(std::size_t pipeline, const aggregator::FusionContext& context,
                     aggregator::FusionState& state) const;
    std::vector<CompareRow> gather(const std::vector<CompareRow>& own, std::int64_t round) const;
    double mean_barrier(const aggregator::FusionState& state, const aggregator::FusionContext& context) const;

    Experiment experiment_;
    const CompareOptions& options_;
    std::vector<aggregator::Pipeline>& pipelines_;
    core::Communicator& communicator_;
    Setting setting_;
    std::unique_ptr<data::FederatedData> data_;
    std::unique_ptr<Cohort> cohort_;
    std::vector<Trajectory> trajectories_;
};

Repetition::Repetition(Experiment experiment, const CompareOptions& options,
                       std::vector<aggregator::Pipeline>& pipelines, core::Communicator& communicator)
    : experiment_(std::move(experiment)),
      options_(options),
      pipelines_(pipelines),
      communicator_(communicator),
      setting_(open_setting(experiment_, communicator)) {
    core::collectively(communicator_, [&] {
        const bool permutes = std::any_of(pipelines_.begin(), pipelines_.end(),
                                          [](const aggregator::Pipeline& p) { return p.permutes(); });
        if (communicator_.rank() == 0 && permutes)
            symmetry::require_proof(setting_.graph, setting_.symmetries);
        data_ = std::make_unique<data::FederatedData>(
            setting_.dataset, experiment_.config["data"]["partition"], experiment_.holdout, experiment_.seed);
        cohort_ = std::make_unique<Cohort>(experiment_, setting_, *data_, communicator_);
        for (std::size_t t = 0; t < (each() ? pipelines_.size() : 1); ++t) {
            Trajectory trajectory;
            if (!experiment_.independent_initialisation)
                trajectory.global = initial_model(setting_.graph, experiment_.seed, -1);
            trajectory.followed = each() ? t : static_cast<std::size_t>(options_.follow);
            require_next_rounds(experiment_, pipelines_[trajectory.followed], setting_.graph);
            trajectory.server = std::make_unique<ServerStep>(experiment_, setting_, communicator_);
            trajectories_.push_back(std::move(trajectory));
        }
    });
}

/// In round 1 all start alike, so that one training does for all pipelines.
std::vector<Repetition::Shared> Repetition::shared_in(std::int64_t round) const {
    std::vector<Shared> result;
    for (std::size_t t = 0; t < trajectories_.size(); ++t) {
        if (result.empty() || round > 1) result.emplace_back();
        result.back().trajectories.push_back(t);
        if (each()) result.back().applied.push_back(trajectories_[t].followed);
    }
    for (std::size_t p = 0; !each() && p < pipelines_.size(); ++p) result.front().applied.push_back(p);
    return result;
}

void Repetition::run(Comparison& comparison, record::Progress& progress, std::int64_t repetition) {
    for (std::int64_t r = 1; r <= experiment_.rounds; ++r) {
        const auto all = shared_in(r);
        const auto count = static_cast<double>(all.size());
        for (std::size_t i = 0; i < all.size(); ++i) {
            const double before =
                static_cast<double>(repetition * experiment_.rounds + r - 1) + static_cast<double>(i) / count;
            round(r, all[i], comparison, [&](double fraction, const std::string& what) {
                progress.update(before + 0.8 * fraction / count,
                                "seed " + std::to_string(experiment_.seed) + ", " + what);
            });
        }
    }
}

void Repetition::round(std::int64_t round, const Shared& shared, Comparison& comparison,
                       const Cohort::Progress& progress) {
    Trajectory& first = trajectories_[shared.trajectories.front()];
    if (!first.error.empty()) {  // it has ended alone: what starts alike has not stepped yet
        comparison.rows.push_back(failed_row(experiment_.seed, round, first.followed, first.error));
        return;
    }
    const bool keep_start = std::any_of(pipelines_.begin(), pipelines_.end(),
                                        [](const aggregator::Pipeline& p) { return p.needs_start(); });
    auto cohort = cohort_->train(round, first.global, keep_start, progress);
    progress(1, "fusing");
    const model::Parameters global = first.global;
    const aggregator::FusionContext context{.graph = setting_.graph,
                                            .symmetries = setting_.symmetries,
                                            .communicator = communicator_,
                                            .seed = experiment_.seed,
                                            .round = round,
                                            .members = cohort.members,
                                            .global = global.defined() ? &global : nullptr};
    const aggregator::FusionState state{.updates = std::move(cohort.updates), .merged = {}};
    const auto score = score_ensemble(state, context, *data_->test());
    CompareMarks marks{
        experiment_.seed, round, static_cast<std::int64_t>(first.followed), {}, score.ensemble};
    for (const auto& client : score.clients) marks.clients.push_back(client.accuracy);
    comparison.marks.push_back(std::move(marks));
    auto all = aggregator::gather_updates(state, context);
    if (keep_start) gather_starts(all, state, context);
    std::map<std::size_t, model::Parameters> wanted;
    for (const std::size_t t : shared.trajectories) wanted[trajectories_[t].followed] = {};
    auto rows = apply(shared, global, all, cohort.members, round, wanted);
    for (const std::size_t t : shared.trajectories) {
        Trajectory& trajectory = trajectories_[t];
        const auto row = std::find_if(rows.begin(), rows.end(), [&](const CompareRow& candidate) {
            return candidate.pipeline == static_cast<std::int64_t>(trajectory.followed);
        });
        step(round, trajectory, wanted[trajectory.followed], *row);
    }
    for (auto& row : rows) comparison.rows.push_back(std::move(row));
}

/// The server's step from the model that the trajectory's pipeline has made.
void Repetition::step(std::int64_t round, Trajectory& trajectory, const model::Parameters& fused,
                      CompareRow& row) {
    const bool is_last = round == experiment_.rounds;
    const std::string& text = options_.pipelines[trajectory.followed];
    if (!row.error.empty()) {
        trajectory.error = "it could not be run in round " + std::to_string(round);
        if (is_last || each()) return;
        throw core::RunError("round " + std::to_string(round + 1) + " would start from what " + text +
                             " makes, and it cannot be run: " + row.error +
                             "; follow another pipeline, or `each`");
    }
    const bool optimizes = experiment_.config["server"]["optimizer"]["kind"].as_text() != "none";
    if (!fused.defined() || (is_last && !(each() && optimizes))) return;
    aggregator::FusionState state{.updates = {}, .merged = fused};
    trajectory.server->apply(round, pipelines_[trajectory.followed], state, trajectory.global);
    if (!each() || !optimizes) return;
    const auto score = analysis::evaluate(setting_.graph, trajectory.global, *data_->test(), communicator_);
    row.accuracy = score.accuracy;
    row.loss = score.loss;
}

/// The shared pipelines, each on one rank; the models of the wanted ones go to all.
std::vector<CompareRow> Repetition::apply(const Shared& shared, const model::Parameters& global,
                                          const std::vector<aggregator::Update>& updates,
                                          const std::vector<aggregator::Member>& members, std::int64_t round,
                                          std::map<std::size_t, model::Parameters>& wanted) const {
    core::SelfCommunicator alone;
    std::vector<aggregator::Member> here = members;
    for (auto& member : here) member.owner = 0;
    const auto& graph = setting_.graph;
    const int ranks = communicator_.size();
    const auto rank_of = [&](std::size_t p) { return static_cast<int>(p % static_cast<std::size_t>(ranks)); };
    std::vector<CompareRow> own;
    core::collectively(communicator_, [&] {
        std::unique_ptr<aggregator::StatisticsSource> server;
        if (data_->holdout()) server = aggregator::server_statistics(graph, data_->holdout(), alone);
        const auto clients = aggregator::client_statistics(
            graph, [this](std::int64_t client) { return data_->client(client); }, alone, 0);
        const aggregator::FusionContext context{.graph = graph,
                                                .symmetries = setting_.symmetries,
                                                .communicator = alone,
                                                .seed = experiment_.seed,
                                                .round = round,
                                                .members = here,
                                                .global = global.defined() ? &global : nullptr,
                                                .server = server.get(),
                                                .clients = clients.get(),
                                                .holdout = data_->holdout()};
        for (const std::size_t p : shared.applied) {
            if (rank_of(p) != communicator_.rank()) continue;
            aggregator::FusionState state{.updates = updates, .merged = {}};
            own.push_back(apply(p, context, state));
            // Of another architecture it is evaluated, and nothing goes on from it (see require_fitting).
            if (wanted.contains(p) && own.back().error.empty() && !state.architecture)
                wanted[p] = state.merged;
        }
    });
    auto rows = gather(own, round);
    const aggregator::FusionContext all{
        .graph = graph, .symmetries = setting_.symmetries, .communicator = communicator_, .members = members};
    for (const std::size_t p : shared.applied) {
        const auto model = wanted.find(p);
        if (model == wanted.end()) continue;
        std::byte is_there{static_cast<unsigned char>(model->second.defined() ? 1 : 0)};
        communicator_.broadcast({&is_there, 1}, rank_of(p));
        if (is_there != std::byte{0})
            model->second = aggregator::broadcast_parameters(model->second, rank_of(p), all);
    }
    return rows;
}

/// All ranks' rows, by pipeline. Collective.
std::vector<CompareRow> Repetition::gather(const std::vector<CompareRow>& own, std::int64_t round) const {
    Json mine = Json::array();
    for (const auto& row : own) {
        mine.push_back(
            {row.pipeline, row.accuracy, row.loss, row.barrier, row.variance_ratio, row.seconds, row.error});
    }
    std::vector<CompareRow> rows;
    const auto number = [](const Json& json) { return json.is_number() ? json.get<double>() : none; };
    // What a failure says may hold a file's name, and a file's name any bytes.
    const std::string text = record::json_text(mine);
    for (const auto& bytes : communicator_.all_gather(std::as_bytes(std::span(text)))) {
        for (const auto& item :
             Json::parse(std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size()))) {
            rows.push_back({experiment_.seed, round, item[0].get<std::int64_t>(), number(item[1]),
                            number(item[2]), number(item[3]), number(item[4]), number(item[5]),
                            item[6].get<std::string>()});
        }
    }
    std::sort(rows.begin(), rows.end(),
              [](const CompareRow& a, const CompareRow& b) { return a.pipeline < b.pipeline; });
    return rows;
}

CompareRow Repetition::apply(std::size_t p, const aggregator::FusionContext& context,
                             aggregator::FusionState& state) const {
    const auto& pipeline = pipelines_[p];
    CompareRow row = failed_row(experiment_.seed, context.round, p, {});
    aggregator::FusionContext alike = context;  // once a stage has brought all to one width
    for (auto& member : alike.members) member.graph = nullptr;
    double measuring = 0;
    try {
        if (pipeline.reduction() == 0 && !has_widths(state)) row.barrier = mean_barrier(state, context);
        const record::Stopwatch watch;
        pipeline.run(state, context, [&](std::size_t index, const aggregator::FusionState& now) {
            const record::Stopwatch measured;
            // Of the round's own architecture and widths; a model that has grown is only evaluated.
            if (now.architecture || has_widths(now)) return;
            if (index + 1 == pipeline.reduction()) row.barrier = mean_barrier(now, alike);
            if (index == pipeline.reduction() && context.server != nullptr) {
                double sum = 0, count = 0;
                for (const auto& [layer, ratio] :
                     analysis::variance_ratio(now.merged, now, alike, *context.server, now.weights)) {
                    sum += ratio;
                    count += 1;
                }
                if (count > 0) row.variance_ratio = sum / count;
            }
            measuring += measured.seconds();
        });
        row.seconds = watch.seconds() - measuring;
        const auto& graph = state.architecture ? state.architecture->graph : setting_.graph;
        const auto score = analysis::evaluate_alone(graph, state.merged, *data_->test());
        row.accuracy = score.accuracy;
        row.loss = score.loss;
    } catch (const core::Interrupted&) {
        throw;
    } catch (const core::Error& error) {  // the other pipelines may well go on
        return failed_row(experiment_.seed, context.round, p, error.what());
    } catch (const std::exception& error) {
        return failed_row(experiment_.seed, context.round, p, core::as_error(error).what());
    }
    return row;
}

/// Error barriers between sampled pairs, at five points on the first two thousand test samples: the measure `barrier` with
/// its defaults, on fewer pairs.
double Repetition::mean_barrier(const aggregator::FusionState& state,
                                const aggregator::FusionContext& context) const {
    const auto pairs = sample_pairs(context, options_.barrier_pairs);
    if (pairs.empty()) return none;
    const auto test = data_->test();
    std::vector<std::uint32_t> first(static_cast<std::size_t>(std::min<std::int64_t>(2000, test->size())));
    for (std::size_t i = 0; i < first.size(); ++i) first[i] = static_cast<std::uint32_t>(i);
    const data::Subset samples(test, std::move(first));
    double sum = 0;
    for (const auto& [a, b] : pairs) {
        sum += analysis::barrier(setting_.graph, state.updates[a].parameters, state.updates[b].parameters,
                                 samples, 5, context.communicator)
                   .error_barrier;
    }
    return sum / static_cast<double>(pairs.size());
}

}  // namespace

Comparison compare(const Experiment& experiment, const CompareOptions& options,
                   core::Communicator& communicator) {
    std::vector<aggregator::Pipeline> pipelines;
    core::collectively(communicator, [&] {
        if (options.pipelines.empty()) {
            throw core::UsageError(
                "compare needs pipelines: --pipelines \"mean; weight_matching+mean; "
                "merge_many+mean+repair\", or the "
                "list compare.pipelines in the configuration");
        }
        for (const auto& text : options.pipelines) {
            pipelines.push_back(aggregator::Pipeline::parse(text));
            try {
                require_fitting(experiment, pipelines.back());
            } catch (const core::UsageError& error) {
                throw core::UsageError("the pipeline '" + text + "': " + error.what());
            }
        }
        if (options.follow >= static_cast<std::int64_t>(pipelines.size()))
            throw std::logic_error("compare: there is no such pipeline to follow");
    });
    Comparison comparison;
    record::Progress progress(options.progress && communicator.rank() == 0, options.seeds * experiment.rounds,
                              "round");
    for (std::int64_t i = 0; i < options.seeds; ++i) {
        Experiment of_seed = experiment;
        of_seed.seed = experiment.seed + static_cast<std::uint64_t>(i);
        of_seed.config.set("seed", core::Value::of(static_cast<std::int64_t>(of_seed.seed)));
        Repetition repetition(std::move(of_seed), options, pipelines, communicator);
        repetition.run(comparison, progress, i);
        if (options.after_seed) options.after_seed(comparison);
    }
    progress.finish();
    return comparison;
}

Spread spread_of(const std::vector<double>& values) {
    Spread spread{none, none, 0};
    double sum = 0, squares = 0;
    for (const double value : values) {
        if (std::isnan(value)) continue;
        sum += value;
        ++spread.count;
    }
    if (spread.count == 0) return spread;
    const auto n = static_cast<double>(spread.count);
    spread.mean = sum / n;
    if (spread.count < 2) return spread;
    for (const double value : values) {
        if (!std::isnan(value)) squares += (value - spread.mean) * (value - spread.mean);
    }
    spread.error = std::sqrt(squares / (n - 1) / n);
    return spread;
}

PairedDifference paired_difference(const std::vector<double>& values, const std::vector<double>& reference) {
    if (values.size() != reference.size())
        throw std::logic_error("paired differences of lists of two lengths");
    std::vector<double> differences;
    for (std::size_t i = 0; i < values.size(); ++i) differences.push_back(values[i] - reference[i]);
    const auto spread = spread_of(differences);
    if (spread.count < 2) return {spread.mean, none, none};
    const boost::math::students_t distribution(static_cast<double>(spread.count - 1));
    const double reach = boost::math::quantile(distribution, 0.975) * spread.error;
    return {spread.mean, spread.mean - reach, spread.mean + reach};
}

}  // namespace thalweg::federation
