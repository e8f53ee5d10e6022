// Fashion-MNIST and MNIST: four files in the idx format, plain or gzipped. A file begins with a magic number
// (two zero bytes, the element type, the number of dimensions) and the dimensions, all big-endian 32 bits.
#include <array>
#include <cstdio>
#include <filesystem>
#include <string>
#include <utility>

#include "byte_file.hpp"
#include "image_dataset.hpp"
#include "thalweg/core/registry.hpp"

namespace thalweg::data {
namespace {

namespace fs = std::filesystem;

constexpr std::uint32_t images_magic = 0x00000803;  // unsigned bytes, three dimensions
constexpr std::uint32_t labels_magic = 0x00000801;  // unsigned bytes, one dimension

std::uint32_t big_endian(const std::uint8_t* bytes) {
    return std::uint32_t{bytes[0]} << 24U | std::uint32_t{bytes[1]} << 16U | std::uint32_t{bytes[2]} << 8U |
           bytes[3];
}

std::string magic_text(std::uint32_t magic) {
    std::array<char, 16> text{};
    std::snprintf(text.data(), text.size(), "0x%08x", magic);
    return std::string(text.data()) + (magic == images_magic   ? " (idx images)"
                                       : magic == labels_magic ? " (idx labels)"
                                                               : "");
}

/// `stem` as the package, the web page and older mirrors spell it; the first spelling when none is there.
fs::path find_idx(const fs::path& folder, const std::string& stem, const std::string& dimensions) {
    for (const char* separator : {"-", "."}) {
        for (const char* ending : {".gz", ""}) {
            fs::path path = folder / (stem + separator + dimensions + "-ubyte" + ending);
            std::error_code ignored;
            if (fs::exists(path, ignored)) return path;
        }
    }
    return folder / (stem + "-" + dimensions + "-ubyte.gz");
}

/// Magic and count; leaves the file at the first dimension after the count.
std::uint64_t read_count(ByteFile& file, std::uint32_t magic) {
    std::array<std::uint8_t, 8> header{};
    file.read(header, "the 8 bytes of an idx header with magic number " + magic_text(magic));
    const std::uint32_t found = big_endian(header.data());
    if (found != magic)
        file.fail("its magic number is " + magic_text(found) + "; expected " + magic_text(magic));
    return big_endian(header.data() + 4);
}

std::string size_text(const ImageFacts& facts) {
    return std::to_string(facts.height) + "×" + std::to_string(facts.width);
}

/// The number of images, checked against what the file can hold.
std::uint64_t read_images_header(ByteFile& file, const ImageFacts& facts) {
    const std::uint64_t count = read_count(file, images_magic);
    std::array<std::uint8_t, 8> dimensions{};
    file.read(dimensions, "an idx header of 16 bytes");
    const std::uint32_t height = big_endian(dimensions.data());
    const std::uint32_t width = big_endian(dimensions.data() + 4);
    if (height != facts.height || width != facts.width) {
        file.fail("its images are " + std::to_string(height) + "×" + std::to_string(width) + "; those of " +
                  facts.name + " are " + size_text(facts));
    }
    if (count == 0) file.fail("it holds no images");
    if (count * static_cast<std::uint64_t>(facts.bytes()) > file.most_bytes()) {
        file.fail("its header announces " + count_text(count) + " images of " + size_text(facts) +
                  ", more than a file of this size can hold");
    }
    return count;
}

void read_images(const fs::path& path, const Remedy& remedy, const ImageFacts& facts,
                 std::span<std::uint8_t> images) {
    ByteFile file(path, remedy);
    const auto announced = read_images_header(file, facts);
    const auto count = images.size() / static_cast<std::uint64_t>(facts.bytes());
    if (announced != count) file.fail("it changed while it was read");
    const std::string expected =
        count_text(16 + images.size()) + " bytes for " + count_text(count) + " images of " + size_text(facts);
    file.read(images, expected);
    file.finish(expected);
}

void read_labels(const fs::path& path, const Remedy& remedy, const ImageFacts& facts,
                 const fs::path& images_path, std::span<std::uint8_t> labels) {
    ByteFile file(path, remedy);
    const std::uint64_t announced = read_count(file, labels_magic);
    if (announced != labels.size()) {
        file.fail("it holds " + count_text(announced) + " labels but " + images_path.string() + " holds " +
                  count_text(labels.size()) + " images");
    }
    const std::string expected =
        count_text(8 + labels.size()) + " bytes for " + count_text(labels.size()) + " labels";
    file.read(labels, expected);
    file.finish(expected);
    check_labels(file, labels, facts.classes);
}

ImagePart look_at(const fs::path& folder, const std::string& prefix, const Remedy& remedy,
                  const ImageFacts& facts) {
    const fs::path images_path = find_idx(folder, prefix + "-images", "idx3");
    const fs::path labels_path = find_idx(folder, prefix + "-labels", "idx1");
    ByteFile file(images_path, remedy);
    const auto count = static_cast<std::int64_t>(read_images_header(file, facts));
    return {count, [=](std::span<std::uint8_t> images, std::span<std::uint8_t> labels) {
                read_images(images_path, remedy, facts, images);
                read_labels(labels_path, remedy, facts, images_path, labels);
            }};
}

std::shared_ptr<const Dataset> open_idx(const std::string& name, const core::Value& options,
                                        const Remedy& remedy, const DatasetContext& context) {
    const fs::path folder = expand_home(options["path"].as_text());
    const ImageFacts facts{name, folder.string(), 1, 28, 28, 10};
    return open_images(facts, context.communicator, [&] {
        return ImageParts{look_at(folder, "train", remedy, facts), look_at(folder, "t10k", remedy, facts)};
    });
}

using Registration = core::Registration<std::shared_ptr<const Dataset>, const DatasetContext&>;

const Registration fashion_mnist{
    {.kind = "dataset",
     .name = "fashion_mnist",
     .help =
         "60,000 + 10,000 grey images of clothes, 28×28, 10 classes; Debian package dataset-fashion-mnist",
     .citation = "Xiao, Rasul, Vollgraf: Fashion-MNIST (2017), arXiv:1708.07747",
     .options = {core::text("path",
                            "folder with train-images-idx3-ubyte, train-labels-idx1-ubyte and the two "
                            "t10k- files, plain or .gz")
                     .by_default("/usr/share/datasets/fashion-mnist")}},
    [](const core::Value& options, const DatasetContext& context) {
        return open_idx(
            "fashion_mnist", options,
            {"install it with `apt install dataset-fashion-mnist`, or set data.dataset.path to the folder "
             "that holds the four idx files",
             "download it again or reinstall the package dataset-fashion-mnist"},
            context);
    }};

const Registration mnist{
    {.kind = "dataset",
     .name = "mnist",
     .help = "60,000 + 10,000 grey images of handwritten digits, 28×28, 10 classes",
     .citation =
         "LeCun, Bottou, Bengio, Haffner: Gradient-based learning applied to document recognition (1998)",
     .options = {core::text("path",
                            "folder with train-images-idx3-ubyte, train-labels-idx1-ubyte and the two "
                            "t10k- files, plain or .gz (no Debian package has them)")}},
    [](const core::Value& options, const DatasetContext& context) {
        return open_idx(
            "mnist", options,
            {"set data.dataset.path to the folder that holds MNIST's four idx files", "download it again"},
            context);
    }};

}  // namespace
}  // namespace thalweg::data
