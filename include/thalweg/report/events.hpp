#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "thalweg/record/run_folder.hpp"

namespace thalweg::report {

/// A TensorBoard event file, `events.out.tfevents.SECONDS.HOST.PID`, in `folder`: TFRecord frames (length, masked CRC-32C) of
/// Event messages (protobuf). Every addition is flushed, so that TensorBoard follows a run. A resumed run starts another
/// file, as TensorBoard expects it; later files win where steps repeat.
class EventFile {
  public:
    /// RunError when the file cannot be written.
    explicit EventFile(const std::filesystem::path& folder);
    /// Scalars of one step; those that are not finite are left out. RunError when the file cannot be written.
    void add(std::int64_t step, const std::vector<std::pair<std::string, double>>& scalars);
    const std::filesystem::path& path() const { return path_; }

  private:
    std::filesystem::path path_;
};

/// What TensorBoard is shown of a round: test/accuracy, test/loss, train/loss, seconds/…, and every number of the measures
/// under its names (sign_consistency/client_global), lists, `by_client` and `by_pair` left out. `analysis` as in
/// analysis.jsonl; may be empty.
std::vector<std::pair<std::string, double>> round_scalars(const record::Json& line,
                                                          const record::Json& analysis);

/// Castagnoli's CRC-32 of `data`, as TFRecord masks it.
std::uint32_t masked_crc32c(const std::string& data);

}  // namespace thalweg::report
