// The one file that knows yaml-cpp. It uses the parser's events, not its nodes: they come with the place of every
// piece, show duplicate keys and let the depth be checked before anything recurses.
#include "yaml.hpp"

#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/exceptions.h>
#include <yaml-cpp/parser.h>

#include <filesystem>
#include <memory>
#include <set>
#include <sstream>
#include <string_view>

#include "thalweg/core/error.hpp"
#include "thalweg/core/files.hpp"

namespace thalweg::core {
namespace {

constexpr std::size_t largest_text = std::size_t{1} << 20;
constexpr std::size_t deepest = 64;

[[noreturn]] void refuse(const std::string& name, int line, int column, const std::string& message) {
    std::string place = name;
    if (line > 0) place += ":" + std::to_string(line) + ":" + std::to_string(column);
    throw UsageError(place + ": " + message);
}

/// Builds a Value from the events of one document.
class Builder final : public YAML::EventHandler {
  public:
    Builder(const std::string& name, std::string_view text)
        : name_(name), text_(text), file_(std::make_shared<const std::string>(name)) {}

    Value& root() { return root_; }
    /// Where a null at the top was read, or -1.
    int null_position() const { return null_position_; }

    void OnDocumentStart(const YAML::Mark& mark) override {
        if (documents_++ > 0) refuse_at(mark, "the document ends before this; only one document is read");
    }
    void OnDocumentEnd() override {}

    void OnNull(const YAML::Mark& mark, YAML::anchor_t anchor) override {
        check(mark, "?", anchor, "?");
        if (open_.empty()) null_position_ = mark.pos;
        add(mark, Value());
    }
    void OnAlias(const YAML::Mark& mark, YAML::anchor_t) override { refuse_at(mark, anchors_refused); }
    void OnAnchor(const YAML::Mark& mark, const std::string&) override { refuse_at(mark, anchors_refused); }

    void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                  const std::string& text) override {
        check(mark, tag, anchor, "!");
        if (tag == "!") check_quotes(mark);
        add(mark, Value::scalar(text, tag == "!"));
    }
    void OnSequenceStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                         YAML::EmitterStyle::value) override {
        check(mark, tag, anchor, "?");
        open(mark, Value::list());
    }
    void OnSequenceEnd() override { close(); }
    void OnMapStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                    YAML::EmitterStyle::value) override {
        check(mark, tag, anchor, "?");
        open(mark, Value::map());
    }
    void OnMapEnd() override { close(); }

  private:
    static constexpr const char* anchors_refused =
        "anchors (&name) and aliases (*name) are not supported; write the value out";

    struct Open {
        Value value;
        YAML::Mark mark;
        bool has_key = false;
        std::string key;
        YAML::Mark key_mark;
        std::set<std::string> keys;
    };

    [[noreturn]] void refuse_at(const YAML::Mark& mark, const std::string& message) const {
        refuse(name_, mark.line + 1, mark.column + 1, message);
    }

    /// yaml-cpp gives the tag `?` to what has none and `!` to a quoted scalar.
    void check(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
               const char* allowed) const {
        if (anchor != 0) refuse_at(mark, anchors_refused);
        if (!tag.empty() && tag != "?" && tag != allowed) {
            refuse_at(mark, "tags (" + tag + ") are not supported; leave it out");
        }
    }

    char character(std::size_t at) const { return at < text_.size() ? text_[at] : '\0'; }

    /// yaml-cpp (0.7) takes the end of the file for a closing quote, which would swallow the rest of a configuration.
    void check_quotes(const YAML::Mark& mark) const {
        const auto start = static_cast<std::size_t>(mark.pos);
        const char quote = character(start);
        if (quote == '!') refuse_at(mark, "tags (!) are not supported; leave it out");
        if (quote != '"' && quote != '\'') return;  // a block text: | or >
        for (std::size_t at = start + 1; at < text_.size(); ++at) {
            if (quote == '"' && text_[at] == '\\') {
                ++at;
            } else if (text_[at] == quote) {
                if (quote == '"' || character(at + 1) != quote) return;
                ++at;  // '' is a quote inside
            }
        }
        refuse_at(mark, "not valid YAML: the quote that opens here is not closed");
    }

    void open(const YAML::Mark& mark, Value value) {
        if (open_.size() >= deepest) {
            refuse_at(mark, "nested deeper than " + std::to_string(deepest) + " levels");
        }
        if (!open_.empty() && open_.back().value.is_map() && !open_.back().has_key) refuse_key(mark);
        open_.push_back({.value = std::move(value), .mark = mark, .key = {}, .key_mark = {}, .keys = {}});
    }

    void close() {
        if (open_.empty()) return;
        Open done = std::move(open_.back());
        open_.pop_back();
        add(done.mark, std::move(done.value));
    }

    void add(const YAML::Mark& mark, Value value) {
        value.place(file_, mark.line + 1, mark.column + 1);
        if (open_.empty()) {
            root_ = std::move(value);
            return;
        }
        Open& parent = open_.back();
        if (parent.value.is_list()) {
            parent.value.items().push_back(std::move(value));
        } else if (!parent.has_key) {
            begin_field(parent, mark, value);
        } else {
            value.place(file_, parent.key_mark.line + 1, parent.key_mark.column + 1);
            parent.value.fields().emplace_back(std::move(parent.key), std::move(value));
            parent.has_key = false;
        }
    }

    void begin_field(Open& parent, const YAML::Mark& mark, const Value& key) const {
        if (!key.is_scalar()) refuse_key(mark);
        if (!parent.keys.insert(key.as_text()).second) {
            const Value* first = parent.value.find(key.as_text());
            refuse_at(mark, "the key '" + key.as_text() + "' is given twice" +
                                (first ? ", first in line " + std::to_string(first->line()) : ""));
        }
        parent.has_key = true;
        parent.key = key.as_text();
        parent.key_mark = mark;
    }

    [[noreturn]] void refuse_key(const YAML::Mark& mark) const {
        const char first = character(static_cast<std::size_t>(mark.pos));
        refuse_at(
            mark,
            first == '[' || first == '{'
                ? "a key must be a word, not a list or a map; or is the bracket that opens here not closed?"
                : "a key must be a word, not a list, a map or nothing");
    }

    const std::string& name_;
    std::string_view text_;
    std::shared_ptr<const std::string> file_;
    std::vector<Open> open_;
    Value root_;
    int null_position_ = -1;
    int documents_ = 0;
};

/// yaml-cpp takes some control characters for its own marks (0x04 for the end), so they stop here.
void check_characters(const std::string& text, const std::string& name) {
    int line = 1;
    int column = 1;
    for (const char c : text) {
        const auto code = static_cast<unsigned char>(c);
        if ((code < 0x20 && c != '\n' && c != '\r' && c != '\t') || code == 0x7f) {
            refuse(name, line, column, "a control character; this is not a text file");
        }
        if (code == 0xfe || code == 0xff) {  // in no UTF-8 text; begin one in UTF-16
            refuse(name, line, column, "not UTF-8 text; save the file as UTF-8");
        }
        column = c == '\n' ? 1 : column + 1;
        line += c == '\n';
    }
}

void parse(const std::string& text, Builder& builder) {
    std::istringstream stream(text);
    YAML::Parser parser(stream);
    while (parser.HandleNextDocument(builder)) {
    }
}

/// `is_empty`: nothing is written in it, not even a null.
Value read_document(const std::string& text, const std::string& name, bool& is_empty) {
    if (text.size() > largest_text) {
        throw UsageError(name + ": larger than 1 MiB; a configuration is never that long");
    }
    check_characters(text, name);
    // yaml-cpp skips a byte order mark and does not count it.
    const std::string_view counted = std::string_view(text).substr(text.starts_with("\xEF\xBB\xBF") ? 3 : 0);
    Builder builder(name, counted);
    try {
        parse(text, builder);
    } catch (const YAML::Exception& error) {
        if (error.mark.is_null()) throw UsageError(name + ": not valid YAML: " + error.msg);
        refuse(name, error.mark.line + 1, error.mark.column + 1, "not valid YAML: " + error.msg);
    } catch (const Error&) {
        throw;
    } catch (const std::exception& error) {
        throw UsageError(name + ": not valid YAML: " + error.what());
    }
    Value root = std::move(builder.root());
    root.set_path("");
    if (root.file().empty()) root.place(std::make_shared<const std::string>(name), 0, 0);
    const auto position = static_cast<std::size_t>(builder.null_position());  // -1: beyond any text
    is_empty = root.is_null() && (position >= counted.size() ||
                                  std::string_view("nN~").find(counted[position]) == std::string::npos);
    return root;
}

}  // namespace

Value parse_yaml_value(const std::string& text, const std::string& name) {
    bool is_empty = false;
    return read_document(text, name, is_empty);
}

Value parse_yaml(const std::string& text, const std::string& name) {
    bool is_empty = false;
    Value root = read_document(text, name, is_empty);
    if (!is_empty) return root;
    Value empty = Value::map();
    empty.place_like(root);
    return empty;
}

Value read_yaml(const std::string& path) {
    std::error_code error;
    if (std::filesystem::file_size(path, error) > largest_text && !error) {
        throw UsageError("'" + path + "' is larger than 1 MiB; a configuration is never that long");
    }
    std::string text;
    try {
        text = read_file(path);
    } catch (const RunError& failure) {
        throw UsageError(failure.what());
    }
    return parse_yaml(text, path);
}

}  // namespace thalweg::core
