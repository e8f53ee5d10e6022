#pragma once

#include <string>

namespace thalweg::record {

/// `thalweg: warning: text` or `thalweg: note: text` on stderr, above a progress bar that is being drawn. Through
/// spdlog's logger `thalweg` (warnings at level warn, notes at info), so that the level can be set.
void warn(const std::string& text);
void note(const std::string& text);

}  // namespace thalweg::record
