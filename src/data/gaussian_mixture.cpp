// A Gaussian mixture: one class a component, unit noise around means of one length in random directions. Its
// difficulty is one number, so that a test or a study can choose it.
#include <cmath>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "generator_seed.hpp"
#include "thalweg/core/random.hpp"
#include "thalweg/core/registry.hpp"
#include "thalweg/data/sample_sets.hpp"

namespace thalweg::data {
namespace {

/// Samples drawn from one random stream: any block can be made again without those before it.
constexpr std::int64_t block_size = 1024;

struct Mixture {
    std::int64_t classes;
    std::int64_t dimension;
    std::uint64_t seed;
    std::vector<double> means;  // [classes, dimension]
};

Mixture make_mixture(std::int64_t classes, std::int64_t dimension, double separation, std::uint64_t seed) {
    Mixture mixture{classes, dimension, seed,
                    std::vector<double>(static_cast<std::size_t>(classes * dimension))};
    for (std::int64_t c = 0; c < classes; ++c) {
        core::Random random(seed, "gaussian_mixture-mean", 0, c);
        const std::span mean{mixture.means.data() + c * dimension, static_cast<std::size_t>(dimension)};
        double squares = 0.0;
        for (double& value : mean) {
            value = random.normal();
            squares += value * value;
        }
        for (double& value : mean) value *= separation / std::sqrt(squares);
    }
    return mixture;
}

/// Fills samples [count, dimension] and labels [count]; the classes take turns.
void fill(const Mixture& mixture, const char* purpose, std::span<float> samples,
          std::span<std::uint8_t> labels) {
    const auto count = static_cast<std::int64_t>(labels.size());
    float* x = samples.data();
    for (std::int64_t begin = 0; begin < count; begin += block_size) {
        core::Random random(mixture.seed, purpose, 0, begin / block_size);
        for (std::int64_t i = begin; i < std::min(begin + block_size, count); ++i) {
            const std::int64_t label = i % mixture.classes;
            labels[static_cast<std::size_t>(i)] = static_cast<std::uint8_t>(label);
            const double* mean = mixture.means.data() + label * mixture.dimension;
            for (std::int64_t j = 0; j < mixture.dimension; ++j)
                *x++ = static_cast<float>(mean[j] + random.normal());
        }
    }
}

class GaussianMixture final : public Dataset {
  public:
    GaussianMixture(std::vector<std::int64_t> shape, std::int64_t classes,
                    std::shared_ptr<const SampleSet> train, std::shared_ptr<const SampleSet> test)
        : shape_(std::move(shape)), classes_(classes), train_(std::move(train)), test_(std::move(test)) {}
    std::string name() const override { return "gaussian_mixture"; }
    std::vector<std::int64_t> sample_shape() const override { return shape_; }
    std::int64_t classes() const override { return classes_; }
    std::shared_ptr<const SampleSet> train() const override { return train_; }
    std::shared_ptr<const SampleSet> test() const override { return test_; }

  private:
    std::vector<std::int64_t> shape_;
    std::int64_t classes_;
    std::shared_ptr<const SampleSet> train_;
    std::shared_ptr<const SampleSet> test_;
};

/// `shape` or, without one, [dimension].
std::vector<std::int64_t> sample_shape(const core::Value& options) {
    const std::int64_t dimension = options["dimension"].as_int();
    if (!options.has("shape")) return {dimension};
    const std::vector<std::int64_t> shape = options["shape"].as_ints();
    std::int64_t product = 1;
    for (const std::int64_t size : shape) {
        if (size < 1 || size > dimension)
            options["shape"].reject("every size must be between 1 and `dimension`");
        product =
            std::min(product * size, dimension + 1);  // no overflow: both factors are at most dimension + 1
    }
    if (shape.size() < 2 || shape.size() > 3 || product != dimension) {
        options["shape"].reject(
            "must be [channels, height, width] or two numbers, with a product of `dimension`, " +
            std::to_string(dimension));
    }
    return shape;
}

std::shared_ptr<const Dataset> open_mixture(const core::Value& options, const DatasetContext& context) {
    const std::vector<std::int64_t> shape = sample_shape(options);
    const std::int64_t classes = options["classes"].as_int();
    const std::int64_t dimension = options["dimension"].as_int();
    const std::int64_t train = options["train"].as_int();
    const std::int64_t test = options["test"].as_int();
    constexpr std::int64_t most_numbers = std::int64_t{1} << 33;  // 32 GiB of floats
    if (train + test > most_numbers / dimension) {
        options["train"].reject(
            "so many samples of " + std::to_string(dimension) +
            " numbers take more than 32 GiB; choose fewer samples or a smaller dimension");
    }
    // The node's block: training samples, test samples, training labels, test labels.
    const auto count = static_cast<std::size_t>(train + test);
    const auto numbers = count * static_cast<std::size_t>(dimension);
    const auto train_count = static_cast<std::size_t>(train);
    const auto train_numbers = train_count * static_cast<std::size_t>(dimension);
    const auto block =
        context.communicator.share(numbers * sizeof(float) + count, [&](std::span<std::byte> bytes) {
            const Mixture mixture = make_mixture(classes, dimension, options["separation"].as_number(),
                                                 generator_seed(options, context));
            const std::span samples{reinterpret_cast<float*>(bytes.data()), numbers};
            const std::span labels{reinterpret_cast<std::uint8_t*>(samples.data() + numbers), count};
            fill(mixture, "gaussian_mixture-train", samples.first(train_numbers), labels.first(train_count));
            fill(mixture, "gaussian_mixture-test", samples.subspan(train_numbers),
                 labels.subspan(train_count));
        });
    const std::span samples{reinterpret_cast<const float*>(block.get()), numbers};
    const std::span labels{reinterpret_cast<const std::uint8_t*>(samples.data() + numbers), count};
    return std::make_shared<const GaussianMixture>(
        shape, classes,
        std::make_shared<const FloatSamples>(block, samples.first(train_numbers), labels.first(train_count),
                                             dimension),
        std::make_shared<const FloatSamples>(block, samples.subspan(train_numbers),
                                             labels.subspan(train_count), dimension));
}

const core::Registration<std::shared_ptr<const Dataset>, const DatasetContext&> gaussian_mixture_registration{
    {.kind = "dataset",
     .name = "gaussian_mixture",
     .help = "generated: one Gaussian of unit variance a class, balanced classes, means in random directions",
     .citation = "",
     .options =
         {generator_seed_option(),
          core::integer("classes", "number of classes").at_least(2).at_most(256).by_default(10),
          core::integer("dimension", "numbers in a sample").at_least(1).at_most(1000000).by_default(20),
          core::integers(
              "shape",
              "[channels, height, width] of a sample, for convolutional models, or two numbers; their "
              "product is `dimension`")
              .optional(),
          core::integer("train", "training samples").at_least(1).at_most(100000000).by_default(10000),
          core::integer("test", "test samples").at_least(1).at_most(100000000).by_default(2000),
          core::number("separation", "length of the class means, in deviations of the noise")
              .at_least(0)
              .at_most(1e6)
              .by_default(3)}},
    open_mixture};

}  // namespace
}  // namespace thalweg::data
