#include "thalweg/report/events.hpp"

#include <unistd.h>

#include <bit>
#include <boost/crc.hpp>
#include <chrono>
#include <cmath>
#include <unordered_set>

#include "thalweg/core/files.hpp"

namespace thalweg::report {

namespace {

// Protobuf by hand: an event is six fields of fixed shape, and another libprotobuf beside the one inside LibTorch is trouble.

std::string varint(std::uint64_t value) {
    std::string bytes;
    while (value >= 0x80) {
        bytes += static_cast<char>(value | 0x80);
        value >>= 7;
    }
    return bytes + static_cast<char>(value);
}

template <class Unsigned>
std::string little_endian(Unsigned value) {
    std::string bytes;
    for (std::size_t i = 0; i < sizeof value; ++i) bytes += static_cast<char>(value >> (8 * i));
    return bytes;
}

enum Wire { varint_wire = 0, fixed64_wire = 1, length_wire = 2, fixed32_wire = 5 };

std::string key(int field, Wire wire) {
    return varint(static_cast<std::uint64_t>(field) << 3 | wire);
}

std::string text_field(int field, const std::string& text) {
    return key(field, length_wire) + varint(text.size()) + text;
}

/// Event { double wall_time = 1; int64 step = 2; string file_version = 3; Summary summary = 5; }
std::string event_head(std::int64_t step) {
    const auto now = std::chrono::system_clock::now().time_since_epoch();
    const double seconds = std::chrono::duration<double>(now).count();
    return key(1, fixed64_wire) + little_endian(std::bit_cast<std::uint64_t>(seconds)) + key(2, varint_wire) +
           varint(static_cast<std::uint64_t>(step));
}

/// Summary { repeated Value value = 1; }, Value { string tag = 1; float simple_value = 2; }
std::string summary_value(const std::string& tag, double value) {
    const auto bits = std::bit_cast<std::uint32_t>(static_cast<float>(value));
    return text_field(1, text_field(1, tag) + key(2, fixed32_wire) + little_endian(bits));
}

std::string frame(const std::string& message) {
    const std::string length = little_endian(static_cast<std::uint64_t>(message.size()));
    return length + little_endian(masked_crc32c(length)) + message + little_endian(masked_crc32c(message));
}

struct Scalars {
    std::vector<std::pair<std::string, double>> found{};
    std::unordered_set<std::string> tags{};

    void collect(const record::Json& json, const std::string& tag) {
        // analysis.jsonl has all of a measure, the round's line some of it again.
        if (json.is_number() && tags.insert(tag).second) found.emplace_back(tag, json.get<double>());
        if (!json.is_object()) return;
        for (const auto& [name, value] : json.items()) {
            // A curve for every client and tensor is no curve to look at, and pairs may be others in every round.
            if (name == "by_client" || name == "by_pair") continue;
            collect(value, tag + "/" + name);
        }
    }
};

}  // namespace

std::uint32_t masked_crc32c(const std::string& data) {
    boost::crc_optimal<32, 0x1EDC6F41, 0xFFFFFFFF, 0xFFFFFFFF, true, true> crc;
    crc.process_bytes(data.data(), data.size());
    const auto value = static_cast<std::uint32_t>(crc.checksum());
    return (value >> 15 | value << 17) + 0xa282ead8U;
}

EventFile::EventFile(const std::filesystem::path& folder) {
    char host[256] = "";
    ::gethostname(host, sizeof host - 1);
    const auto now = std::chrono::system_clock::now().time_since_epoch();
    const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(now).count();
    path_ = folder / ("events.out.tfevents." + std::to_string(seconds) + "." + host + "." +
                      std::to_string(::getpid()));
    core::append_durably(path_, frame(event_head(0) + text_field(3, "brain.Event:2")));
}

void EventFile::add(std::int64_t step, const std::vector<std::pair<std::string, double>>& scalars) {
    std::string summary;
    for (const auto& [tag, value] : scalars) {
        if (std::isfinite(value)) summary += summary_value(tag, value);
    }
    if (!summary.empty()) core::append_durably(path_, frame(event_head(step) + text_field(5, summary)));
}

std::vector<std::pair<std::string, double>> round_scalars(const record::Json& line,
                                                          const record::Json& analysis) {
    Scalars scalars;
    for (const record::Json* json : {&analysis, &line}) {
        if (!json->is_object()) continue;
        for (const auto& [name, value] : json->items()) {
            if (value.is_object()) scalars.collect(value, name);
        }
    }
    return scalars.found;
}

}  // namespace thalweg::report
