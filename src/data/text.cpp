// Any text as the task of LEAF's Shakespeare: a window of characters in, the next character out.
#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "byte_file.hpp"
#include "natural.hpp"
#include "text_characters.hpp"
#include "text_file.hpp"
#include "text_speakers.hpp"
#include "text_windows.hpp"
#include "thalweg/core/error.hpp"
#include "thalweg/core/registry.hpp"

namespace thalweg::data {
namespace {

/// Text that windows do not leave: a speaker's, or all of it. Its last characters are for testing.
struct Passage {
    std::string name;  // of the speaker
    std::vector<TextPiece> pieces;
    std::int64_t characters = 0;
};

/// What is kept of the file, and where it will lie in the encoded text: passage after passage.
struct Layout {
    Alphabet alphabet;
    std::vector<Passage> passages;
};

class Text final : public Dataset {
  public:
    struct Facts {
        std::string source;
        WindowShape shape;
        bool by_speaker;
        std::vector<std::string> class_names;
        std::vector<std::string> speakers;  // one a passage
        std::int64_t training_characters;   // of the first passage
        std::int64_t min_text;
    };
    Text(Facts facts, std::shared_ptr<const TextWindows> train, std::shared_ptr<const TextWindows> test)
        : facts_(std::move(facts)), train_(std::move(train)), test_(std::move(test)) {}
    std::string name() const override { return "text"; }
    std::string source() const override { return facts_.source; }
    std::vector<std::int64_t> sample_shape() const override { return {facts_.shape.length}; }
    std::int64_t classes() const override { return std::ssize(facts_.class_names); }
    std::string class_name(std::int64_t label) const override {
        return facts_.class_names[static_cast<std::size_t>(label)];
    }
    std::shared_ptr<const SampleSet> train() const override { return train_; }
    std::shared_ptr<const SampleSet> test() const override { return test_; }
    bool has_natural_clients() const override { return true; }
    std::vector<NaturalPart> natural_parts(const core::Value& partition) const override {
        return facts_.by_speaker ? speakers(partition["clients"]) : blocks(partition["clients"]);
    }

  private:
    std::vector<NaturalPart> speakers(const core::Value& clients) const;
    std::vector<NaturalPart> blocks(const core::Value& clients) const;

    Facts facts_;
    std::shared_ptr<const TextWindows> train_;
    std::shared_ptr<const TextWindows> test_;
};

std::vector<NaturalPart> Text::speakers(const core::Value& clients) const {
    const auto count = static_cast<std::size_t>(clients.as_int());
    if (count > facts_.speakers.size()) {
        clients.reject(std::to_string(count) + " clients are more than the " +
                       (facts_.speakers.size() == 1
                            ? std::string("one speaker of ")
                            : std::to_string(facts_.speakers.size()) + " speakers of ") +
                       facts_.source + " that have data.dataset.min_text characters (" +
                       std::to_string(facts_.min_text) + ") and a training window; lower one of the two");
    }
    std::vector<NaturalPart> parts;
    for (std::size_t i = 0; i < count; ++i) {
        parts.push_back({facts_.speakers[i], train_->first(i), train_->first(i + 1)});
    }
    return parts;
}

/// Windows that reach into the next block are nobody's: a client sees its own text only.
std::vector<NaturalPart> Text::blocks(const core::Value& clients) const {
    const std::int64_t count = clients.as_int();
    const auto [length, stride] = facts_.shape;
    std::vector<NaturalPart> parts;
    for (std::int64_t i = 0; i < count; ++i) {
        const std::int64_t begin = i * facts_.training_characters / count;
        const std::int64_t end = (i + 1) * facts_.training_characters / count;
        const std::int64_t first = (begin + stride - 1) / stride;
        const std::int64_t last = facts_.shape.count(end);
        if (first >= last) {
            clients.reject("blocks of " + std::to_string(end - begin) + " characters (" +
                           std::to_string(facts_.training_characters) + " of training text for " +
                           std::to_string(count) + " clients) are too short for windows of " +
                           std::to_string(length) + " and the next character, " + std::to_string(stride) +
                           " apart; up to " + std::to_string(facts_.training_characters / (length + stride)) +
                           " clients always work");
        }
        parts.push_back({"", first, last});
    }
    return parts;
}

std::int64_t count_characters(const Passage& passage, TextBytes bytes, TextUnits units,
                              const std::string& file) {
    std::int64_t count = 0;
    for (const TextPiece& piece : passage.pieces) {
        CharacterReader reader(bytes, units, file, piece.begin, piece.end);
        while (reader.next()) ++count;
    }
    return count;
}

/// Where the training text of a passage ends. The test text is what is left, so that no window crosses over.
std::int64_t training_characters(std::int64_t characters, double test) {
    return characters - static_cast<std::int64_t>(static_cast<double>(characters) * test);
}

/// Speakers with text enough, those with most text first.
std::vector<Passage> choose_speakers(const core::Value& options, TextBytes bytes, TextUnits units,
                                     const std::string& file, WindowShape shape) {
    std::vector<Passage> passages;
    for (Speaker& speaker : find_speakers(bytes, units)) {
        passages.push_back({std::move(speaker.name), std::move(speaker.speeches)});
        passages.back().characters = count_characters(passages.back(), bytes, units, file);
    }
    if (passages.empty()) {
        throw core::RunError(
            file +
            ": no speaker found: a speech begins with a line 'NAME:' at the beginning of the file or "
            "behind an empty line; set data.dataset.clients_by: block for a text without such lines");
    }
    std::stable_sort(passages.begin(), passages.end(),
                     [](const Passage& a, const Passage& b) { return a.characters > b.characters; });
    const std::int64_t min_text = options["min_text"].as_int();
    const std::string longest = "the most that one of the " + std::to_string(passages.size()) +
                                " speakers of " + file + " says (" + passages.front().name + ") is " +
                                std::to_string(passages.front().characters) + " characters";
    std::erase_if(passages, [&](const Passage& passage) { return passage.characters < min_text; });
    if (passages.empty()) options["min_text"].reject(longest + "; lower it");
    const double test = options["test"].as_number();
    std::erase_if(passages, [&](const Passage& passage) {
        return shape.count(training_characters(passage.characters, test)) == 0;
    });
    if (passages.empty()) {
        options["window"].reject(longest +
                                 ", less the part for testing too few for a window and the next character; "
                                 "choose a smaller window");
    }
    return passages;
}

Passage whole_text(const core::Value& options, TextBytes bytes, TextUnits units, const std::string& file,
                   WindowShape shape) {
    Passage passage{"", {{text_begin(bytes, units), bytes.size()}}};
    passage.characters = count_characters(passage, bytes, units, file);
    const std::int64_t training = training_characters(passage.characters, options["test"].as_number());
    if (shape.count(training) == 0) {
        options["window"].reject("the " + std::to_string(training) + " characters of training text in " +
                                 file + " are too few for a window of " + std::to_string(shape.length) +
                                 " and the next character; choose a smaller window or a longer text");
    }
    return passage;
}

Layout plan_layout(const core::Value& options, TextBytes bytes, TextUnits units, const std::string& file,
                   WindowShape shape) {
    Layout layout{Alphabet(bytes, units, file), {}};  // first: it finds what is not valid, in all of the file
    if (options["clients_by"].as_text() == "speaker") {
        layout.passages = choose_speakers(options, bytes, units, file, shape);
    } else {
        layout.passages.push_back(whole_text(options, bytes, units, file, shape));
    }
    return layout;
}

void encode(const Layout& layout, TextBytes bytes, TextUnits units, const std::string& file,
            std::span<std::byte> out) {
    auto place = out.begin();
    for (const Passage& passage : layout.passages) {
        for (const TextPiece& piece : passage.pieces) {
            CharacterReader reader(bytes, units, file, piece.begin, piece.end);
            while (const auto character = reader.next())
                *place++ = std::byte{layout.alphabet.index(*character)};
        }
    }
}

std::shared_ptr<const Dataset> open_text(const core::Value& options, const DatasetContext& context) {
    const std::string path = expand_home(options["path"].as_text()).string();
    const TextUnits units = options["characters"].as_text() == "utf8" ? TextUnits::utf8 : TextUnits::bytes;
    const WindowShape shape{options["window"].as_int(), options["stride"].as_int()};
    const SharedBytes file = share_text_file(path, context.communicator);
    const TextBytes bytes = file.bytes();

    std::vector<Stretch> train;
    std::vector<Stretch> test;
    std::int64_t characters = 0;
    const Layout layout = core::collectively(context.communicator, [&] {
        Layout planned = plan_layout(options, bytes, units, path, shape);
        std::int64_t test_windows = 0;
        for (const Passage& passage : planned.passages) {
            const std::int64_t border =
                characters + training_characters(passage.characters, options["test"].as_number());
            train.push_back({characters, border});
            characters += passage.characters;
            test.push_back({border, characters});
            test_windows += shape.count(characters - border);
        }
        if (test_windows == 0) {
            options["test"].reject("the text for testing is too short for a window of " +
                                   std::to_string(shape.length) +
                                   " and the next character; raise it or choose a smaller window");
        }
        return planned;
    });
    const auto block = context.communicator.share(
        static_cast<std::size_t>(characters),
        [&](std::span<std::byte> out) { encode(layout, bytes, units, path, out); });

    const auto* text = reinterpret_cast<const std::uint8_t*>(block.get());
    std::vector<std::string> speakers;
    for (const Passage& passage : layout.passages) speakers.push_back(passage.name);
    return std::make_shared<const Text>(
        Text::Facts{path, shape, options["clients_by"].as_text() == "speaker", layout.alphabet.names(),
                    std::move(speakers), train.front().end, options["min_text"].as_int()},
        std::make_shared<const TextWindows>(block, text, train, shape),
        std::make_shared<const TextWindows>(block, text, test, shape));
}

const core::Registration<std::shared_ptr<const Dataset>, const DatasetContext&> text_registration{
    {.kind = "dataset",
     .name = "text",
     .help = "a plain text file: windows of characters in, the next character out; natural clients are the "
             "speakers "
             "of a play or blocks of any text",
     .citation = "Caldas et al.: LEAF, a benchmark for federated settings (2018), arXiv:1812.01097",
     .options =
         {core::text("path", "the text file, plain or .gz"),
          core::integer("window", "characters in a sample").at_least(1).at_most(100000).by_default(80),
          core::integer(
              "stride",
              "characters between the beginnings of windows; 1: every character but the first `window` is "
              "once to be predicted")
              .at_least(1)
              .at_most(1000000)
              .by_default(10),
          core::choice("characters", {"utf8", "bytes"},
                       "code points of UTF-8, or single bytes of whatever it is")
              .by_default("utf8"),
          core::choice(
              "clients_by", {"block", "speaker"},
              "block: natural clients are equal, contiguous pieces; speaker: each is everything that one "
              "speaker of a play says behind lines 'NAME:', those with most text first, and windows do not "
              "cross speakers (with any scheme)")
              .by_default("block"),
          core::integer("min_text", "speaker: who says fewer characters is left out")
              .at_least(1)
              .at_most(1e9)
              .by_default(1000),
          core::number("test",
                       "share of the text, of every speaker's with `speaker`, for testing: the end of it")
              .above(0)
              .below(1)
              .by_default(0.1)}},
    open_text};

const bool named = [] {
    natural_datasets().push_back("text");
    return true;
}();

}  // namespace
}  // namespace thalweg::data
