#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "thalweg/core/random.hpp"
#include "thalweg/core/value.hpp"
#include "thalweg/data/dataset.hpp"

namespace thalweg::data {

/// Who holds what: sample indices of client c are indices[offsets[c]…offsets[c+1]). One index a sample and
/// one offset a client is all that is kept.
struct Assignment {
    std::vector<std::uint32_t> indices;
    std::vector<std::uint64_t> offsets;
};

/// A partitioner splits samples over clients. Registry kind `partitioner`; the section's selector is
/// `scheme`.
class Partitioner {
  public:
    virtual ~Partitioner() = default;
    /// `labels[i]` belongs to pool[i], a sample index; every client must get at least one sample (UsageError
    /// through the offending option's place otherwise).
    virtual Assignment split(std::span<const std::uint32_t> pool, std::span<const std::uint8_t> labels,
                             std::int64_t classes, core::Random& random) const = 0;
    virtual std::int64_t clients() const = 0;
};

/// The data as the federation sees it: clients' parts, the server's hold-out, the test set. The same on every
/// rank.
class FederatedData {
  public:
    /// Draws the hold-out (`holdout` samples of the training set, before partitioning), then partitions the
    /// rest. `partition`: the resolved `data.partition` section. UsageError when the numbers do not fit.
    FederatedData(std::shared_ptr<const Dataset> dataset, const core::Value& partition, std::int64_t holdout,
                  std::uint64_t seed);

    const Dataset& dataset() const { return *dataset_; }
    std::shared_ptr<const Dataset> dataset_handle() const { return dataset_; }
    std::int64_t clients() const { return clients_; }
    std::int64_t samples(std::int64_t client) const;
    /// The client's part; made on demand for natural data.
    std::shared_ptr<const SampleSet> client(std::int64_t client) const;
    /// nullptr when `holdout` is 0.
    std::shared_ptr<const SampleSet> holdout() const { return holdout_; }
    std::shared_ptr<const SampleSet> test() const { return dataset_->test(); }
    /// What the data set calls the client (natural clients only), or an empty text.
    std::string client_name(std::int64_t client) const;
    /// Training-set indices of the client's samples; empty for data that exist only client by client.
    std::span<const std::uint32_t> indices(std::int64_t client) const;
    /// Training-set indices of the hold-out; empty for data that exist only client by client.
    std::span<const std::uint32_t> holdout_indices() const { return holdout_indices_; }
    /// Samples of each label at the client [classes]. Natural data are generated for it.
    std::vector<std::int64_t> label_histogram(std::int64_t client) const;

  private:
    void draw_holdout(std::int64_t holdout, std::uint64_t seed);
    Assignment split(const Partitioner& partitioner, std::uint64_t seed) const;
    Assignment take_parts(const core::Value& partition);

    std::shared_ptr<const Dataset> dataset_;
    std::int64_t clients_ = 0;
    bool generated_ = false;  ///< client by client; there is no training set
    std::vector<std::string> names_;
    std::shared_ptr<const Assignment> assignment_;
    std::vector<std::uint32_t> holdout_indices_;
    std::shared_ptr<const SampleSet> holdout_;
};

}  // namespace thalweg::data
