#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "text_characters.hpp"

namespace thalweg::data {

/// Bytes begin…end-1 of a file.
struct TextPiece {
    std::size_t begin;
    std::size_t end;
};

/// Somebody in a play and everything they say, in the play's order.
struct Speaker {
    std::string name;  ///< printable
    std::vector<TextPiece> speeches;
};

/// The speakers of a play in the order of their first words. A speech begins behind a line `NAME:` that is the
/// file's first or follows an empty line (in verse many another line ends in a colon) and goes on to the next such
/// line; the line itself and the empty lines around the speech are nobody's, and so is what comes before the first
/// name. Who never says anything is left out.
std::vector<Speaker> find_speakers(TextBytes bytes, TextUnits units);

}  // namespace thalweg::data
