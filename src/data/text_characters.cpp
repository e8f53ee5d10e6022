#include "text_characters.hpp"

#include <algorithm>
#include <array>

#include "byte_file.hpp"
#include "thalweg/core/error.hpp"

namespace thalweg::data {
namespace {

constexpr std::size_t code_points = 0x110000;
constexpr std::size_t most_characters = 256;  // classes, and indices of one byte

std::string hexadecimal(std::uint8_t byte) {
    constexpr const char* digits = "0123456789abcdef";
    return {digits[byte >> 4U], digits[byte & 15U]};
}

/// What a byte that begins a character says: how many bytes follow, the bits it brings, and the lowest character
/// that may be written so (a shorter way would have done for those below).
struct Lead {
    std::size_t more;
    char32_t bits;
    char32_t lowest;
};

std::optional<Lead> lead_of(std::uint8_t byte) {
    if (byte < 0x80) return Lead{0, byte, 0};
    if (byte >= 0xC2 && byte < 0xE0) return Lead{1, byte & 0x1FU, 0x80};
    if (byte >= 0xE0 && byte < 0xF0) return Lead{2, byte & 0x0FU, 0x800};
    if (byte >= 0xF0 && byte < 0xF5) return Lead{3, byte & 0x07U, 0x10000};
    return std::nullopt;
}

std::string in_utf8(char32_t character) {
    const auto byte = [](char32_t bits) { return static_cast<char>(static_cast<std::uint8_t>(bits)); };
    const auto tail = [&](unsigned shift) { return byte(0x80U | ((character >> shift) & 0x3FU)); };
    if (character < 0x80) return {byte(character)};
    if (character < 0x800) return {byte(0xC0U | (character >> 6U)), tail(0)};
    if (character < 0x10000) return {byte(0xE0U | (character >> 12U)), tail(6), tail(0)};
    return {byte(0xF0U | (character >> 18U)), tail(12), tail(6), tail(0)};
}

}  // namespace

std::size_t text_begin(TextBytes bytes, TextUnits units) {
    constexpr std::array<std::uint8_t, 3> mark{0xEF, 0xBB, 0xBF};
    const bool marked = units == TextUnits::utf8 && bytes.size() >= mark.size() &&
                        std::equal(mark.begin(), mark.end(), bytes.begin());
    return marked ? mark.size() : 0;
}

std::optional<char32_t> CharacterReader::next() {
    if (position_ == end_) return std::nullopt;
    if (units_ == TextUnits::bytes) return bytes_[position_++];
    if (bytes_[position_] == '\r' && position_ + 1 < end_ && bytes_[position_ + 1] == '\n') ++position_;
    return decode();
}

char32_t CharacterReader::decode() {
    const std::uint8_t first = bytes_[position_];
    if (first == 0) fail("holds a zero byte, as no text does,", "set data.dataset.path to a plain text file");
    const auto lead = lead_of(first);
    if (!lead || end_ - position_ <= lead->more) fail_utf8();
    char32_t character = lead->bits;
    for (std::size_t i = 1; i <= lead->more; ++i) {
        const std::uint8_t byte = bytes_[position_ + i];
        if ((byte & 0xC0U) != 0x80) fail_utf8();
        character = (character << 6U) | (byte & 0x3FU);
    }
    const bool surrogate = character >= 0xD800 && character < 0xE000;
    if (character < lead->lowest || character >= code_points || surrogate) {
        fail_utf8();
    }
    position_ += lead->more + 1;
    return character;
}

void CharacterReader::fail(const std::string& what, const std::string& remedy) const {
    const auto line =
        1 + std::count(bytes_.begin(), bytes_.begin() + static_cast<std::ptrdiff_t>(position_), '\n');
    throw core::RunError(file_ + ": " + what + " at offset " + count_text(position_) + " (line " +
                         count_text(static_cast<std::uint64_t>(line)) + "); " + remedy +
                         ", or set data.dataset.characters: bytes to take every byte for a character");
}

void CharacterReader::fail_utf8() const {
    fail("is not UTF-8: byte 0x" + hexadecimal(bytes_[position_]),
         "convert the text, for example with `iconv -f LATIN1 -t UTF-8`");
}

Alphabet::Alphabet(TextBytes bytes, TextUnits units, const std::string& file)
    : units_(units), indices_(units == TextUnits::utf8 ? code_points : 256, 0) {
    std::vector<bool> occurs(indices_.size(), false);
    CharacterReader reader(bytes, units, file);
    while (const auto character = reader.next()) occurs[*character] = true;
    const auto count = static_cast<std::size_t>(std::count(occurs.begin(), occurs.end(), true));
    if (count < 2) {
        throw core::RunError(file + ": holds " +
                             (count == 0 ? "no text" : "one character only, again and again") +
                             "; set data.dataset.path to a plain text file");
    }
    if (count > most_characters) {
        throw core::RunError(
            file + ": has " + count_text(count) + " different characters, and classes are " +
            std::to_string(most_characters) +
            " at most; set data.dataset.characters: bytes to take every byte for a character");
    }
    for (std::size_t character = 0; character < occurs.size(); ++character) {
        if (!occurs[character]) continue;
        indices_[character] = static_cast<std::uint8_t>(characters_.size());
        characters_.push_back(static_cast<char32_t>(character));
    }
}

std::vector<std::string> Alphabet::names() const {
    std::vector<std::string> names;
    for (const char32_t character : characters_) {
        const auto byte = static_cast<std::uint8_t>(character);
        const bool control = character < 0x20 || (character >= 0x7F && character < 0xA0);
        if (character == '\n') {
            names.emplace_back("'\\n'");
        } else if (character == '\t') {
            names.emplace_back("'\\t'");
        } else if (control || (units_ == TextUnits::bytes && character >= 0x80)) {
            names.push_back("0x" + hexadecimal(byte));
        } else {
            names.push_back("'" + in_utf8(character) + "'");
        }
    }
    return names;
}

std::string printable(TextBytes bytes, TextUnits units) {
    std::string text;
    for (const std::uint8_t byte : bytes) {
        const bool plain = byte >= 0x20 && byte != 0x7F && (byte < 0x80 || units == TextUnits::utf8);
        text += plain ? std::string(1, static_cast<char>(byte)) : "\\x" + hexadecimal(byte);
    }
    return text;
}

}  // namespace thalweg::data
