#include "text_speakers.hpp"

#include <algorithm>
#include <map>
#include <string_view>

namespace thalweg::data {
namespace {

std::string_view trimmed(std::string_view text) {
    constexpr std::string_view blanks = " \t\r\n";
    const std::size_t begin = text.find_first_not_of(blanks);
    if (begin == std::string_view::npos) return {};
    return text.substr(begin, text.find_last_not_of(blanks) + 1 - begin);
}

/// The name in a line `NAME:`, or nothing.
std::string_view name_in(std::string_view line) {
    const std::string_view text = trimmed(line);
    return text.ends_with(':') ? trimmed(text.substr(0, text.size() - 1)) : std::string_view();
}

}  // namespace

std::vector<Speaker> find_speakers(TextBytes bytes, TextUnits units) {
    const std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    std::vector<Speaker> speakers;
    std::map<std::string_view, std::size_t> known;
    std::string_view name;
    TextPiece speech{0, 0};
    const auto finish = [&] {
        if (name.empty() || speech.begin == speech.end) return;
        const auto [found, is_new] = known.try_emplace(name, speakers.size());
        if (is_new) {
            const TextBytes name_bytes{reinterpret_cast<const std::uint8_t*>(name.data()), name.size()};
            speakers.push_back({printable(name_bytes, units), {}});
        }
        speakers[found->second].speeches.push_back(speech);
    };
    bool after_empty_line = true;
    for (std::size_t begin = text_begin(bytes, units); begin < text.size();) {
        const std::size_t end = std::min(text.find('\n', begin), text.size() - 1) + 1;
        const std::string_view line = text.substr(begin, end - begin);
        const std::string_view heading = after_empty_line ? name_in(line) : std::string_view();
        const bool empty = trimmed(line).empty();
        if (!heading.empty()) {
            finish();
            name = heading;
            speech = {end, end};
        } else if (!empty) {
            if (speech.begin == speech.end) speech.begin = begin;
            speech.end = end;
        }
        after_empty_line = empty;
        begin = end;
    }
    finish();
    return speakers;
}

}  // namespace thalweg::data
