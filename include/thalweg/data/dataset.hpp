#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "thalweg/core/communicator.hpp"
#include "thalweg/core/value.hpp"

namespace thalweg::data {

/// An immutable set of labelled samples, addressed by index. Samples are handed out as normalised floats; how
/// they are kept (bytes shared by the node, generated when asked for) is the set's own affair.
class SampleSet {
  public:
    virtual ~SampleSet() = default;
    virtual std::int64_t size() const = 0;
    virtual std::int64_t label(std::int64_t index) const = 0;
    /// Elements of one sample.
    virtual std::int64_t width() const = 0;
    /// Writes the samples `indices` to `x` [indices.size(), width] and their labels to `y` [indices.size()].
    virtual void gather(std::span<const std::int64_t> indices, float* x, std::int64_t* y) const = 0;
};

/// Some samples of another set.
class Subset final : public SampleSet {
  public:
    /// Keeps `base` alive; copies the indices (32 bits each).
    Subset(std::shared_ptr<const SampleSet> base, std::vector<std::uint32_t> indices);
    /// Refers to indices that live as long as `owner` does.
    Subset(std::shared_ptr<const SampleSet> base, std::span<const std::uint32_t> indices,
           std::shared_ptr<const void> owner);
    std::int64_t size() const override;
    std::int64_t label(std::int64_t index) const override;
    std::int64_t width() const override;
    void gather(std::span<const std::int64_t> indices, float* x, std::int64_t* y) const override;
    std::span<const std::uint32_t> indices() const { return indices_; }

  private:
    std::shared_ptr<const SampleSet> base_;
    std::vector<std::uint32_t> owned_;
    std::span<const std::uint32_t> indices_;
    std::shared_ptr<const void> owner_;
};

/// What was done to each channel of the raw data: (raw − mean)/deviation, raw in [0, 1]. Empty for data that
/// are used as they are.
struct Normalisation {
    std::vector<double> mean;
    std::vector<double> deviation;
};

/// A natural client that is a piece of the training set: samples begin…end-1 of train().
struct NaturalPart {
    std::string name;  ///< for people; empty when the data have none
    std::int64_t begin = 0;
    std::int64_t end = 0;
};

/// A data set: training and test samples of one shape. Registry kind `dataset`.
class Dataset {
  public:
    virtual ~Dataset() = default;
    /// `fashion_mnist`
    virtual std::string name() const = 0;
    /// Where it was read from, or an empty string for generated data.
    virtual std::string source() const { return {}; }
    /// [C, H, W] or [features].
    virtual std::vector<std::int64_t> sample_shape() const = 0;
    virtual std::int64_t classes() const = 0;
    /// What people call a class; its number unless the data know better.
    virtual std::string class_name(std::int64_t label) const { return std::to_string(label); }
    /// For whoever feeds a trained model elsewhere.
    virtual Normalisation normalisation() const { return {}; }
    /// All training samples; nullptr when the set exists only client by client (`synthetic`).
    virtual std::shared_ptr<const SampleSet> train() const = 0;
    virtual std::shared_ptr<const SampleSet> test() const = 0;

    /// Whether the data set says itself who holds what (partition scheme `natural`). One that has a train()
    /// answers natural_parts, one that exists only client by client the three functions below it.
    virtual bool has_natural_clients() const { return false; }
    /// Who holds which training samples when the resolved `data.partition` section is `partition`: one part, with
    /// a sample at least, for each of its `clients`; samples in no part are nobody's. UsageError at the section's
    /// option when the data cannot be divided so.
    virtual std::vector<NaturalPart> natural_parts(const core::Value& partition) const;
    /// How many samples client `client` of any number of clients holds (cheap: no samples are made), and those
    /// samples, made on demand.
    virtual std::int64_t natural_size(std::int64_t client) const;
    virtual std::shared_ptr<const SampleSet> natural_client(std::int64_t client) const;
    /// `count` samples that no client and no test sample shares, for the server's hold-out, when train() is
    /// nullptr.
    virtual std::shared_ptr<const SampleSet> natural_holdout(std::int64_t count) const;
};

/// What a data set's factory gets beside its options.
struct DatasetContext {
    core::Communicator& communicator;  ///< to keep the bytes once a node
    std::uint64_t seed;                ///< of the experiment, for generated data
};

/// Opens the data set that a resolved `dataset` section names. Collective (the bytes are read by one rank of
/// each node and shared). RunError names the file and what was expected when one is missing, truncated or
/// damaged.
std::shared_ptr<const Dataset> open_dataset(const core::Value& options, const DatasetContext& context);

}  // namespace thalweg::data
