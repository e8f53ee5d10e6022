// The first byte says which of the four files the rest is; the other three are as they should be.
#include <array>
#include <vector>

#include "memory_file.hpp"
#include "target.hpp"
#include "thalweg/core/communicator.hpp"
#include "thalweg/core/schema.hpp"
#include "thalweg/data/dataset.hpp"

namespace {

using Bytes = std::vector<std::uint8_t>;

constexpr std::uint8_t count = 2;

Bytes images() {
    Bytes bytes{0, 0, 8, 3, 0, 0, 0, count, 0, 0, 0, 28, 0, 0, 0, 28};
    bytes.resize(bytes.size() + count * 28 * 28, 100);
    return bytes;
}

Bytes labels() {
    return {0, 0, 8, 1, 0, 0, 0, count, 3, 9};
}

struct Files {
    thalweg::fuzz::Folder folder{"thalweg-fuzz-idx"};
    std::array<thalweg::fuzz::MemoryFile, 4> files{
        thalweg::fuzz::MemoryFile(folder.path() / "train-images-idx3-ubyte.gz"),
        thalweg::fuzz::MemoryFile(folder.path() / "train-labels-idx1-ubyte.gz"),
        thalweg::fuzz::MemoryFile(folder.path() / "t10k-images-idx3-ubyte"),
        thalweg::fuzz::MemoryFile(folder.path() / "t10k-labels-idx1-ubyte")};
    std::array<Bytes, 4> good{images(), labels(), images(), labels()};

    Files() {
        for (std::size_t i = 0; i < files.size(); ++i) files[i].set(good[i]);
    }
};

}  // namespace

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    using namespace thalweg;
    static Files files;
    static const auto options =
        core::resolve_plugin("dataset", "kind",
                             core::Value::map({{"kind", core::Value::of("mnist")},
                                               {"path", core::Value::of(files.folder.path().string())}}),
                             "data.dataset");
    if (size == 0) return 0;
    const auto chosen = data[0] % files.files.size();
    files.files[chosen].set({data + 1, size - 1});
    fuzz::reads([&] {
        core::SelfCommunicator self;
        data::open_dataset(options, {self, 1});
    });
    files.files[chosen].set(files.good[chosen]);
    return 0;
}
