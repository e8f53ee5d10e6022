// Damaged files: whatever the damage, a file loads or is refused with a RunError.
#include <gtest/gtest.h>
#include <torch/types.h>

#include <cstring>
#include <fstream>
#include <span>

#include "helpers.hpp"
#include "thalweg/core/error.hpp"
#include "thalweg/core/files.hpp"
#include "thalweg/model/model_file.hpp"

namespace thalweg::model::model_file_fuzz_test {
namespace {

/// A few random bytes changed, a piece removed, doubled or overwritten, or the end cut off.
void damage(std::string& bytes, core::Random& random, std::size_t from, std::size_t to) {
    const auto place = [&] {
        return from + static_cast<std::size_t>(random.below(static_cast<std::int64_t>(to - from)));
    };
    const auto at = place();
    const auto length = std::min<std::size_t>(static_cast<std::size_t>(random.below(16)) + 1, to - at);
    switch (random.below(6)) {
        case 0:
            bytes.resize(at);
            break;
        case 1:
            bytes.erase(at, length);
            break;
        case 2:
            bytes.insert(at, bytes.substr(place(), length));
            break;
        case 3:
            for (std::size_t i = 0; i < length; ++i) bytes[at + i] = static_cast<char>(random.below(256));
            break;
        default:
            for (std::int64_t i = random.below(4); i >= 0; --i) {
                bytes[place()] ^= static_cast<char>(1U << static_cast<unsigned>(random.below(8)));
            }
    }
}

/// True when it loaded, false when it was refused properly; anything else fails the test.
template <class Load>
bool loads(Load&& load, std::int64_t trial) {
    try {
        load();
        return true;
    } catch (const core::RunError& error) {
        EXPECT_NE(std::string(error.what()).find("m.pt"), std::string::npos) << error.what();
    } catch (const std::exception& error) {
        ADD_FAILURE() << "trial " << trial << ": " << error.what();
    }
    return false;
}

class Damage : public ::testing::Test {
  protected:
    Damage() {
        const auto graph = test::graph_of("{kind: mlp, hidden: [3], norm: batch}", {4}, 2);
        save_model(path, graph, test::random_parameters(graph), {{"data", "x"}});
        good = core::read_file(path);
    }
    void write(const std::string& bytes) const {
        // Some file systems flush a file that is truncated and written again.
        std::filesystem::remove(path);
        std::ofstream(path, std::ios::binary) << bytes;
    }
    test::TemporaryFolder folder;
    std::filesystem::path path = folder / "m.pt";
    std::string good;
};

TEST_F(Damage, AnywhereNeverCrashes) {
    core::Random random(1, "damage");
    int loaded = 0;
    for (std::int64_t trial = 0; trial < 2000; ++trial) {
        auto bytes = good;
        damage(bytes, random, 0, bytes.size());
        write(bytes);
        loaded += loads([&] { load_model(path); }, trial);
        loads([&] { load_tensors(path); }, trial);
    }
    // Padding may change unnoticed; most damage must not.
    EXPECT_LT(loaded, 1000);
    EXPECT_GT(loaded, 0);
}

/// Offsets of the record's data, size and CRC fields in an archive that PyTorchStreamWriter wrote.
struct PickleRecord {
    std::size_t data, size, crc_field;
};

PickleRecord find_pickle(const std::string& bytes) {
    const std::string name = "archive/data.pkl";
    const auto local = bytes.find(name);
    const auto directory = bytes.rfind(name) - 46;
    std::uint16_t extra = 0;
    std::memcpy(&extra, bytes.data() + local - 2, 2);
    std::uint32_t size = 0;
    std::memcpy(&size, bytes.data() + directory + 24, 4);
    return {local + name.size() + extra, size, directory + 16};
}

TEST_F(Damage, OfThePickleBehindAValidChecksumNeverCrashes) {
    const auto record = find_pickle(good);
    ASSERT_EQ(good[record.data], '\x80');
    ASSERT_EQ(good[record.data + record.size - 1], '.');
    core::Random random(2, "damage");
    int loaded = 0;
    for (std::int64_t trial = 0; trial < 4000; ++trial) {
        auto pickled = good.substr(record.data, record.size);
        damage(pickled, random, 0, pickled.size());
        pickled.resize(record.size, '.');  // the archive's offsets stay
        const auto crc = core::crc32(std::as_bytes(std::span(pickled.data(), pickled.size())));
        auto bytes = good;
        bytes.replace(record.data, record.size, pickled);
        std::memcpy(bytes.data() + record.crc_field, &crc, 4);
        write(bytes);
        loaded += loads([&] { load_model(path); }, trial);
        loads([&] { load_model(path, core::parse_yaml("{kind: linear, input: [3], classes: 2}", "spec")); },
              trial);
    }
    EXPECT_GT(loaded, 0);
}

}  // namespace
}  // namespace thalweg::model::model_file_fuzz_test
