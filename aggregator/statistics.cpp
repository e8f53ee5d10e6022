#include "thalweg/aggregator/statistics.hpp"

#include <torch/types.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <stdexcept>
#include <string>
#include <variant>

#include "moments.hpp"
#include "thalweg/aggregator/exchange.hpp"
#include "thalweg/core/error.hpp"
#include "thalweg/core/interrupt.hpp"
#include "thalweg/model/interpreter.hpp"

namespace thalweg::aggregator {

namespace {

/// Chunks that `samples` are run through the graph in, model::samples_at_once each.
std::int64_t chunks_of(const data::SampleSet& samples, const model::ModelGraph& graph) {
    const std::int64_t at_once = model::samples_at_once(graph);
    return (samples.size() + at_once - 1) / at_once;
}

/// The first samples of a set.
class Prefix final : public data::SampleSet {
  public:
    Prefix(std::shared_ptr<const data::SampleSet> base, std::int64_t size)
        : base_(std::move(base)), size_(size) {}
    std::int64_t size() const override { return size_; }
    std::int64_t label(std::int64_t index) const override { return base_->label(index); }
    std::int64_t width() const override { return base_->width(); }
    void gather(std::span<const std::int64_t> indices, float* x, std::int64_t* y) const override {
        base_->gather(indices, x, y);
    }

  private:
    std::shared_ptr<const data::SampleSet> base_;
    std::int64_t size_;
};

std::shared_ptr<const data::SampleSet> limited_to(std::shared_ptr<const data::SampleSet> samples,
                                                  std::int64_t limit) {
    if (limit == 0 || limit >= samples->size()) return samples;
    return std::make_shared<Prefix>(std::move(samples), limit);
}

/// Moments of the chunks first, first + stride, …, handed to `use` one chunk after another.
void chunk_moments(
    const model::ModelGraph& graph, const model::Parameters& parameters, const data::SampleSet& samples,
    const std::vector<MomentPoint>& points, const StatisticsSource::Mend& mend, std::int64_t first,
    std::int64_t stride,
    const std::function<void(std::int64_t chunk, const std::vector<ChannelMoments>& moments)>& use) {
    if (points.empty()) return;
    const auto point_at = [&](std::size_t operation) {
        const auto found = std::lower_bound(
            points.begin(), points.end(), operation,
            [](const MomentPoint& point, std::size_t value) { return point.operation < value; });
        const bool hit = found != points.end() && found->operation == operation;
        return hit ? static_cast<std::size_t>(found - points.begin()) : points.size();
    };
    const auto views = model::views(parameters);
    for_each_batch(
        samples, graph.input_shape(),
        [&](std::int64_t chunk, const at::Tensor& x, const at::Tensor&) {
            std::vector<ChannelMoments> moments(points.size());
            const auto edit = [&](std::size_t operation, const std::vector<at::Tensor>& inputs,
                                  const at::Tensor& output) {
                const std::size_t i = point_at(operation);
                if (i == points.size()) return output;
                const bool of_input =
                    mend && std::holds_alternative<model::BatchNorm>(graph.operations[operation].kind);
                moments[i].add((of_input ? inputs.front() : output).movedim(points[i].axis, 1));
                return mend ? mend(i, inputs, output, moments[i]) : output;
            };
            model::forward_edited(graph, views, parameters.is_double() ? x.to(at::kDouble) : x, edit,
                                  points.back().operation);
            use(chunk, moments);
        },
        model::samples_at_once(graph), first, stride);
}

/// All chunks on this rank. Chunk by chunk and then summed, as of_merged does: the same model has the same bits.
std::vector<ChannelMoments> all_moments(const model::ModelGraph& graph, const model::Parameters& parameters,
                                        const data::SampleSet& samples,
                                        const std::vector<MomentPoint>& points,
                                        const StatisticsSource::Mend& mend = {}) {
    std::vector<ChannelMoments> total(points.size());
    chunk_moments(graph, parameters, samples, points, mend, 0, 1,
                  [&](std::int64_t, const std::vector<ChannelMoments>& moments) {
                      for (std::size_t i = 0; i < total.size(); ++i) total[i].add(moments[i]);
                  });
    return total;
}

class ServerStatistics final : public StatisticsSource {
  public:
    ServerStatistics(const model::ModelGraph& graph, std::shared_ptr<const data::SampleSet> samples,
                     core::Communicator& communicator)
        : graph_(graph), samples_(std::move(samples)), communicator_(communicator) {
        if (samples_ == nullptr || samples_->size() == 0) {
            throw core::UsageError(
                "statistics of the server's samples are asked for and it has none; hold some out "
                "(data.holdout: 1000)");
        }
    }

    std::string name() const override { return "server"; }
    const model::ModelGraph& graph() const override { return graph_; }
    std::shared_ptr<const data::SampleSet> samples_of(const Update&) const override { return samples_; }

    std::vector<ChannelMoments> of_update(const Update& update,
                                          const std::vector<std::size_t>& operations) override {
        return all_moments(graph_, update.parameters, *samples_, points_of(graph_, operations));
    }

    std::vector<ChannelMoments> of_mended(const model::Parameters& merged,
                                          const std::vector<MomentPoint>& points, const std::vector<Member>&,
                                          const std::vector<double>&, const Mend& mend) override {
        const std::int64_t width = row_width(graph_, points), chunks = chunks_of(*samples_, graph_);
        const auto rows =
            core::gather_rows(communicator_, chunks, width, [&](std::int64_t chunk, std::span<double> row) {
                chunk_moments(graph_, merged, *samples_, points, mend, chunk, chunks,
                              [&](std::int64_t, const auto& moments) { write_row(moments, row); });
            });
        std::vector<ChannelMoments> total(points.size());
        for (std::int64_t chunk = 0; chunk < chunks; ++chunk) {
            const auto mine = read_row(graph_, points,
                                       std::span(rows).subspan(static_cast<std::size_t>(chunk * width),
                                                               static_cast<std::size_t>(width)));
            for (std::size_t i = 0; i < total.size(); ++i) total[i].add(mine[i]);
        }
        return total;
    }

    std::unique_ptr<StatisticsSource> for_graph(const model::ModelGraph& graph) const override {
        return std::make_unique<ServerStatistics>(graph, samples_, communicator_);
    }
    std::unique_ptr<StatisticsSource> limited(std::int64_t limit) const override {
        return std::make_unique<ServerStatistics>(graph_, limited_to(samples_, limit), communicator_);
    }
    std::unique_ptr<StatisticsSource> disturbed(double, std::uint64_t, std::int64_t) const override {
        return std::make_unique<ServerStatistics>(*this);
    }

  private:
    const model::ModelGraph& graph_;
    std::shared_ptr<const data::SampleSet> samples_;
    core::Communicator& communicator_;
};

class ClientStatistics final : public StatisticsSource {
  public:
    using Samples = std::function<std::shared_ptr<const data::SampleSet>(std::int64_t client)>;
    ClientStatistics(const model::ModelGraph& graph, Samples samples, core::Communicator& communicator,
                     std::int64_t limit)
        : graph_(graph), samples_(std::move(samples)), communicator_(communicator), limit_(limit) {}

    std::string name() const override { return "clients"; }
    const model::ModelGraph& graph() const override { return graph_; }
    std::shared_ptr<const data::SampleSet> samples_of(const Update& update) const override {
        return part(update.client);
    }

    std::vector<ChannelMoments> of_update(const Update& update,
                                          const std::vector<std::size_t>& operations) override {
        const auto points = points_of(graph_, operations);
        auto moments = all_moments(graph_, update.parameters, *part(update.client), points);
        disturb(moments, points, update.client, "own");
        return moments;
    }

    std::vector<ChannelMoments> of_mended(const model::Parameters& merged,
                                          const std::vector<MomentPoint>& points,
                                          const std::vector<Member>& members,
                                          const std::vector<double>& weights, const Mend& mend) override {
        if (weights.size() != members.size()) throw std::logic_error("a weight for each member");
        const std::int64_t width = row_width(graph_, points);
        const auto rows =
            gather_member_rows(communicator_, members, width, [&](std::size_t k, std::span<double> row) {
                auto moments = all_moments(graph_, merged, *part(members[k].client), points, mend);
                disturb(moments, points, members[k].client, "merged");
                write_row(moments, row);
            });
        std::vector<ChannelMoments> total(points.size());
        for (std::size_t i = 0; i < points.size(); ++i) {
            total[i].sum.assign(static_cast<std::size_t>(channels(graph_, points[i])), 0);
            total[i].sum_of_squares = total[i].sum;
        }
        for (std::size_t k = 0; k < members.size(); ++k) {
            const auto mine = read_row(graph_, points,
                                       std::span(rows).subspan(k * static_cast<std::size_t>(width),
                                                               static_cast<std::size_t>(width)));
            for (std::size_t i = 0; i < total.size(); ++i) add_weighted(total[i], mine[i], weights[k]);
        }
        for (auto& moments : total) {
            for (double& sum : moments.sum) sum *= moments.count;
            for (double& sum : moments.sum_of_squares) sum *= moments.count;
        }
        return total;
    }

    std::unique_ptr<StatisticsSource> for_graph(const model::ModelGraph& graph) const override {
        return std::make_unique<ClientStatistics>(graph, samples_, communicator_, limit_);
    }
    std::unique_ptr<StatisticsSource> limited(std::int64_t limit) const override {
        const std::int64_t both = limit == 0 || (limit_ != 0 && limit_ < limit) ? limit_ : limit;
        auto result = std::make_unique<ClientStatistics>(*this);
        result->limit_ = both;
        return result;
    }
    std::unique_ptr<StatisticsSource> disturbed(double noise, std::uint64_t seed,
                                                std::int64_t round) const override {
        auto result = std::make_unique<ClientStatistics>(*this);
        result->noise_ = noise;
        result->seed_ = seed;
        result->round_ = round;
        return result;
    }

  private:
    /// Another draw for every message: whose model it is of, and which operations.
    void disturb(std::vector<ChannelMoments>& all, const std::vector<MomentPoint>& points,
                 std::int64_t client, std::string message) const {
        if (noise_ == 0) return;
        for (const auto& point : points) message.append(1, ' ').append(std::to_string(point.operation));
        core::Random random(seed_, "moment noise, " + message, round_, client);
        for (auto& moments : all) {
            const auto mean = moments.mean(), variance = moments.variance();
            for (std::size_t c = 0; c < mean.size(); ++c) {
                const double m = mean[c] + noise_ * std::sqrt(variance[c]) * random.normal();
                const double v = variance[c] * std::max(0.0, 1 + noise_ * random.normal());
                moments.sum[c] = m * moments.count;
                moments.sum_of_squares[c] = (v + m * m) * moments.count;
            }
        }
    }

    /// The means of `mine`, times the weight; counts are summed.
    static void add_weighted(ChannelMoments& total, const ChannelMoments& mine, double weight) {
        total.count += mine.count;
        for (std::size_t c = 0; c < total.sum.size(); ++c) {
            total.sum[c] += weight * mine.sum[c] / mine.count;
            total.sum_of_squares[c] += weight * mine.sum_of_squares[c] / mine.count;
        }
    }

    std::shared_ptr<const data::SampleSet> part(std::int64_t client) const {
        auto samples = samples_(client);
        if (samples == nullptr || samples->size() == 0) {
            throw core::RunError("client " + std::to_string(client) +
                                 " is asked for statistics of its samples and has none");
        }
        return limited_to(std::move(samples), limit_);
    }

    const model::ModelGraph& graph_;
    Samples samples_;
    core::Communicator& communicator_;
    std::int64_t limit_;
    double noise_ = 0;
    std::uint64_t seed_ = 0;
    std::int64_t round_ = 0;
};

}  // namespace

ChannelMoments StatisticsSource::of_merged(const model::Parameters& merged, std::size_t operation,
                                           const std::vector<Member>& members,
                                           const std::vector<double>& weights) {
    return of_merged(merged, std::vector{moment_point(graph(), operation)}, members, weights).front();
}

std::unique_ptr<StatisticsSource> server_statistics(const model::ModelGraph& graph,
                                                    std::shared_ptr<const data::SampleSet> samples,
                                                    core::Communicator& communicator) {
    return std::make_unique<ServerStatistics>(graph, std::move(samples), communicator);
}

std::unique_ptr<StatisticsSource> client_statistics(
    const model::ModelGraph& graph,
    std::function<std::shared_ptr<const data::SampleSet>(std::int64_t client)> client_samples,
    core::Communicator& communicator, std::int64_t limit) {
    return std::make_unique<ClientStatistics>(graph, std::move(client_samples), communicator, limit);
}

void for_each_batch(
    const data::SampleSet& samples, const std::vector<std::int64_t>& sample_shape,
    const std::function<void(std::int64_t batch_index, const at::Tensor& x, const at::Tensor& y)>& use,
    std::int64_t batch, std::int64_t first, std::int64_t stride) {
    const std::int64_t elements =
        std::accumulate(sample_shape.begin(), sample_shape.end(), std::int64_t{1}, std::multiplies<>());
    if (elements != samples.width()) {
        throw core::RunError("the model takes samples of " + std::to_string(elements) +
                             " values and the data have " + std::to_string(samples.width()));
    }
    std::vector<std::int64_t> shape{std::min(batch, samples.size())};
    shape.insert(shape.end(), sample_shape.begin(), sample_shape.end());
    const at::Tensor x = at::empty(shape, at::kFloat), y = at::empty({shape.front()}, at::kLong);
    std::vector<std::int64_t> indices;
    for (std::int64_t b = first; b * batch < samples.size(); b += stride) {
        core::check_interrupt();
        const std::int64_t begin = b * batch, n = std::min(batch, samples.size() - begin);
        indices.resize(static_cast<std::size_t>(n));
        std::iota(indices.begin(), indices.end(), begin);
        samples.gather(indices, x.data_ptr<float>(), y.data_ptr<std::int64_t>());
        use(b, x.narrow(0, 0, n), y.narrow(0, 0, n));
    }
}

}  // namespace thalweg::aggregator
