#pragma once

#include <initializer_list>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace thalweg::record {

using Json = nlohmann::ordered_json;

/// JSON text whatever bytes there are in it: a path need not be UTF-8, and what is not becomes U+FFFD rather than an
/// exception at the end of the work. `indent`: -1 for one line.
inline std::string json_text(const Json& json, int indent = -1) {
    return json.dump(indent, ' ', false, Json::error_handler_t::replace);
}

/// What stands under `keys`, each within the one before; null when one of them is not there or what it should stand in is
/// no object. For files that others may have written or edited.
template <class Keys>
const Json& json_at_keys(const Json& json, const Keys& keys) {
    static const Json nothing;
    const Json* place = &json;
    for (const auto& key : keys) {
        if (!place->is_object()) return nothing;
        const auto found = place->find(key);
        if (found == place->end()) return nothing;
        place = &*found;
    }
    return *place;
}
inline const Json& json_at(const Json& json, std::initializer_list<const char*> keys) {
    return json_at_keys(json, keys);
}
inline const Json& json_at(const Json& json, const std::vector<std::string>& keys) {
    return json_at_keys(json, keys);
}

}  // namespace thalweg::record
