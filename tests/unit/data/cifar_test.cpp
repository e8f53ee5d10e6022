#include <cmath>

#include "thalweg/core/random.hpp"
#include "unit/data/support.hpp"

namespace thalweg::data::testing::cifar_test {
namespace {

constexpr std::size_t pixels = 1024;

/// Records whose label bytes are given; every plane has a level of its own so that mixed-up planes show.
Raw records(const std::vector<Raw>& labels) {
    Raw bytes;
    for (std::size_t i = 0; i < labels.size(); ++i) {
        bytes.insert(bytes.end(), labels[i].begin(), labels[i].end());
        for (std::size_t p = 0; p < 3 * pixels; ++p) {
            bytes.push_back(static_cast<std::uint8_t>(60 * (p / pixels) + 7 * i + p % 32));
        }
    }
    return bytes;
}

class Cifar : public ::testing::Test {
  protected:
    void SetUp() override {
        write(folder_ / "data_batch_1.bin", records({{3}, {8}}));
        write(folder_ / "data_batch_4.bin", records({{1}}));
        write(folder_ / "test_batch.bin", records({{9}, {0}, {5}}));
        write(folder_ / "train.bin", records({{19, 99}, {0, 0}, {4, 55}}));
        write(folder_ / "test.bin", records({{7, 21}}));
    }
    std::shared_ptr<const Dataset> read(const std::string& kind, const std::string& more = "") const {
        return open("{kind: " + kind + ", path: '" + folder_.text() + "'" + more + "}");
    }
    TemporaryFolder folder_;
};

TEST_F(Cifar, TenReadsTheBatchesThatExistInOrder) {
    const auto set = read("cifar10");
    EXPECT_EQ(set->sample_shape(), (std::vector<std::int64_t>{3, 32, 32}));
    EXPECT_EQ(set->classes(), 10);
    EXPECT_EQ(everything(*set->train()).y, (std::vector<std::int64_t>{3, 8, 1}));
    EXPECT_EQ(everything(*set->test()).y, (std::vector<std::int64_t>{9, 0, 5}));
}

TEST_F(Cifar, NormalisesPlaneByPlane) {
    const auto set = read("cifar10");
    const Everything all = everything(*set->train());
    // The three training images: levels i = 0, 1 of the first batch, 0 of the second.
    const std::vector<std::size_t> level{0, 1, 0};
    const auto byte = [&](std::size_t image, std::size_t channel, std::size_t p) {
        return static_cast<double>(static_cast<std::uint8_t>(60 * channel + 7 * level[image] + p % 32));
    };
    for (std::size_t c = 0; c < 3; ++c) {
        double mean = 0.0;
        double variance = 0.0;
        for (std::size_t i = 0; i < 3; ++i) {
            for (std::size_t p = 0; p < pixels; ++p) mean += byte(i, c, p) / 255.0 / (3 * pixels);
        }
        for (std::size_t i = 0; i < 3; ++i) {
            for (std::size_t p = 0; p < pixels; ++p)
                variance += std::pow(byte(i, c, p) / 255.0 - mean, 2) / (3 * pixels);
        }
        EXPECT_NEAR(set->normalisation().mean[c], mean, 1e-12);
        EXPECT_NEAR(set->normalisation().deviation[c], std::sqrt(variance), 1e-12);
        for (std::size_t i = 0; i < 3; ++i) {
            for (std::size_t p = 0; p < pixels; ++p) {
                ASSERT_NEAR(all.x[(i * 3 + c) * pixels + p],
                            (byte(i, c, p) / 255.0 - mean) / std::sqrt(variance), 1e-5);
            }
        }
    }
}

TEST_F(Cifar, HundredHasFineAndCoarseLabels) {
    const auto fine = read("cifar100");
    EXPECT_EQ(fine->classes(), 100);
    EXPECT_EQ(everything(*fine->train()).y, (std::vector<std::int64_t>{99, 0, 55}));
    EXPECT_EQ(everything(*fine->test()).y, (std::vector<std::int64_t>{21}));
    const auto coarse = read("cifar100", ", labels: coarse");
    EXPECT_EQ(coarse->classes(), 20);
    EXPECT_EQ(everything(*coarse->train()).y, (std::vector<std::int64_t>{19, 0, 4}));
    EXPECT_EQ(everything(*coarse->train()).x, everything(*fine->train()).x);
}

TEST_F(Cifar, TheFolderOfTheArchiveIsFoundBelowThePath) {
    std::filesystem::create_directory(folder_ / "below");
    std::filesystem::create_directory(folder_ / "below/cifar-10-batches-bin");
    for (const char* name : {"data_batch_1.bin", "test_batch.bin"}) {
        std::filesystem::copy(folder_ / name, folder_ / ("below/cifar-10-batches-bin/" + std::string(name)));
    }
    EXPECT_EQ(open("{kind: cifar10, path: '" + folder_.text() + "/below'}")->train()->size(), 2);
}

TEST_F(Cifar, EveryFaultNamesTheFileAndWhatWasExpected) {
    const auto error_with = [&](const std::string& kind, const std::string& name, const Raw& bytes) {
        const Raw good = read_raw(folder_ / name);
        write(folder_ / name, bytes);
        const std::string text = error_of<core::RunError>([&] { read(kind); });
        write(folder_ / name, good);
        EXPECT_TRUE(text.starts_with((folder_ / name).string() + ": ")) << text;
        EXPECT_CONTAINS(text, "download it again");
        return text;
    };
    Raw cut = records({{1}, {2}});
    cut.pop_back();
    EXPECT_CONTAINS(error_with("cifar10", "data_batch_4.bin", cut),
                    "expected a whole number of records of 3,073 bytes but the file has 6,145 bytes");
    EXPECT_CONTAINS(error_with("cifar10", "test_batch.bin", {}), "the file has 0 bytes");
    EXPECT_CONTAINS(error_with("cifar10", "data_batch_1.bin", records({{1}, {10}})),
                    "the label of sample 1 is 10 but labels are 0 to 9");
    EXPECT_CONTAINS(error_with("cifar100", "train.bin", records({{20, 5}})), "is 20 but labels are 0 to 19");
    EXPECT_CONTAINS(error_with("cifar100", "test.bin", records({{2, 100}})), "is 100 but labels are 0 to 99");
    std::filesystem::remove(folder_ / "data_batch_1.bin");
    const std::string missing = error_of<core::RunError>([&] { read("cifar10"); });
    EXPECT_CONTAINS(missing, "data_batch_1.bin: there is no such file");
    EXPECT_CONTAINS(missing, "data.dataset.path");
    EXPECT_CONTAINS(error_of<core::UsageError>([] { open("cifar100"); }), "path");
}

TEST_F(Cifar, MutatedFilesNeverDoWorse) {
    core::Random random(2, "fuzz");
    const std::vector<std::pair<std::string, std::string>> files{{"cifar10", "data_batch_1.bin"},
                                                                 {"cifar10", "test_batch.bin"},
                                                                 {"cifar100", "train.bin"},
                                                                 {"cifar100", "test.bin"}};
    int errors = 0;
    constexpr int tries = 200;
    for (int i = 0; i < tries; ++i) {
        const auto& [kind, name] = files[static_cast<std::size_t>(random.below(4))];
        const Raw good = read_raw(folder_ / name);
        Raw bytes = good;
        const auto reach = random.below(2) == 0 ? std::ssize(bytes) : std::int64_t{4};
        switch (random.below(4)) {
            case 0:
                bytes[static_cast<std::size_t>(random.below(reach))] =
                    static_cast<std::uint8_t>(random.below(256));
                break;
            case 1:
                bytes[0] = 0x1f, bytes[1] = 0x8b;
                break;  // gzip's magic
            case 2:
                bytes.resize(static_cast<std::size_t>(random.below(std::ssize(bytes))));
                break;
            default:
                bytes.insert(bytes.begin() + random.below(reach),
                             static_cast<std::uint8_t>(random.below(256)));
        }
        write(folder_ / name, bytes);
        try {
            for (const auto label : everything(*read(kind)->train()).y) ASSERT_LT(label, 100);
        } catch (const core::RunError& error) {
            ++errors;
            ASSERT_EQ(std::string(error.what()).find((folder_ / name).string()), 0U) << error.what();
        }
        write(folder_ / name, good);
    }
    EXPECT_GT(errors, tries / 4);
    EXPECT_LT(errors, tries);
}

}  // namespace
}  // namespace thalweg::data::testing::cifar_test
