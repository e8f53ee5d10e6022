// FedProx's synthetic(α, β): every client has a linear model and a distribution of its own. α says how much
// the models differ, β how much the data. The published generator (and this one) takes α and β as standard
// deviations.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "generator_seed.hpp"
#include "natural.hpp"
#include "thalweg/core/random.hpp"
#include "thalweg/core/registry.hpp"
#include "thalweg/data/sample_sets.hpp"

namespace thalweg::data {
namespace {

constexpr std::int64_t test_clients = 1000;
constexpr std::int64_t samples_of_a_further_client = 20;  // of test clients and of those for the hold-out

struct Facts {
    double alpha;
    double beta;
    std::int64_t dimension;
    std::int64_t classes;
    std::int64_t max_samples;
    std::uint64_t seed;
};

/// The first draw of a client's stream, so that it can be known without the samples.
std::int64_t draw_size(const Facts& facts, core::Random& random) {
    const double extra = std::floor(std::exp(random.normal(4.0, 2.0)));
    return static_cast<std::int64_t>(std::min(extra + 50.0, static_cast<double>(facts.max_samples)));
}

/// One client's model y = argmax(Wx + b) and distribution x ~ N(v, Σ).
class ClientLaw {
  public:
    ClientLaw(const Facts& facts, core::Random& random)
        : dimension_(static_cast<std::size_t>(facts.dimension)),
          weight_(static_cast<std::size_t>(facts.classes) * dimension_),
          bias_(static_cast<std::size_t>(facts.classes)),
          mean_(dimension_),
          deviation_(dimension_) {
        const double u = random.normal(0.0, facts.alpha);
        const double centre = random.normal(0.0, facts.beta);
        for (double& value : mean_) value = random.normal(centre, 1.0);
        for (double& value : weight_) value = random.normal(u, 1.0);
        for (double& value : bias_) value = random.normal(u, 1.0);
        for (std::size_t j = 0; j < dimension_; ++j)
            deviation_[j] = std::pow(static_cast<double>(j + 1), -0.6);
    }

    /// Fills x [dimension] and returns its label.
    std::uint8_t draw(core::Random& random, float* x) const {
        for (std::size_t j = 0; j < dimension_; ++j) {
            x[j] = static_cast<float>(mean_[j] + deviation_[j] * random.normal());
        }
        std::size_t best = 0;
        double highest = 0.0;
        for (std::size_t c = 0; c < bias_.size(); ++c) {
            double logit = bias_[c];
            for (std::size_t j = 0; j < dimension_; ++j) logit += weight_[c * dimension_ + j] * x[j];
            if (c == 0 || logit > highest) {
                highest = logit;
                best = c;
            }
        }
        return static_cast<std::uint8_t>(best);
    }

  private:
    std::size_t dimension_;
    std::vector<double> weight_;  // [classes, dimension]
    std::vector<double> bias_;
    std::vector<double> mean_;
    std::vector<double> deviation_;
};

/// Samples of clients that are in no federation: 20 of each, until `labels` is full.
void fill_from_further_clients(const Facts& facts, const char* purpose, std::span<float> samples,
                               std::span<std::uint8_t> labels) {
    const auto width = static_cast<std::size_t>(facts.dimension);
    for (std::size_t begin = 0; begin < labels.size(); begin += samples_of_a_further_client) {
        core::Random random(facts.seed, purpose, 0,
                            static_cast<std::int64_t>(begin) / samples_of_a_further_client);
        const ClientLaw law(facts, random);
        const std::size_t end = std::min(begin + samples_of_a_further_client, labels.size());
        for (std::size_t i = begin; i < end; ++i) labels[i] = law.draw(random, samples.data() + i * width);
    }
}

class Synthetic final : public Dataset {
  public:
    Synthetic(const Facts& facts, std::shared_ptr<const SampleSet> test)
        : facts_(facts), test_(std::move(test)) {}
    std::string name() const override { return "synthetic"; }
    std::vector<std::int64_t> sample_shape() const override { return {facts_.dimension}; }
    std::int64_t classes() const override { return facts_.classes; }
    std::shared_ptr<const SampleSet> train() const override { return nullptr; }
    std::shared_ptr<const SampleSet> test() const override { return test_; }
    bool has_natural_clients() const override { return true; }

    std::int64_t natural_size(std::int64_t client) const override {
        core::Random random(facts_.seed, "synthetic", 0, client);
        return draw_size(facts_, random);
    }

    std::shared_ptr<const SampleSet> natural_client(std::int64_t client) const override {
        core::Random random(facts_.seed, "synthetic", 0, client);
        std::vector<std::uint8_t> labels(static_cast<std::size_t>(draw_size(facts_, random)));
        std::vector<float> samples(labels.size() * static_cast<std::size_t>(facts_.dimension));
        const ClientLaw law(facts_, random);
        float* x = samples.data();
        for (std::uint8_t& label : labels) {
            label = law.draw(random, x);
            x += facts_.dimension;
        }
        return std::make_shared<const FloatSamples>(std::move(samples), std::move(labels), facts_.dimension);
    }

    std::shared_ptr<const SampleSet> natural_holdout(std::int64_t count) const override {
        std::vector<std::uint8_t> labels(static_cast<std::size_t>(count));
        std::vector<float> samples(labels.size() * static_cast<std::size_t>(facts_.dimension));
        fill_from_further_clients(facts_, "synthetic-holdout", samples, labels);
        return std::make_shared<const FloatSamples>(std::move(samples), std::move(labels), facts_.dimension);
    }

  private:
    Facts facts_;
    std::shared_ptr<const SampleSet> test_;
};

std::shared_ptr<const Dataset> open_synthetic(const core::Value& options, const DatasetContext& context) {
    const Facts facts{options["alpha"].as_number(),    options["beta"].as_number(),
                      options["dimension"].as_int(),   options["classes"].as_int(),
                      options["max_samples"].as_int(), generator_seed(options, context)};
    // The node's block: samples, then labels.
    constexpr auto count = static_cast<std::size_t>(test_clients * samples_of_a_further_client);
    const std::size_t numbers = count * static_cast<std::size_t>(facts.dimension);
    const auto block =
        context.communicator.share(numbers * sizeof(float) + count, [&](std::span<std::byte> bytes) {
            const std::span samples{reinterpret_cast<float*>(bytes.data()), numbers};
            const std::span labels{reinterpret_cast<std::uint8_t*>(samples.data() + numbers), count};
            fill_from_further_clients(facts, "synthetic-test", samples, labels);
        });
    const std::span samples{reinterpret_cast<const float*>(block.get()), numbers};
    const std::span labels{reinterpret_cast<const std::uint8_t*>(samples.data() + numbers), count};
    return std::make_shared<const Synthetic>(
        facts, std::make_shared<const FloatSamples>(block, samples, labels, facts.dimension));
}

const core::Registration<std::shared_ptr<const Dataset>, const DatasetContext&> synthetic_registration{
    {.kind = "dataset",
     .name = "synthetic",
     .help = "generated: FedProx's synthetic(alpha, beta), as many clients as asked for, each made when it "
             "trains; "
             "tested on 1,000 further clients with 20 samples each",
     .citation = "Li et al.: Federated optimization in heterogeneous networks (MLSys 2020), arXiv:1812.06127",
     .options = {generator_seed_option(),
                 core::number("alpha", "how much the clients' models differ: deviation of their means")
                     .at_least(0)
                     .at_most(1000)
                     .by_default(1),
                 core::number("beta", "how much the clients' data differ: deviation of their means")
                     .at_least(0)
                     .at_most(1000)
                     .by_default(1),
                 core::integer("dimension", "numbers in a sample").at_least(1).at_most(10000).by_default(60),
                 core::integer("classes", "number of classes").at_least(2).at_most(256).by_default(10),
                 core::integer("max_samples",
                               "a client holds this many at most (a log-normal number + 50 otherwise)")
                     .at_least(1)
                     .at_most(10000000)
                     .by_default(1000)}},
    open_synthetic};

const bool named = [] {
    natural_datasets().push_back("synthetic");
    return true;
}();

}  // namespace
}  // namespace thalweg::data
