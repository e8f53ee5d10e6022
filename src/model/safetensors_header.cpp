#include "safetensors_header.hpp"

#include <limits>
#include <nlohmann/json.hpp>
#include <set>

#include "file_error.hpp"

namespace thalweg::model {

namespace {

using Json = nlohmann::json;

constexpr std::size_t most_axes = 16;

/// Takes the parser's events and lets nothing pass that a header does not have, so that no tree is built and
/// nesting goes nowhere. `level_` counts the open braces.
class HeaderReader final : public nlohmann::json_sax<Json> {
  public:
    explicit HeaderReader(SafetensorsHeader& header) : header_(header) {}

    bool start_object(std::size_t) override {
        if (level_ == 0) return ++level_ > 0;
        if (level_ != 1 || in_list_) unexpected("an object");
        if (key_ != "__metadata__")
            header_.entries.push_back({.name = key_, .dtype = {}, .shape = {}, .offsets = {}});
        in_metadata_ = key_ == "__metadata__";
        fields_.clear();
        ++level_;
        return true;
    }

    bool end_object() override {
        if (--level_ == 1 && !in_metadata_) {
            for (const auto* field : {"dtype", "shape", "data_offsets"}) {
                if (fields_.count(field) == 0)
                    throw FormatError("tensor " + header_.entries.back().name + " has no " + field);
            }
            if (header_.entries.back().offsets.size() != 2) {
                throw FormatError("the data_offsets of tensor " + header_.entries.back().name +
                                  " are not two numbers");
            }
        }
        return true;
    }

    bool key(std::string& name) override {
        key_ = name;
        if (!(level_ == 1 ? names_ : fields_).insert(name).second)
            throw FormatError("its header has '" + name.substr(0, 200) + "' twice");
        return true;
    }

    bool start_array(std::size_t) override {
        if (level_ != 2 || in_metadata_ || in_list_ || (key_ != "shape" && key_ != "data_offsets"))
            unexpected("a list");
        return in_list_ = true;
    }

    bool end_array() override {
        in_list_ = false;
        return true;
    }

    bool string(std::string& text) override {
        if (level_ == 2 && in_metadata_) {
            header_.metadata[key_] = std::move(text);
        } else if (level_ == 2 && !in_list_ && key_ == "dtype") {
            header_.entries.back().dtype = std::move(text);
        } else {
            unexpected("a text");
        }
        return true;
    }

    bool number_unsigned(std::uint64_t value) override {
        if (!in_list_) unexpected("a number");
        auto& entry = header_.entries.back();
        auto& list = key_ == "shape" ? entry.shape : entry.offsets;
        if (value > std::uint64_t{std::numeric_limits<std::int64_t>::max()})
            throw FormatError("the " + key_ + " of tensor " + entry.name + " is beyond 63 bits");
        if (list.size() == most_axes)
            throw FormatError("the " + key_ + " of tensor " + entry.name + " has more than 16 numbers");
        list.push_back(static_cast<std::int64_t>(value));
        return true;
    }

    bool number_integer(std::int64_t) override { unexpected("a negative number"); }
    bool number_float(double, const std::string&) override {
        unexpected("a number that is no 64-bit integer");
    }
    bool null() override { unexpected("null"); }
    bool boolean(bool) override { unexpected("a bool"); }
    bool binary(Json::binary_t&) override { unexpected("binary data"); }

    bool parse_error(std::size_t position, const std::string&, const Json::exception&) override {
        throw FormatError("its header is not valid JSON (at byte " + std::to_string(position) + ")");
    }

  private:
    [[noreturn]] void unexpected(const std::string& what) const {
        throw FormatError("its header has " + what + " " +
                          (key_.empty() ? "at its start" : "under '" + key_.substr(0, 200) + "'") +
                          ", where none belongs");
    }

    SafetensorsHeader& header_;
    int level_ = 0;
    bool in_metadata_ = false;
    bool in_list_ = false;
    std::string key_;
    std::set<std::string> names_, fields_;
};

}  // namespace

SafetensorsHeader parse_safetensors_header(std::string_view text) {
    SafetensorsHeader header;
    HeaderReader reader(header);
    Json::sax_parse(text.begin(), text.end(), &reader);
    return header;
}

}  // namespace thalweg::model
