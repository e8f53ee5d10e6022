#include <algorithm>
#include <atomic>
#include <map>
#include <set>
#include <string_view>

#include "thalweg/core/random.hpp"
#include "unit/data/support.hpp"
#include "unit/support/thread_communicator.hpp"

namespace thalweg::data::testing::text_test {
namespace {

Raw raw(std::string_view text) {
    return {text.begin(), text.end()};
}

std::string in_utf8(char32_t c) {
    std::string text;
    if (c < 0x80) return {static_cast<char>(c)};
    if (c >= 0x10000) text += static_cast<char>(0xF0 | (c >> 18));
    if (c >= 0x800) text += static_cast<char>(c >= 0x10000 ? 0x80 | ((c >> 12) & 63) : 0xE0 | (c >> 12));
    text += static_cast<char>(c >= 0x800 ? 0x80 | ((c >> 6) & 63) : 0xC0 | (c >> 6));
    return text + static_cast<char>(0x80 | (c & 63));
}

/// `count` characters of one, two, three and four bytes, all different, so that every place can be told from its
/// character.
std::string different(std::size_t count) {
    std::string text;
    for (std::size_t i = 0; i < count; ++i) {
        text += in_utf8(
            static_cast<char32_t>(std::array<std::size_t, 4>{'0', 0x100, 0x20AC, 0x1F600}[i / 64] + i % 64));
    }
    return text;
}

/// A data set as texts: for each sample the window, `|`, and the next character, read with the class names.
std::vector<std::string> windows(const Dataset& set, const SampleSet& samples) {
    const Everything all = everything(samples);
    const auto spelt = [&](std::int64_t label) {
        const std::string name = set.class_name(label);
        return name == "'\\n'" ? "\n" : name.substr(1, name.size() - 2);
    };
    std::vector<std::string> texts;
    auto x = all.x.begin();
    for (const std::int64_t label : all.y) {
        std::string text;
        for (std::int64_t j = 0; j < samples.width(); ++j) text += spelt(static_cast<std::int64_t>(*x++));
        texts.push_back(text + "|" + spelt(label));
    }
    return texts;
}

using Texts = std::vector<std::string>;

/// The slow way: cuts the windows of ASCII text out of it one by one.
Texts cut(const std::string& text, std::size_t length, std::size_t stride) {
    Texts texts;
    for (std::size_t i = 0; i + length < text.size(); i += stride) {
        texts.push_back(text.substr(i, length) + "|" + text[i + length]);
    }
    return texts;
}

class Text : public ::testing::Test {
  protected:
    std::string yaml(const std::string& options, const std::string& name = "text.txt") const {
        return "{kind: text, path: '" + (folder_ / name).string() + "', " + options + "}";
    }
    std::shared_ptr<const Dataset> read(std::string_view text, const std::string& options) const {
        write(folder_ / "text.txt", raw(text));
        return open(yaml(options));
    }
    FederatedData divide(const std::shared_ptr<const Dataset>& set, const std::string& partition,
                         std::int64_t holdout = 0) const {
        return {set, partition_options(partition), holdout, 5};
    }
    /// The complaint about the file; it begins with its name.
    std::string file_error(std::string_view text, const std::string& options = "window: 3, stride: 1") const {
        const std::string error = error_of<core::RunError>([&] { read(text, options); });
        EXPECT_TRUE(error.starts_with((folder_ / "text.txt").string() + ": ")) << error;
        return error;
    }
    std::string option_error(std::string_view text, const std::string& options) const {
        return error_of<core::UsageError>([&] { read(text, options); });
    }

    TemporaryFolder folder_;
};

TEST_F(Text, WindowsByHand) {
    const auto set =
        read("abracadabra, abracadabra", "window: 4, stride: 3, test: 0.4");  // 24 characters, 15 + 9
    EXPECT_EQ(set->name(), "text");
    EXPECT_EQ(set->source(), (folder_ / "text.txt").string());
    EXPECT_EQ(set->sample_shape(), (std::vector<std::int64_t>{4}));
    EXPECT_EQ(set->classes(), 7);
    EXPECT_TRUE(set->normalisation().mean.empty());
    Texts names;
    for (std::int64_t c = 0; c < 7; ++c) names.push_back(set->class_name(c));
    EXPECT_EQ(names, (Texts{"' '", "','", "'a'", "'b'", "'c'", "'d'", "'r'"}));
    EXPECT_EQ(windows(*set, *set->train()), (Texts{"abra|c", "acad|a", "dabr|a", "ra, |a"}));
    EXPECT_EQ(windows(*set, *set->test()), (Texts{"raca|d", "adab|r"}));
    const Everything all = everything(*set->test());
    EXPECT_EQ(all.x, (std::vector<float>{6, 2, 4, 2, 2, 5, 2, 3}));
    EXPECT_EQ(all.y, (std::vector<std::int64_t>{5, 6}));
    EXPECT_EQ(set->test()->label(1), 6);
}

TEST_F(Text, HasSensibleDefaults) {
    std::string text;
    for (int i = 0; i < 10000; ++i) text += static_cast<char>('a' + i * i % 23 % 5);
    const auto set = read(text, "");
    EXPECT_EQ(windows(*set, *set->train()), cut(text.substr(0, 9000), 80, 10));
    EXPECT_EQ(windows(*set, *set->test()), cut(text.substr(9000), 80, 10));
}

TEST_F(Text, CharactersAreCodePoints) {
    const auto set = read("\xEF\xBB\xBFz\xC3\xA4\xE2\x82\xAC\xF0\x9F\x98\x80z\r\nz\r\xC3\xA4zz",
                          "window: 1, stride: 1, test: 0.2");
    EXPECT_EQ(set->classes(), 6);  // without the mark, CR LF one character
    Texts names;
    for (std::int64_t c = 0; c < 6; ++c) names.push_back(set->class_name(c));
    EXPECT_EQ(names, (Texts{"'\\n'", "0x0d", "'z'", "'ä'", "'€'", "'😀'"}));
    EXPECT_EQ(set->train()->size(), 8);
    std::vector<std::int64_t> labels;
    for (std::int64_t i = 0; i < 8; ++i) labels.push_back(set->train()->label(i));
    EXPECT_EQ(labels, (std::vector<std::int64_t>{3, 4, 5, 2, 0, 2, 1, 3}));
}

TEST_F(Text, OrBytesOfWhateverItIs) {
    const auto set = read(std::string_view("\xEF\xBB\xBF\0\r\n\xC3\xA4zz\r\n", 12),
                          "window: 1, stride: 1, characters: bytes, test: 0.2");
    EXPECT_EQ(set->classes(), 9);
    EXPECT_EQ(set->class_name(0), "0x00");
    EXPECT_EQ(set->class_name(4), "0xa4");
    EXPECT_EQ(set->train()->size() + set->test()->size(), 12 - 2);
    EXPECT_EQ(everything(*set->train()).x.front(), 8.0F);  // 0xef
}

TEST_F(Text, ReadsGzip) {
    const std::string text = different(250);
    const Texts plain = windows(*read(text, "window: 9"), *read(text, "window: 9")->train());
    write_gz(folder_ / "text.txt.gz", raw(text));
    const auto zipped = open(yaml("window: 9", "text.txt.gz"));
    EXPECT_EQ(windows(*zipped, *zipped->train()), plain);
    Raw cut_off = read_raw(folder_ / "text.txt.gz");
    cut_off.resize(cut_off.size() - 30);
    write(folder_ / "text.txt.gz", cut_off);
    EXPECT_CONTAINS(error_of<core::RunError>([&] { open(yaml("window: 9", "text.txt.gz")); }), "cut off");
}

/// With 256 different characters a character is a place in the text.
TEST_F(Text, TestWindowsShareNothingWithTraining) {
    const std::string text = different(256);
    for (const int window : {1, 2, 7, 20}) {
        for (const int stride : {1, 3, 30}) {
            for (const double share : {0.1, 0.25, 0.9}) {
                const auto set =
                    read(text, "window: " + std::to_string(window) + ", stride: " + std::to_string(stride) +
                                   ", test: " + std::to_string(share));
                ASSERT_EQ(set->classes(), 256);
                const auto border = static_cast<float>(256 - static_cast<int>(256 * share));
                const Everything train = everything(*set->train()), test = everything(*set->test());
                for (const float x : train.x) ASSERT_LT(x, border);
                for (const auto y : train.y) ASSERT_LT(static_cast<float>(y), border);
                for (const float x : test.x) ASSERT_GE(x, border);
                EXPECT_EQ(test.x.front(), border);
                // Nothing that fits is left out.
                EXPECT_GE(static_cast<float>(train.y.back() + stride), border);
                EXPECT_GE(test.y.back() + stride, 256);
                EXPECT_EQ(train.y.front(), window);
                for (std::size_t i = 1; i < train.y.size(); ++i)
                    ASSERT_EQ(train.y[i] - train.y[i - 1], stride);
            }
        }
    }
}

TEST_F(Text, BlocksAreEqualAndShareNoCharacter) {
    const auto set = read(different(256), "window: 5, stride: 2, test: 0.2");  // 205 characters to train
    for (const std::int64_t clients : {1, 3, 7, 29}) {
        const auto data = divide(set, "{scheme: natural, clients: " + std::to_string(clients) + "}");
        ASSERT_EQ(data.clients(), clients);
        for (std::int64_t c = 0; c < clients; ++c) {
            EXPECT_EQ(data.client_name(c), "");
            const Everything mine = everything(*data.client(c));
            EXPECT_EQ(std::ssize(mine.y), data.samples(c));
            for (const float x : mine.x) ASSERT_GE(x, static_cast<float>(c * 205 / clients));
            for (const auto y : mine.y) ASSERT_LT(y, (c + 1) * 205 / clients);
            const auto most = (205 / clients + 1 - 5) / 2 + 1;
            EXPECT_GE(data.samples(c), 205 / clients < 8 ? 1 : most - 2);
            EXPECT_LE(data.samples(c), most);
        }
    }
    EXPECT_EQ(divide(set, "{scheme: natural, clients: 1}").samples(0), set->train()->size());
    const std::string error =
        error_of<core::UsageError>([&] { divide(set, "{scheme: natural, clients: 40}"); });
    EXPECT_CONTAINS(error, "data.partition.clients: blocks of 5 characters");
    EXPECT_CONTAINS(error, "up to 29 clients always work");
}

const std::string play =
    "A title page\n\n"
    "ANNA:\nWhat is it\nthat he said:\nNay:\n\n"
    "Bert Two:\nYes.\n\n"
    "ANNA :  \n  A pause\n\n\nand more\n\n\n"
    "GHOST:\n\n"
    "Bert Two:\nNo, no, no.\n\n"
    "Carl:\nOh";

TEST_F(Text, SpeakersByHand) {
    const auto set = read(play, "clients_by: speaker, min_text: 1, window: 2, stride: 1, test: 0.2");
    const std::string anna = "What is it\nthat he said:\nNay:\n  A pause\n\n\nand more\n";  // 51 characters
    const std::string bert = "Yes.\nNo, no, no.\n";                                         // 17
    ASSERT_EQ(anna.size(), 51U);
    const auto data = divide(set, "{scheme: natural, clients: 2}");
    EXPECT_EQ(data.client_name(0), "ANNA");
    EXPECT_EQ(data.client_name(1), "Bert Two");
    EXPECT_EQ(windows(*set, *data.client(0)), cut(anna.substr(0, 41), 2, 1));
    EXPECT_EQ(windows(*set, *data.client(1)), cut(bert.substr(0, 14), 2, 1));
    Texts test = cut(anna.substr(41), 2, 1);
    const Texts more = cut(bert.substr(14), 2, 1);
    test.insert(test.end(), more.begin(), more.end());
    EXPECT_EQ(windows(*set, *set->test()), test);
    EXPECT_EQ(set->classes(), std::ssize(std::set<char>(play.begin(), play.end())));

    // Carl says two characters, a window has three; the Ghost nothing.
    const std::string error =
        error_of<core::UsageError>([&] { divide(set, "{scheme: natural, clients: 3}"); });
    EXPECT_CONTAINS(error, "data.partition.clients: 3 clients are more than the 2 speakers");
    EXPECT_CONTAINS(error, "min_text");
    EXPECT_EQ(divide(set, "{scheme: natural, clients: 1}").samples(0), 39);
}

TEST_F(Text, SpeakersOfAFileFromWindows) {
    std::string crlf = "\xEF\xBB\xBF";
    for (const char c : play.substr(14)) crlf += c == '\n' ? std::string("\r\n") : std::string(1, c);
    const std::string options = "clients_by: speaker, min_text: 1, window: 2, stride: 1, test: 0.2";
    const auto theirs = read(crlf, options), ours = read(play.substr(14), options);
    EXPECT_EQ(everything(*theirs->train()), everything(*ours->train()));
    EXPECT_EQ(everything(*theirs->test()), everything(*ours->test()));
    EXPECT_EQ(divide(theirs, "{scheme: natural, clients: 2}").client_name(1), "Bert Two");
}

TEST_F(Text, NamesCanBePrinted) {
    const std::string words = "\nlots of words to say, lots and lots of them\n\n";
    const std::string text = "J\xC3\xB6rg\x1b:" + words + "B:" + words;
    const std::string options = "clients_by: speaker, min_text: 1, window: 2, test: 0.3, characters: ";
    const std::string partition = "{scheme: natural, clients: 2}";
    EXPECT_EQ(divide(read(text, options + "utf8"), partition).client_name(0), "Jörg\\x1b");
    EXPECT_EQ(divide(read(text, options + "bytes"), partition).client_name(0), "J\\xc3\\xb6rg\\x1b");
}

/// Random plays against a reader that collects everybody's words line by line.
TEST_F(Text, RandomPlaysAgreeWithASlowReader) {
    core::Random random(2, "plays");
    for (int i = 0; i < 30; ++i) {
        std::string text;
        std::map<std::string, std::string> said;
        Texts order;
        for (int s = 0; s < 40; ++s) {
            const std::string name = "N" + std::to_string(random.below(6));
            std::string speech;
            for (auto lines = 1 + random.below(3); lines > 0; --lines) {
                for (auto c = 1 + random.below(9); c > 0; --c)
                    speech += static_cast<char>('a' + random.below(5));
                speech += random.below(4) == 0 ? ":\n" : "\n";
            }
            text += name + ":\n" + speech + (random.below(3) == 0 ? "\n\n" : "\n");
            if (said.find(name) == said.end()) order.push_back(name);
            said[name] += speech;
        }
        const auto set = read(text, "clients_by: speaker, min_text: 20, window: 6, stride: 2, test: 0.25");
        std::stable_sort(order.begin(), order.end(),
                         [&](const auto& a, const auto& b) { return said[a].size() > said[b].size(); });
        std::erase_if(order, [&](const auto& name) { return said[name].size() < 20; });
        const auto data = divide(set, "{scheme: natural, clients: " + std::to_string(order.size()) + "}");
        Texts train, test;
        for (std::size_t c = 0; c < order.size(); ++c) {
            const std::string& words = said[order[c]];
            const std::size_t border = words.size() - words.size() / 4;
            const Texts mine = cut(words.substr(0, border), 6, 2), theirs = cut(words.substr(border), 6, 2);
            EXPECT_EQ(data.client_name(static_cast<std::int64_t>(c)), order[c]);
            EXPECT_EQ(windows(*set, *data.client(static_cast<std::int64_t>(c))), mine);
            train.insert(train.end(), mine.begin(), mine.end());
            test.insert(test.end(), theirs.begin(), theirs.end());
        }
        EXPECT_EQ(windows(*set, *set->train()), train);
        EXPECT_EQ(windows(*set, *set->test()), test);
    }
}

TEST_F(Text, TheHoldOutIsNobodysAndOtherSchemesWorkToo) {
    std::string text;
    for (int s = 0; s < 30; ++s)
        text += "N" + std::to_string(s % 5) + ":\nsome words of " + std::to_string(s * s) + "\n\n";
    const auto set = read(text, "clients_by: speaker, min_text: 1, window: 4, stride: 1");
    for (const char* scheme :
         {"{scheme: natural, clients: 5}", "{scheme: iid, clients: 5}", "{scheme: shards, clients: 5}",
          "{scheme: dirichlet, clients: 5}", "{scheme: quantity, clients: 5}",
          "{scheme: labels_per_client, clients: 9, labels: 3}"}) {
        const auto data = divide(set, scheme, 50);
        ASSERT_EQ(data.holdout()->size(), 50);
        std::set<std::uint32_t> taken(data.holdout_indices().begin(), data.holdout_indices().end());
        EXPECT_EQ(taken.size(), 50U);
        for (std::int64_t c = 0; c < data.clients(); ++c) {
            EXPECT_EQ(std::ssize(data.indices(c)), data.samples(c));
            EXPECT_EQ(data.client_name(c).empty(), data.clients() == 9 || scheme[9] != 'n') << scheme;
            for (const std::uint32_t index : data.indices(c))
                ASSERT_TRUE(taken.insert(index).second) << scheme;
        }
        if (scheme[9] == 'n') {
            EXPECT_EQ(std::ssize(taken), set->train()->size());
        }
    }
    const auto holdout = set->train()->size() - 5;
    const std::string error =
        error_of<core::UsageError>([&] { divide(set, "{scheme: natural, clients: 5}", holdout); });
    EXPECT_CONTAINS(error, "data.partition.clients");
    EXPECT_CONTAINS(error, "data.holdout");
}

TEST_F(Text, IsTheSameOnAnyNumberOfRanks) {
    const std::string options = "clients_by: speaker, min_text: 1, window: 2, stride: 1, test: 0.2";
    const auto alone = read(play, options);
    thalweg::testing::run_ranks(3, [&](core::Communicator& ranks) {
        const auto set = open(yaml(options), ranks);
        EXPECT_EQ(everything(*set->train()), everything(*alone->train()));
        EXPECT_EQ(everything(*set->test()), everything(*alone->test()));
        EXPECT_EQ(set->classes(), alone->classes());
    });
    write(folder_ / "text.txt", raw("abc\xFF"));
    std::atomic<int> failed = 0;
    thalweg::testing::run_ranks(3, [&](core::Communicator& ranks) {
        error_of<core::RunError>([&] { open(yaml(options), ranks); });
        ++failed;
    });
    EXPECT_EQ(failed, 3);
}

TEST_F(Text, MissingAndEmptyFiles) {
    const std::string missing = error_of<core::RunError>([&] { open(yaml("window: 3", "no.txt")); });
    EXPECT_CONTAINS(missing, "no.txt: there is no such file; set data.dataset.path");
    EXPECT_CONTAINS(error_of<core::RunError>([&] { open("{kind: text, path: '" + folder_.text() + "'}"); }),
                    "is not a file");
    EXPECT_CONTAINS(error_of<core::UsageError>([] { open("text"); }), "path");
    EXPECT_CONTAINS(file_error(""), "the file is empty");
    EXPECT_CONTAINS(file_error("\xEF\xBB\xBF"), "holds no text");
    EXPECT_CONTAINS(file_error("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"), "one character only");
}

TEST_F(Text, WhatIsNotUtf8IsNamedWithItsPlace) {
    EXPECT_CONTAINS(file_error("ab\nc\xE4 d"), "is not UTF-8: byte 0xe4 at offset 4 (line 2); convert");
    EXPECT_CONTAINS(file_error("ab\xC3"), "byte 0xc3 at offset 2 (line 1)");  // cut off at the end
    EXPECT_CONTAINS(file_error("ab\xF0\x9F\x98"), "byte 0xf0 at offset 2 ");
    EXPECT_CONTAINS(file_error("\xEF\xBB\xBF"
                               "a\x80"),
                    "byte 0x80 at offset 4 ");
    EXPECT_CONTAINS(file_error("\xC0\x80 overlong"), "byte 0xc0 at offset 0 ");
    EXPECT_CONTAINS(file_error("\xE0\x9F\xBF overlong"), "byte 0xe0 at offset 0 ");
    EXPECT_CONTAINS(file_error("\xF0\x8F\xBF\xBF overlong"), "byte 0xf0 at offset 0 ");
    EXPECT_CONTAINS(file_error("\xED\xA0\x80 surrogate"), "byte 0xed at offset 0 ");
    EXPECT_CONTAINS(file_error("\xF4\x90\x80\x80 too high"), "byte 0xf4 at offset 0 ");
    EXPECT_CONTAINS(file_error("\xF5\x80\x80\x80 too high"), "byte 0xf5 at offset 0 ");
    EXPECT_CONTAINS(file_error(std::string_view("ab\0cd", 5)),
                    "holds a zero byte, as no text does, at offset 2 (line 1)");
    EXPECT_EQ(read("\xED\x9F\xBF\xEE\x80\x80\xF4\x8F\xBF\xBF\xE0\xA0\x80\xC2\x80\x7F",
                   "window: 1, stride: 1, test: 0.4")
                  ->classes(),
              6);
    const std::string many = file_error(different(256) + in_utf8(0x4E00));
    EXPECT_CONTAINS(many, "has 257 different characters");
    EXPECT_CONTAINS(many, "characters: bytes");
}

TEST_F(Text, TextTooShortForItsOptions) {
    EXPECT_CONTAINS(option_error("abcdefghij", "window: 9"),
                    "data.dataset.window: the 9 characters of training text");
    EXPECT_CONTAINS(option_error("abcdefghij", "window: 8"), "data.dataset.test: ");
    EXPECT_EQ(read("abcdefghij", "window: 4, test: 0.5")->train()->size(), 1);
    EXPECT_CONTAINS(file_error("just prose", "clients_by: speaker, window: 2"), "no speaker found");
    EXPECT_CONTAINS(file_error("ANNA: prose\nBERT:\nprose", "clients_by: speaker, window: 2"),
                    "no speaker found");
    const std::string speaker = "clients_by: speaker, window: ";
    EXPECT_CONTAINS(option_error(play, speaker + "2"),
                    "data.dataset.min_text: the most that one of the 3 speakers of ");
    EXPECT_CONTAINS(option_error(play, speaker + "2"), "(ANNA) is 51 characters; lower it");
    EXPECT_CONTAINS(option_error(play, speaker + "46, min_text: 51"), "data.dataset.window: ");
}

/// Whatever the bytes are, opening gives samples of the classes it states or an error that names the file.
TEST_F(Text, MutatedFilesNeverDoWorse) {
    core::Random random(1, "fuzz");
    const std::string options =
        "clients_by: speaker, min_text: 1, window: 3, stride: 1, test: 0.3, characters: ";
    int errors = 0;
    constexpr int tries = 400;
    for (int i = 0; i < tries; ++i) {
        std::string text = play + different(60);
        for (auto edits = 1 + random.below(6); edits > 0; --edits) {
            const auto place = static_cast<std::size_t>(random.below(std::ssize(text)));
            if (random.below(8) == 0) text.resize(place + 1);
            text[std::min(place, text.size() - 1)] =
                static_cast<char>(random.below(random.below(2) == 0 ? 128 : 256));
        }
        try {
            const auto set = read(text, options + (i % 4 == 0 ? "bytes" : "utf8"));
            for (const auto& part : {set->train(), set->test()}) {
                const Everything all = everything(*part);
                for (const float x : all.x) ASSERT_LT(x, static_cast<float>(set->classes()));
                for (const auto y : all.y) ASSERT_LT(y, set->classes());
            }
        } catch (const core::Error& error) {
            ++errors;
            const std::string what = error.what();
            ASSERT_TRUE(what.find(folder_.text()) != std::string::npos ||
                        what.find("data.dataset") != std::string::npos);
        }
    }
    EXPECT_GT(errors, tries / 8);
    EXPECT_LT(errors, tries * 7 / 8);
}

}  // namespace
}  // namespace thalweg::data::testing::text_test
