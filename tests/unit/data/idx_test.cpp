#include <atomic>
#include <cmath>

#include "thalweg/core/random.hpp"
#include "unit/data/support.hpp"
#include "unit/support/thread_communicator.hpp"

namespace thalweg::data::testing::idx_test {
namespace {

using ::testing::Test;

void append(Raw& bytes, std::uint32_t word) {
    for (const int shift : {24, 16, 8, 0}) bytes.push_back(static_cast<std::uint8_t>(word >> shift));
}

Raw idx_images(std::uint32_t count, std::uint32_t height = 28, std::uint32_t width = 28) {
    Raw bytes;
    for (const std::uint32_t word : {0x803U, count, height, width}) append(bytes, word);
    for (std::uint32_t i = 0; i < count * height * width; ++i)
        bytes.push_back(static_cast<std::uint8_t>(i * 31 % 256));
    return bytes;
}

Raw idx_labels(std::uint32_t count) {
    Raw bytes;
    append(bytes, 0x801);
    append(bytes, count);
    for (std::uint32_t i = 0; i < count; ++i) bytes.push_back(static_cast<std::uint8_t>((i + 3) % 10));
    return bytes;
}

/// Five training and three test images, gzipped.
class Idx : public Test {
  protected:
    void SetUp() override {
        write_gz(folder_ / "train-images-idx3-ubyte.gz", idx_images(5));
        write_gz(folder_ / "train-labels-idx1-ubyte.gz", idx_labels(5));
        write_gz(folder_ / "t10k-images-idx3-ubyte.gz", idx_images(3));
        write_gz(folder_ / "t10k-labels-idx1-ubyte.gz", idx_labels(3));
    }
    std::shared_ptr<const Dataset> read(const std::string& kind = "fashion_mnist") const {
        return open("{kind: " + kind + ", path: '" + folder_.text() + "'}");
    }
    /// The error of reading after `name` was replaced; it names the file and the remedy.
    std::string error_with(const std::string& name, const Raw& bytes, bool zipped = true) const {
        (zipped ? write_gz : write)(folder_ / name, bytes);
        const std::string text = error_of<core::RunError>([&] { read(); });
        EXPECT_TRUE(text.starts_with((folder_ / name).string() + ": ")) << text;
        EXPECT_NE(text.find("download it again or reinstall the package dataset-fashion-mnist"),
                  std::string::npos)
            << text;
        return text;
    }

    TemporaryFolder folder_;
};

TEST_F(Idx, GivesShapesLabelsAndNormalisedPixels) {
    const auto set = read();
    EXPECT_EQ(set->name(), "fashion_mnist");
    EXPECT_EQ(set->source(), folder_.text());
    EXPECT_EQ(set->sample_shape(), (std::vector<std::int64_t>{1, 28, 28}));
    EXPECT_EQ(set->classes(), 10);
    EXPECT_FALSE(set->has_natural_clients());
    ASSERT_EQ(set->train()->size(), 5);
    ASSERT_EQ(set->test()->size(), 3);

    // Mean and deviation the slow way; the test images are normalised with the training images'.
    const Raw file = idx_images(5);
    double mean = 0.0;
    double variance = 0.0;
    for (std::size_t i = 16; i < file.size(); ++i) mean += file[i] / 255.0 / (5 * 784);
    for (std::size_t i = 16; i < file.size(); ++i)
        variance += std::pow(file[i] / 255.0 - mean, 2) / (5 * 784);
    ASSERT_EQ(set->normalisation().mean.size(), 1U);
    EXPECT_NEAR(set->normalisation().mean[0], mean, 1e-12);
    EXPECT_NEAR(set->normalisation().deviation[0], std::sqrt(variance), 1e-12);
    for (const auto& samples : {set->train(), set->test()}) {
        const Everything all = everything(*samples);
        for (std::size_t i = 0; i < all.x.size(); ++i) {
            ASSERT_NEAR(all.x[i], (file[16 + i] / 255.0 - mean) / std::sqrt(variance), 1e-6);
        }
        for (std::size_t i = 0; i < all.y.size(); ++i)
            ASSERT_EQ(all.y[i], static_cast<std::int64_t>(i + 3) % 10);
    }
}

TEST_F(Idx, PlainFilesAndTheOtherSpellingAreReadToo) {
    const Everything zipped = everything(*read()->train());
    std::filesystem::remove(folder_ / "train-images-idx3-ubyte.gz");
    std::filesystem::remove(folder_ / "train-labels-idx1-ubyte.gz");
    write(folder_ / "train-images-idx3-ubyte", idx_images(5));
    write(folder_ / "train-labels.idx1-ubyte", idx_labels(5));
    EXPECT_EQ(everything(*read("mnist")->train()), zipped);
    EXPECT_EQ(read("mnist")->name(), "mnist");
}

TEST_F(Idx, ConstantImagesBecomeZeroInsteadOfInfinite) {
    Raw images = idx_images(5);
    std::fill(images.begin() + 16, images.end(), std::uint8_t{9});
    write_gz(folder_ / "train-images-idx3-ubyte.gz", images);
    for (const float value : everything(*read()->train()).x) ASSERT_NEAR(value, 0.0F, 1e-6F);
}

TEST_F(Idx, MissingFilesSayHowToGetThem) {
    std::filesystem::remove(folder_ / "t10k-labels-idx1-ubyte.gz");
    const std::string file = error_of<core::RunError>([&] { read(); });
    EXPECT_CONTAINS(file, (folder_ / "t10k-labels-idx1-ubyte.gz").string() + ": there is no such file");
    EXPECT_CONTAINS(file, "apt install dataset-fashion-mnist");
    EXPECT_CONTAINS(file, "data.dataset.path");
    const std::string folder =
        error_of<core::RunError>([&] { open("{kind: mnist, path: /nowhere/at/all}"); });
    EXPECT_CONTAINS(folder, "/nowhere/at/all/train-images-idx3-ubyte.gz: there is no such file");
    EXPECT_CONTAINS(folder, "data.dataset.path");
}

TEST_F(Idx, AFolderInPlaceOfAFileIsNamed) {
    std::filesystem::remove(folder_ / "train-images-idx3-ubyte.gz");
    std::filesystem::create_directory(folder_ / "train-images-idx3-ubyte.gz");
    EXPECT_CONTAINS(error_of<core::RunError>([&] { read(); }), "train-images-idx3-ubyte.gz: is not a file");
}

TEST(IdxOptions, MnistNeedsAPath) {
    EXPECT_CONTAINS(error_of<core::UsageError>([] { open("mnist"); }), "path");
}

TEST_F(Idx, EveryFaultNamesTheFileAndWhatWasExpected) {
    const std::string images = "train-images-idx3-ubyte.gz";
    const std::string labels = "train-labels-idx1-ubyte.gz";
    EXPECT_CONTAINS(error_with(images, idx_labels(5)),
                    "magic number is 0x00000801 (idx labels); expected 0x00000803");
    EXPECT_CONTAINS(error_with(images, idx_images(5, 32, 28)),
                    "its images are 32×28; those of fashion_mnist are 28×28");
    EXPECT_CONTAINS(error_with(images, {}), "expected the 8 bytes of an idx header");
    EXPECT_CONTAINS(error_with(images, Raw{0, 0, 8, 3, 0, 0, 0, 5, 0, 0}),
                    "expected an idx header of 16 bytes");
    EXPECT_CONTAINS(error_with(images, idx_images(0)), "holds no images");
    Raw cut = idx_images(5);
    cut.resize(2000);
    EXPECT_CONTAINS(error_with(images, cut),
                    "expected 3,936 bytes for 5 images of 28×28 but the file ends after 2,000");
    Raw longer = idx_images(5);
    longer.push_back(0);
    EXPECT_CONTAINS(error_with(images, longer),
                    "expected 3,936 bytes for 5 images of 28×28 but the file goes on");
    Raw huge = idx_images(5);
    huge[4] = 0xff;  // four billion images would ask for terabytes
    EXPECT_CONTAINS(error_with(images, huge), "more than a file of this size can hold");
    write_gz(folder_ / images, idx_images(5));

    EXPECT_CONTAINS(error_with(labels, idx_labels(4)), "it holds 4 labels but ");
    EXPECT_CONTAINS(error_with(labels, idx_images(5)), "expected 0x00000801");
    Raw wrong = idx_labels(5);
    wrong[8 + 2] = 10;
    EXPECT_CONTAINS(error_with(labels, wrong), "the label of sample 2 is 10 but labels are 0 to 9");
    Raw short_labels = idx_labels(5);
    short_labels.pop_back();
    EXPECT_CONTAINS(error_with(labels, short_labels),
                    "expected 13 bytes for 5 labels but the file ends after 12");
    Raw more_labels = idx_labels(5);
    more_labels.push_back(1);
    EXPECT_CONTAINS(error_with(labels, more_labels), "goes on after");
    write_gz(folder_ / labels, idx_labels(5));
    EXPECT_EQ(read()->train()->size(), 5);
}

TEST_F(Idx, DamagedGzipIsSaidToBeDamaged) {
    const std::string name = "train-images-idx3-ubyte.gz";
    const Raw good = read_raw(folder_ / name);
    Raw cut = good;
    cut.resize(good.size() - 30);
    EXPECT_CONTAINS(error_with(name, cut, false), "gzip data are cut off after");
    cut.resize(good.size() - 1);  // all the pixels are there, the trailer is not
    EXPECT_CONTAINS(error_with(name, cut, false), "gzip data are ");
    Raw flipped = good;
    flipped[good.size() - 6] ^= 0x10;  // in the checksum
    EXPECT_CONTAINS(error_with(name, flipped, false),
                    "gzip data are damaged after 0 bytes (zlib: incorrect data check)");
    flipped = good;
    for (std::size_t i = good.size() / 2; i < good.size() / 2 + 8; ++i) flipped[i] ^= 0xff;
    EXPECT_CONTAINS(error_with(name, flipped, false), "gzip data are ");
}

/// Whatever is done to the files, reading them gives a whole data set or a RunError that names one of them.
TEST_F(Idx, MutatedFilesNeverDoWorse) {
    core::Random random(1, "fuzz");
    const std::vector<std::string> names{"train-images-idx3-ubyte", "train-labels-idx1-ubyte",
                                         "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"};
    const std::vector<Raw> plain{idx_images(5), idx_labels(5), idx_images(3), idx_labels(3)};
    std::vector<Raw> zipped;
    for (const auto& name : names) zipped.push_back(read_raw(folder_ / (name + ".gz")));
    int errors = 0;
    constexpr int tries = 600;
    for (int i = 0; i < tries; ++i) {
        const auto victim = static_cast<std::size_t>(random.below(4));
        const bool gz = random.below(2) == 1;
        Raw bytes = gz ? zipped[victim] : plain[victim];
        // Mostly the header, where a byte means most.
        const auto reach =
            random.below(3) == 0 ? std::ssize(bytes) : std::min<std::int64_t>(20, std::ssize(bytes));
        switch (random.below(4)) {
            case 0:
                bytes[static_cast<std::size_t>(random.below(reach))] =
                    static_cast<std::uint8_t>(random.below(256));
                break;
            case 1:
                bytes[static_cast<std::size_t>(random.below(reach))] ^=
                    static_cast<std::uint8_t>(1 << random.below(8));
                break;
            case 2:
                bytes.resize(static_cast<std::size_t>(random.below(std::ssize(bytes))));
                break;
            default:
                bytes.insert(bytes.begin() + random.below(reach),
                             static_cast<std::uint8_t>(random.below(256)));
        }
        std::filesystem::remove(folder_ / (names[victim] + ".gz"));
        write(folder_ / (names[victim] + (gz ? ".gz" : "")), bytes);
        try {
            const auto set = read();
            ASSERT_EQ(set->train()->size(), 5);
            ASSERT_EQ(set->test()->size(), 3);
            for (const auto label : everything(*set->train()).y) ASSERT_LT(label, 10);
            for (const float value : everything(*set->test()).x) ASSERT_TRUE(std::isfinite(value));
        } catch (const core::RunError& error) {
            ++errors;
            ASSERT_EQ(std::string(error.what()).find(folder_.text()), 0U) << error.what();
        }
        std::filesystem::remove(folder_ / names[victim]);
        write(folder_ / (names[victim] + ".gz"), zipped[victim]);
    }
    EXPECT_GT(errors, tries / 4);
    EXPECT_LT(errors, tries);
}

TEST_F(Idx, AllRanksSeeTheSameBytesAndTheSameErrors) {
    const Everything alone = everything(*read()->train());
    const std::string yaml = "{kind: fashion_mnist, path: '" + folder_.text() + "'}";
    thalweg::testing::run_ranks(3, [&](core::Communicator& ranks) {
        const auto set = open(yaml, ranks);
        EXPECT_EQ(everything(*set->train()), alone);
    });
    Raw cut = idx_images(5);
    cut.resize(2000);
    for (const char* name : {"train-images-idx3-ubyte.gz", "t10k-images-idx3-ubyte.gz"}) {
        write_gz(folder_ / name, cut);
        std::atomic<int> failed = 0;
        thalweg::testing::run_ranks(3, [&](core::Communicator& ranks) {
            error_of<core::RunError>([&] { open(yaml, ranks); });
            ++failed;
        });
        EXPECT_EQ(failed, 3);
    }
}

/// The package is a dependency of the program; its numbers are known.
TEST(FashionMnist, IsThePublishedData) {
    if (!std::filesystem::exists("/usr/share/datasets/fashion-mnist")) {
        GTEST_SKIP() << "dataset-fashion-mnist is not installed";
    }
    const auto set = open("fashion_mnist");
    EXPECT_EQ(set->source(), "/usr/share/datasets/fashion-mnist");
    ASSERT_EQ(set->train()->size(), 60000);
    ASSERT_EQ(set->test()->size(), 10000);
    EXPECT_NEAR(set->normalisation().mean[0], 0.2860, 5e-5);
    EXPECT_NEAR(set->normalisation().deviation[0], 0.3530, 5e-5);
    const Everything train = everything(*set->train());
    std::vector<int> counts(10);
    for (const auto label : train.y) ++counts[static_cast<std::size_t>(label)];
    EXPECT_EQ(counts, std::vector<int>(10, 6000));
    double sum = 0.0;
    double squares = 0.0;
    for (const float value : train.x) {
        sum += value;
        squares += static_cast<double>(value) * value;
    }
    EXPECT_NEAR(sum / static_cast<double>(train.x.size()), 0.0, 1e-6);
    EXPECT_NEAR(squares / static_cast<double>(train.x.size()), 1.0, 1e-6);
    EXPECT_EQ(std::vector<std::int64_t>(train.y.begin(), train.y.begin() + 8),
              (std::vector<std::int64_t>{9, 0, 0, 3, 0, 2, 7, 2}));
}

}  // namespace
}  // namespace thalweg::data::testing::idx_test
