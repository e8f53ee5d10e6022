#include <string>

#include "target.hpp"
#include "thalweg/model/model_file.hpp"

namespace {

/// The length in front of the header put right: an input that begins with the header itself.
std::string with_length(const std::string& header) {
    std::string length(8, '\0');
    const auto end = header.rfind('}');
    const auto size = end == std::string::npos ? header.size() : end + 1;
    for (std::size_t i = 0; i < 8; ++i) length[i] = static_cast<char>(size >> (8 * i) & 0xff);
    return length + header;
}

}  // namespace

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    using namespace thalweg;
    static const auto spec = core::parse_yaml("{kind: linear, input: [3], classes: 2}", "spec");
    auto content = fuzz::text_of(data, size);
    if (content.starts_with('{')) content = with_length(content);
    fuzz::reads([&] { model::parse_model(content, "m.safetensors"); });
    fuzz::reads([&] { model::parse_model(content, "m.safetensors", spec); });
    fuzz::reads([&] { model::parse_tensors(content, "m.safetensors"); });
    return 0;
}
