// The first byte says which data set and which file the rest is.
#include <vector>

#include "memory_file.hpp"
#include "target.hpp"
#include "thalweg/core/communicator.hpp"
#include "thalweg/core/schema.hpp"
#include "thalweg/data/dataset.hpp"

namespace {

using namespace thalweg;

struct Files {
    fuzz::Folder folder;
    fuzz::MemoryFile train, test;
    core::Value options;
    std::vector<std::uint8_t> good;

    Files(const std::string& kind, const std::string& train_name, const std::string& test_name,
          std::size_t record)
        : folder("thalweg-fuzz-" + kind),
          train(folder.path() / train_name),
          test(folder.path() / test_name),
          options(core::resolve_plugin("dataset", "kind",
                                       core::Value::map({{"kind", core::Value::of(kind)},
                                                         {"path", core::Value::of(folder.path().string())}}),
                                       "data.dataset")),
          good(record, 7) {
        train.set(good);
        test.set(good);
    }
};

}  // namespace

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    static Files cifar10("cifar10", "data_batch_1.bin", "test_batch.bin", 3073);
    static Files cifar100("cifar100", "train.bin", "test.bin", 3074);
    if (size == 0) return 0;
    auto& files = (data[0] & 1) != 0 ? cifar100 : cifar10;
    auto& chosen = (data[0] & 2) != 0 ? files.test : files.train;
    chosen.set({data + 1, size - 1});
    fuzz::reads([&] {
        core::SelfCommunicator self;
        data::open_dataset(files.options, {self, 1});
    });
    chosen.set(files.good);
    return 0;
}
