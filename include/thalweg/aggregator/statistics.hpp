#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "thalweg/aggregator/update.hpp"
#include "thalweg/core/communicator.hpp"
#include "thalweg/data/partition.hpp"
#include "thalweg/model/graph.hpp"

namespace thalweg::aggregator {

/// First and second moments of the channels of one operation's output (over samples and all other axes), accumulated
/// in double.
struct ChannelMoments {
    double count = 0;  ///< values a channel
    std::vector<double> sum, sum_of_squares;
    /// Adds an output with its channels on axis 1.
    void add(const at::Tensor& output);
    void add(const ChannelMoments& other);
    std::vector<double> mean() const;
    /// Biased (÷ count), never negative.
    std::vector<double> variance() const;
};

/// An operation's output, with the axis that its channels are on.
struct MomentPoint {
    std::size_t operation = 0;
    std::int64_t axis = 1;
};

/// Where an operation's channels are measured: `graph.channel_axis`, but of a sum, an activation or a dropout, which work
/// on any axis, the axis of the nearest operation before it that says one (of a transformer's residual sum the last, of a
/// convolutional net's axis 1).
MomentPoint moment_point(const model::ModelGraph& graph, std::size_t operation);
/// How many channels are there.
std::int64_t channels(const model::ModelGraph& graph, const MomentPoint& point);

/// Somebody's data. An interface of the aggregator's: the server's hold-out, or the clients through the backend. What
/// leaves a client are statistics: channel moments, and what a reduction computes of `samples_of`; never a sample.
class StatisticsSource {
  public:
    virtual ~StatisticsSource() = default;
    /// `server` or `clients`
    virtual std::string name() const = 0;
    virtual const model::ModelGraph& graph() const = 0;
    /// The samples that an update's client computes on: the server's, the same for all, or its own. On the update's rank,
    /// where what is computed on them stands for what the client computes and sends; not collective.
    virtual std::shared_ptr<const data::SampleSet> samples_of(const Update& update) const = 0;
    /// Moments of the outputs of `operations` (increasing indexes), each at its moment_point, in the update's own model,
    /// in one pass. On the update's rank; not collective.
    virtual std::vector<ChannelMoments> of_update(const Update& update,
                                                  const std::vector<std::size_t>& operations) = 0;
    /// Moments at `points` (increasing operations) in the merged model (the same on every rank) over all of the source's
    /// data, in one pass. For `clients` each client's moments weigh w_k (m = Σ w_k m_k, v = Σ w_k (v_k + m_k²) − m²), given as sums
    /// over as many values as all clients have together; for `server` members and weights do not matter. Collective,
    /// the same result on every rank and any number of ranks.
    std::vector<ChannelMoments> of_merged(const model::Parameters& merged,
                                          const std::vector<MomentPoint>& points,
                                          const std::vector<Member>& members,
                                          const std::vector<double>& weights) {
        return of_mended(merged, points, members, weights, {});
    }
    /// As of_merged, but values are mended on the way, chunk by chunk: `mend` gets a point's number, what its operation
    /// read and wrote and the chunk's moments there, and returns what shall stand in its place. At a batch norm the moments
    /// are those of what it reads. One pass, and one exchange. Collective, as of_merged.
    using Mend = std::function<at::Tensor(std::size_t point, const std::vector<at::Tensor>& inputs,
                                          const at::Tensor& output, const ChannelMoments& moments)>;
    virtual std::vector<ChannelMoments> of_mended(const model::Parameters& merged,
                                                  const std::vector<MomentPoint>& points,
                                                  const std::vector<Member>& members,
                                                  const std::vector<double>& weights, const Mend& mend) = 0;
    /// The same of one operation at its moment_point. Collective.
    ChannelMoments of_merged(const model::Parameters& merged, std::size_t operation,
                             const std::vector<Member>& members, const std::vector<double>& weights);
    /// The same source for models of another architecture, which must outlive it.
    virtual std::unique_ptr<StatisticsSource> for_graph(const model::ModelGraph& graph) const = 0;
    /// The same source looking at no more than the first `limit` samples of the server's, or of each client's (0: all).
    virtual std::unique_ptr<StatisticsSource> limited(std::int64_t limit) const = 0;
    /// The same source whose clients disturb what they send: every mean by `noise` standard deviations of its channel, every
    /// variance by the factor 1 + `noise` (not below 0), both times normal numbers of (seed, round, client). The server's
    /// own statistics are not sent and stay as they are. A study of privacy, no proof of it.
    virtual std::unique_ptr<StatisticsSource> disturbed(double noise, std::uint64_t seed,
                                                        std::int64_t round) const = 0;
};

/// The server's hold-out: the same samples for every model, in chunks of model::samples_at_once that are combined in index order. Keeps
/// references to `graph` and `communicator`. UsageError when there are no samples.
std::unique_ptr<StatisticsSource> server_statistics(const model::ModelGraph& graph,
                                                    std::shared_ptr<const data::SampleSet> samples,
                                                    core::Communicator& communicator);

/// Every client's own samples (at most `limit` of them, the first in the client's order; 0: all). `client_samples` gives
/// a client's part on the rank that owns it. No sample leaves a client: moments only.
std::unique_ptr<StatisticsSource> client_statistics(
    const model::ModelGraph& graph,
    std::function<std::shared_ptr<const data::SampleSet>(std::int64_t client)> client_samples,
    core::Communicator& communicator, std::int64_t limit);

/// Hands out a set in fixed batches of `batch` samples as tensors [n, sample shape…], in index order, so that results
/// do not depend on who evaluates. `stride` and `first` select batches first, first + stride, … The tensors are valid
/// during the call only: the next batch overwrites them. RunError when samples are not of that shape's size.
void for_each_batch(
    const data::SampleSet& samples, const std::vector<std::int64_t>& sample_shape,
    const std::function<void(std::int64_t batch_index, const at::Tensor& x, const at::Tensor& y)>& use,
    std::int64_t batch, std::int64_t first = 0, std::int64_t stride = 1);

}  // namespace thalweg::aggregator
