#include "../zip_archive.hpp"
#include "thalweg/core/error.hpp"
#include "trace.hpp"

namespace thalweg::model::torchscript {

void check_archive(const std::filesystem::path& path, const std::string& content) {
    const auto fail = [&](const std::string& reason) {
        throw core::RunError("Cannot read " + path.string() + ": " + reason +
                             ". A TorchScript file is what torch.jit.save writes.");
    };
    try {
        const ZipArchive zip(content);
        zip.check_records();
        if (!zip.has(zip.folder() + "data.pkl")) fail("it is a zip archive, but not one that PyTorch wrote");
        if (!zip.is_torchscript()) {
            fail("it holds tensors but no code: it is what torch.save writes, for instance a state_dict");
        }
    } catch (const FormatError& error) {
        fail(error.what());
    }
}

}  // namespace thalweg::model::torchscript
