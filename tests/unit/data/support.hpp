#pragma once

#include <gtest/gtest.h>
#include <unistd.h>
#include <zlib.h>

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <memory>
#include <numeric>
#include <string>
#include <vector>

#include "thalweg/core/communicator.hpp"
#include "thalweg/core/error.hpp"
#include "thalweg/core/schema.hpp"
#include "thalweg/data/dataset.hpp"
#include "thalweg/data/partition.hpp"

/// `text` has `part` in it; shows `text` otherwise.
#define EXPECT_CONTAINS(text, part) EXPECT_NE((text).find(part), std::string::npos) << (text)

namespace thalweg::data::testing {

using Raw = std::vector<std::uint8_t>;

/// A folder that goes away with the test.
class TemporaryFolder {
  public:
    TemporaryFolder() {
        std::string name = (std::filesystem::temp_directory_path() / "thalweg-data-XXXXXX").string();
        if (mkdtemp(name.data()) == nullptr) throw std::runtime_error("mkdtemp");
        path_ = name;
    }
    ~TemporaryFolder() { std::filesystem::remove_all(path_); }
    TemporaryFolder(const TemporaryFolder&) = delete;
    TemporaryFolder& operator=(const TemporaryFolder&) = delete;
    std::filesystem::path operator/(const std::string& name) const { return path_ / name; }
    std::string text() const { return path_.string(); }

  private:
    std::filesystem::path path_;
};

inline void write(const std::filesystem::path& path, const Raw& bytes) {
    std::ofstream(path, std::ios::binary)
        .write(reinterpret_cast<const char*>(bytes.data()), std::ssize(bytes));
}

inline void write_gz(const std::filesystem::path& path, const Raw& bytes) {
    const gzFile file = gzopen(path.c_str(), "wb");
    ASSERT_EQ(gzwrite(file, bytes.data(), static_cast<unsigned>(bytes.size())),
              static_cast<int>(bytes.size()));
    ASSERT_EQ(gzclose(file), Z_OK);
}

inline Raw read_raw(const std::filesystem::path& path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

/// Opens a data set given in YAML, as in a configuration.
inline std::shared_ptr<const Dataset> open(const std::string& yaml, core::Communicator& communicator,
                                           std::uint64_t seed = 1) {
    const auto options =
        core::resolve_plugin("dataset", "kind", core::parse_yaml(yaml, "test.yaml"), "data.dataset");
    return open_dataset(options, {communicator, seed});
}
inline std::shared_ptr<const Dataset> open(const std::string& yaml, std::uint64_t seed = 1) {
    core::SelfCommunicator alone;
    return open(yaml, alone, seed);
}

inline core::Value partition_options(const std::string& yaml) {
    return core::resolve_plugin("partitioner", "scheme", core::parse_yaml(yaml, "test.yaml"),
                                "data.partition");
}

/// The text of the error of type E that `work` throws; a test failure when it throws none.
template <class E, class Work>
std::string error_of(const Work& work) {
    try {
        work();
    } catch (const E& error) {
        return error.what();
    } catch (const std::exception& error) {
        ADD_FAILURE() << "another error: " << error.what();
        return {};
    }
    ADD_FAILURE() << "no error";
    return {};
}

/// All samples and labels of a set.
struct Everything {
    std::vector<float> x;
    std::vector<std::int64_t> y;
    bool operator==(const Everything&) const = default;
};
inline Everything everything(const SampleSet& set) {
    std::vector<std::int64_t> indices(static_cast<std::size_t>(set.size()));
    std::iota(indices.begin(), indices.end(), std::int64_t{0});
    Everything all{std::vector<float>(indices.size() * static_cast<std::size_t>(set.width())),
                   std::vector<std::int64_t>(indices.size())};
    set.gather(indices, all.x.data(), all.y.data());
    return all;
}

}  // namespace thalweg::data::testing
