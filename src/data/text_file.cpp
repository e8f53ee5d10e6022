#include "text_file.hpp"

#include <limits>
#include <utility>
#include <vector>

#include "byte_file.hpp"
#include "thalweg/core/error.hpp"
#include "thalweg/core/files.hpp"

namespace thalweg::data {
namespace {

/// Partitions number samples with 32 bits, and a text has fewer windows than characters.
constexpr std::uint64_t most_bytes = std::numeric_limits<std::uint32_t>::max();

}  // namespace

SharedBytes share_text_file(const std::string& path, core::Communicator& communicator) {
    const Remedy remedy{"set data.dataset.path to a plain text file", "copy it again, or unzip it by hand"};
    const std::string expected = "a text";
    const std::size_t size = core::collectively(communicator, [&] {
        ByteFile file(path, remedy);
        const std::uint64_t bytes = file.measure(most_bytes, expected);
        if (bytes == 0) {
            throw core::RunError(path + ": the file is empty; set data.dataset.path to a plain text file");
        }
        if (bytes > most_bytes) {
            throw core::RunError(path + ": holds more than " + count_text(most_bytes) +
                                 " bytes, the most a text may have; cut it into several files");
        }
        return static_cast<std::size_t>(bytes);
    });
    const auto check_equal = [&](std::uint64_t mine) {
        for (const core::Bytes& theirs : communicator.all_gather(core::as_bytes(std::vector{mine}))) {
            if (core::from_bytes<std::uint64_t>(theirs).front() == mine) continue;
            throw core::RunError(path +
                                 ": the file is not the same on all nodes; copy one node's to the others");
        }
    };
    check_equal(size);
    auto block = communicator.share(size, [&](std::span<std::byte> bytes) {
        ByteFile file(path, remedy);
        const std::string whole = count_text(bytes.size()) + " bytes";
        file.read({reinterpret_cast<std::uint8_t*>(bytes.data()), bytes.size()}, whole);
        file.finish(whole);
    });
    check_equal(core::crc32({block.get(), size}));
    return {std::move(block), size};
}

}  // namespace thalweg::data
