// What torch.save writes. An input that is no zip archive is taken for the pickled object inside one.
#include <string>
#include <utility>
#include <vector>

#include "target.hpp"
#include "thalweg/model/model_file.hpp"
#include "unit/support/stored_zip.hpp"

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    using namespace thalweg;
    static const auto spec = core::parse_yaml("{kind: linear, input: [3], classes: 2}", "spec");
    static const std::string storage(64, '\x3f');
    auto content = fuzz::text_of(data, size);
    if (!content.starts_with("PK")) {
        std::vector<std::pair<std::string, std::string>> records{{"archive/data.pkl", content}};
        for (int i = 0; i < 8; ++i) records.emplace_back("archive/data/" + std::to_string(i), storage);
        content = testing::stored_zip(records);
    }
    fuzz::reads([&] { model::parse_model(content, "m.pt"); });
    fuzz::reads([&] { model::parse_model(content, "m.pt", spec); });
    fuzz::reads([&] { model::parse_tensors(content, "m.pt"); });
    return 0;
}
