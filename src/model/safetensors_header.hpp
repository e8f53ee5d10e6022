#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace thalweg::model {

/// The JSON header of a safetensors file as it is written there; only its form has been checked.
struct SafetensorsHeader {
    struct Entry {
        std::string name;
        std::string dtype;
        std::vector<std::int64_t> shape;
        std::vector<std::int64_t> offsets;  ///< begin and end
    };
    std::vector<Entry> entries;
    std::map<std::string, std::string> metadata;
};

/// FormatError for anything but a header: other structure, a number that is negative, no integer or beyond 64
/// bits, a name twice. Memory stays within a small multiple of the text's size.
SafetensorsHeader parse_safetensors_header(std::string_view text);

}  // namespace thalweg::model
