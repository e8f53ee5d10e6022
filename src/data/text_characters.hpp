#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace thalweg::data {

using TextBytes = std::span<const std::uint8_t>;

/// What a file's bytes are taken for.
enum class TextUnits {
    utf8,   ///< code points; a byte-order mark at the beginning is dropped, CR LF is read as LF
    bytes,  ///< every byte is a character
};

/// Where the text begins behind a byte-order mark.
std::size_t text_begin(TextBytes bytes, TextUnits units);

/// Goes through the characters of a text, or of a piece of it.
class CharacterReader {
  public:
    /// `bytes`: the whole file (for places in messages); `file`: its name.
    CharacterReader(TextBytes bytes, TextUnits units, const std::string& file)
        : CharacterReader(bytes, units, file, text_begin(bytes, units), bytes.size()) {}
    /// The characters of bytes begin…end-1.
    CharacterReader(TextBytes bytes, TextUnits units, const std::string& file, std::size_t begin,
                    std::size_t end)
        : bytes_(bytes), units_(units), file_(file), position_(begin), end_(end) {}

    /// The next character; nothing at the end. RunError with file, offset and line for bytes that are not UTF-8
    /// and for a zero byte.
    std::optional<char32_t> next();

  private:
    char32_t decode();
    [[noreturn]] void fail(const std::string& what, const std::string& remedy) const;
    [[noreturn]] void fail_utf8() const;

    TextBytes bytes_;
    TextUnits units_;
    const std::string& file_;
    std::size_t position_;
    std::size_t end_;
};

/// The different characters of a text in ascending order. A character's place among them is its class.
class Alphabet {
  public:
    /// RunError when the text is not valid, or when its characters are fewer than 2 or more than 256.
    Alphabet(TextBytes bytes, TextUnits units, const std::string& file);
    std::size_t size() const { return characters_.size(); }
    /// Of a character that occurs in the text.
    std::uint8_t index(char32_t character) const { return indices_[character]; }
    /// As people read it: `'e'`, `'\n'`; a byte past ASCII as `0xe4`.
    std::vector<std::string> names() const;

  private:
    TextUnits units_;
    std::vector<char32_t> characters_;
    std::vector<std::uint8_t> indices_;  // by character
};

/// Bytes of the text as they can be printed: the text itself where it is UTF-8, everything past ASCII as `\xe4`
/// where it is bytes; control characters as `\x1b` in both.
std::string printable(TextBytes bytes, TextUnits units);

}  // namespace thalweg::data
