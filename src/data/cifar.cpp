// CIFAR-10 and CIFAR-100, binary version: records of one or two label bytes and three colour planes of 32×32
// bytes.
#include <algorithm>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "byte_file.hpp"
#include "image_dataset.hpp"
#include "thalweg/core/registry.hpp"

namespace thalweg::data {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t image_bytes = 3 * 32 * 32;

/// The label bytes before each image: how many values each may take, and which of them is the label.
struct RecordFormat {
    std::vector<std::int64_t> label_classes;
    std::size_t chosen = 0;

    std::size_t label_bytes() const { return label_classes.size(); }
    std::size_t bytes() const { return label_bytes() + image_bytes; }
};

struct RecordFile {
    fs::path path;
    std::size_t records;
};

RecordFile look_at(const fs::path& path, const Remedy& remedy, const RecordFormat& format) {
    const ByteFile file(path, remedy);
    std::error_code status;
    const std::uint64_t size = fs::file_size(path, status);
    if (status) file.fail("its size cannot be read: " + status.message());
    if (size == 0 || size % format.bytes() != 0) {
        file.fail("expected a whole number of records of " + count_text(format.bytes()) +
                  " bytes but the file has " + count_text(size) + " bytes");
    }
    return {path, static_cast<std::size_t>(size / format.bytes())};
}

/// Splits the records of one file into images and labels.
void read_records(const RecordFile& source, const Remedy& remedy, const RecordFormat& format,
                  std::span<std::uint8_t> images, std::span<std::uint8_t> labels) {
    ByteFile file(source.path, remedy);
    const std::string expected =
        count_text(source.records * format.bytes()) + " bytes for " + count_text(source.records) + " records";
    std::vector<std::uint8_t> record(format.bytes());
    std::vector<std::vector<std::uint8_t>> columns(format.label_bytes(),
                                                   std::vector<std::uint8_t>(source.records));
    for (std::size_t i = 0; i < source.records; ++i) {
        file.read(record, expected);
        for (std::size_t l = 0; l < columns.size(); ++l) columns[l][i] = record[l];
        std::copy(record.begin() + static_cast<std::ptrdiff_t>(format.label_bytes()), record.end(),
                  images.begin() + static_cast<std::ptrdiff_t>(i * image_bytes));
    }
    file.finish(expected);
    for (std::size_t l = 0; l < columns.size(); ++l) check_labels(file, columns[l], format.label_classes[l]);
    std::copy(columns[format.chosen].begin(), columns[format.chosen].end(), labels.begin());
}

ImagePart part_of(const std::vector<RecordFile>& files, const Remedy& remedy, const RecordFormat& format) {
    std::size_t count = 0;
    for (const RecordFile& file : files) count += file.records;
    return {static_cast<std::int64_t>(count),
            [=](std::span<std::uint8_t> images, std::span<std::uint8_t> labels) {
                std::size_t begin = 0;
                for (const RecordFile& file : files) {
                    read_records(file, remedy, format,
                                 images.subspan(begin * image_bytes, file.records * image_bytes),
                                 labels.subspan(begin, file.records));
                    begin += file.records;
                }
            }};
}

/// The folder itself, or the one that the published archive unpacks to below it.
fs::path find_folder(const std::string& given, const std::string& archive_folder,
                     const std::string& first_file) {
    const fs::path folder = expand_home(given);
    std::error_code ignored;
    const bool below =
        !fs::exists(folder / first_file, ignored) && fs::exists(folder / archive_folder, ignored);
    return below ? folder / archive_folder : folder;
}

std::shared_ptr<const Dataset> open_cifar10(const core::Value& options, const DatasetContext& context) {
    const fs::path folder =
        find_folder(options["path"].as_text(), "cifar-10-batches-bin", "data_batch_1.bin");
    const ImageFacts facts{"cifar10", folder.string(), 3, 32, 32, 10};
    const Remedy remedy{
        "set data.dataset.path to the folder with data_batch_1.bin … data_batch_5.bin and "
        "test_batch.bin (CIFAR-10, binary version)",
        "unpack or download it again (CIFAR-10, binary version)"};
    const RecordFormat format{{10}, 0};
    return open_images(facts, context.communicator, [&] {
        std::vector<RecordFile> batches{look_at(folder / "data_batch_1.bin", remedy, format)};
        for (int batch = 2; batch <= 5; ++batch) {
            const fs::path path = folder / ("data_batch_" + std::to_string(batch) + ".bin");
            std::error_code ignored;
            if (fs::exists(path, ignored)) batches.push_back(look_at(path, remedy, format));
        }
        return ImageParts{part_of(batches, remedy, format),
                          part_of({look_at(folder / "test_batch.bin", remedy, format)}, remedy, format)};
    });
}

std::shared_ptr<const Dataset> open_cifar100(const core::Value& options, const DatasetContext& context) {
    const fs::path folder = find_folder(options["path"].as_text(), "cifar-100-binary", "train.bin");
    const bool fine = options["labels"].as_text() == "fine";
    const ImageFacts facts{"cifar100", folder.string(), 3, 32, 32, fine ? 100 : 20};
    const Remedy remedy{
        "set data.dataset.path to the folder with train.bin and test.bin (CIFAR-100, binary version)",
        "unpack or download it again (CIFAR-100, binary version)"};
    const RecordFormat format{{20, 100}, fine ? std::size_t{1} : std::size_t{0}};
    return open_images(facts, context.communicator, [&] {
        return ImageParts{part_of({look_at(folder / "train.bin", remedy, format)}, remedy, format),
                          part_of({look_at(folder / "test.bin", remedy, format)}, remedy, format)};
    });
}

const char* const citation = "Krizhevsky: Learning multiple layers of features from tiny images (2009)";

const core::Registration<std::shared_ptr<const Dataset>, const DatasetContext&> cifar10{
    {.kind = "dataset",
     .name = "cifar10",
     .help = "50,000 + 10,000 colour images, 32×32, 10 classes",
     .citation = citation,
     .options = {core::text("path",
                            "folder of the binary version: data_batch_1.bin (and those of 2 to 5 that exist) "
                            "and test_batch.bin")}},
    open_cifar10};

const core::Registration<std::shared_ptr<const Dataset>, const DatasetContext&> cifar100{
    {.kind = "dataset",
     .name = "cifar100",
     .help = "50,000 + 10,000 colour images, 32×32, 100 classes in 20 groups",
     .citation = citation,
     .options = {core::text("path", "folder of the binary version: train.bin and test.bin"),
                 core::choice("labels", {"fine", "coarse"}, "the 100 classes or their 20 groups")
                     .by_default("fine")}},
    open_cifar100};

}  // namespace
}  // namespace thalweg::data
