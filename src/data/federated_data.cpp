#include <algorithm>
#include <limits>
#include <stdexcept>
#include <string>
#include <utility>

#include "natural.hpp"
#include "thalweg/core/error.hpp"
#include "thalweg/core/registry.hpp"
#include "thalweg/core/text.hpp"
#include "thalweg/data/partition.hpp"

namespace thalweg::data {
namespace {

std::shared_ptr<const SampleSet> subset_or_null(const std::shared_ptr<const SampleSet>& base,
                                                const std::vector<std::uint32_t>& indices) {
    if (indices.empty()) return nullptr;
    return std::make_shared<const Subset>(base, indices);
}

void check_holdout(const Dataset& dataset, std::int64_t holdout) {
    if (holdout < 0)
        throw core::UsageError("data.holdout: " + std::to_string(holdout) + " samples; must be 0 or more");
    if (dataset.train() == nullptr || holdout < dataset.train()->size()) return;
    throw core::UsageError("data.holdout: " + std::to_string(holdout) +
                           " samples for the server leave none for the " + "clients; " + dataset.name() +
                           " has " + std::to_string(dataset.train()->size()) + " training samples");
}

/// Whether the clients come from the data set; UsageError when the two do not go together.
bool check_natural(const Dataset& dataset, const core::Value& partition) {
    const core::Value& scheme = partition["scheme"];
    const bool natural = scheme.as_text() == "natural";
    if (natural && !dataset.has_natural_clients()) {
        scheme.reject(
            "'natural' needs a data set that says who holds what: " + core::join(natural_datasets()) + "; " +
            dataset.name() + " does not, choose another scheme");
    }
    if (!natural && dataset.train() == nullptr) {
        scheme.reject("'" + scheme.as_text() + "' needs one training set to split, which " + dataset.name() +
                      " has not: it exists client by client; choose 'natural'");
    }
    return natural;
}

void require_client(std::int64_t client, std::int64_t clients) {
    if (client >= 0 && client < clients) return;
    throw std::out_of_range("client " + std::to_string(client) + " of " + std::to_string(clients));
}

}  // namespace

FederatedData::FederatedData(std::shared_ptr<const Dataset> dataset, const core::Value& partition,
                             std::int64_t holdout, std::uint64_t seed)
    : dataset_(std::move(dataset)) {
    const bool natural = check_natural(*dataset_, partition);
    generated_ = natural && dataset_->train() == nullptr;
    check_holdout(*dataset_, holdout);
    const auto partitioner = core::Registry<std::unique_ptr<Partitioner>>::make(partition, "scheme");
    clients_ = partitioner->clients();
    if (generated_) {
        if (holdout > 0) holdout_ = dataset_->natural_holdout(holdout);
        return;
    }
    draw_holdout(holdout, seed);
    assignment_ =
        std::make_shared<const Assignment>(natural ? take_parts(partition) : split(*partitioner, seed));
}

void FederatedData::draw_holdout(std::int64_t holdout, std::uint64_t seed) {
    const std::shared_ptr<const SampleSet> train = dataset_->train();
    if (train->size() > std::numeric_limits<std::uint32_t>::max() || dataset_->classes() > 256) {
        throw std::logic_error("partitions hold 32-bit indices and 8-bit labels");
    }
    core::Random random(seed, "holdout");
    for (const std::int64_t index : random.sample(train->size(), holdout)) {
        holdout_indices_.push_back(static_cast<std::uint32_t>(index));
    }
    holdout_ = subset_or_null(train, holdout_indices_);
}

/// The partitioner divides what the hold-out leaves.
Assignment FederatedData::split(const Partitioner& partitioner, std::uint64_t seed) const {
    const std::shared_ptr<const SampleSet> train = dataset_->train();
    std::vector<std::uint32_t> pool;
    std::vector<std::uint8_t> labels;
    pool.reserve(static_cast<std::size_t>(train->size()) - holdout_indices_.size());
    labels.reserve(pool.capacity());
    auto held_out = holdout_indices_.begin();
    for (std::uint32_t i = 0; i < static_cast<std::uint32_t>(train->size()); ++i) {
        if (held_out != holdout_indices_.end() && *held_out == i) {
            ++held_out;
            continue;
        }
        pool.push_back(i);
        labels.push_back(static_cast<std::uint8_t>(train->label(i)));
    }
    core::Random random(seed, "partition");
    return partitioner.split(pool, labels, dataset_->classes(), random);
}

/// The data set's own division, less the hold-out.
Assignment FederatedData::take_parts(const core::Value& partition) {
    const std::vector<NaturalPart> parts = dataset_->natural_parts(partition);
    Assignment assignment{{}, {0}};
    for (const NaturalPart& part : parts) {
        const auto begin = static_cast<std::uint32_t>(part.begin);
        const auto end = static_cast<std::uint32_t>(part.end);
        auto held_out = std::lower_bound(holdout_indices_.begin(), holdout_indices_.end(), begin);
        for (std::uint32_t i = begin; i < end; ++i) {
            if (held_out != holdout_indices_.end() && *held_out == i) {
                ++held_out;
            } else {
                assignment.indices.push_back(i);
            }
        }
        if (assignment.indices.size() == assignment.offsets.back()) {
            partition["clients"].reject("the server's hold-out takes all " +
                                        std::to_string(part.end - part.begin) + " samples of client " +
                                        std::to_string(assignment.offsets.size() - 1) +
                                        (part.name.empty() ? "" : " (" + part.name + ")") +
                                        "; lower data.holdout or the number of clients");
        }
        assignment.offsets.push_back(assignment.indices.size());
    }
    const auto is_named = [](const NaturalPart& part) { return !part.name.empty(); };
    if (std::any_of(parts.begin(), parts.end(), is_named)) {
        for (const NaturalPart& part : parts) names_.push_back(part.name);
    }
    return assignment;
}

std::int64_t FederatedData::samples(std::int64_t client) const {
    require_client(client, clients_);
    return generated_ ? dataset_->natural_size(client) : static_cast<std::int64_t>(indices(client).size());
}

std::shared_ptr<const SampleSet> FederatedData::client(std::int64_t client) const {
    require_client(client, clients_);
    if (generated_) return dataset_->natural_client(client);
    return std::make_shared<const Subset>(dataset_->train(), indices(client), assignment_);
}

std::string FederatedData::client_name(std::int64_t client) const {
    require_client(client, clients_);
    return names_.empty() ? std::string() : names_[static_cast<std::size_t>(client)];
}

std::span<const std::uint32_t> FederatedData::indices(std::int64_t client) const {
    require_client(client, clients_);
    if (generated_) return {};
    const std::uint64_t begin = assignment_->offsets[static_cast<std::size_t>(client)];
    const std::uint64_t end = assignment_->offsets[static_cast<std::size_t>(client) + 1];
    return std::span(assignment_->indices).subspan(begin, end - begin);
}

std::vector<std::int64_t> FederatedData::label_histogram(std::int64_t client) const {
    const std::shared_ptr<const SampleSet> samples = this->client(client);
    std::vector<std::int64_t> histogram(static_cast<std::size_t>(dataset_->classes()), 0);
    for (std::int64_t i = 0; i < samples->size(); ++i)
        ++histogram[static_cast<std::size_t>(samples->label(i))];
    return histogram;
}

}  // namespace thalweg::data
