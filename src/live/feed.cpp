#include "thalweg/live/feed.hpp"

#include <algorithm>
#include <charconv>
#include <chrono>
#include <utility>

#include "thalweg/record/json.hpp"

namespace thalweg::live {

namespace {

Feed::Text shared(std::string text) {
    return std::make_shared<const std::string>(std::move(text));
}

/// Another one in each process and after each reset, so that an id of an earlier program is recognised as such.
std::uint64_t new_epoch() {
    return static_cast<std::uint64_t>(std::chrono::duration_cast<std::chrono::microseconds>(
                                          std::chrono::system_clock::now().time_since_epoch())
                                          .count());
}

}  // namespace

Feed::Feed(std::size_t history_bytes)
    : limit_(history_bytes),
      run_(shared("{}")),
      progress_(shared("{}")),
      control_(shared(R"({"live":false})")),
      epoch_(new_epoch()) {}

void Feed::set(Text& place, const Json& json) {
    auto text = shared(record::json_text(json));
    const std::scoped_lock lock(mutex_);
    place.swap(text);  // what was there is freed after the lock
    ++version_;
}

void Feed::describe(const Json& run) {
    auto text = shared(record::json_text(run));
    const std::scoped_lock lock(mutex_);
    run_.swap(text);
    ++described_;
    ++version_;
}
void Feed::progress(const Json& progress) {
    set(progress_, progress);
}
void Feed::control(const Json& control) {
    set(control_, control);
}

void Feed::add_round(const Json& round) {
    Round entry{round.value("round", std::int64_t{0}), shared(record::json_text(round))};
    std::deque<Round> dropped;
    const std::scoped_lock lock(mutex_);
    bytes_ += entry.text->size();
    rounds_.push_back(std::move(entry));
    while (bytes_ > limit_ && rounds_.size() > 1) {
        bytes_ -= rounds_.front().text->size();
        dropped.push_back(std::move(rounds_.front()));
        rounds_.pop_front();
        ++first_;
    }
}

void Feed::reset() {
    std::deque<Round> dropped;
    const std::scoped_lock lock(mutex_);
    dropped.swap(rounds_);
    epoch_ = std::max(new_epoch(), epoch_ + 1);
    first_ = 0;
    bytes_ = 0;
    ++version_;
}

Feed::News Feed::news(Cursor& cursor, std::size_t bytes) const {
    News news;
    Text progress, control;
    std::uint64_t epoch = 0, described = 0;
    {
        const std::scoped_lock lock(mutex_);
        if (cursor.epoch != epoch_ || cursor.next > first_ + rounds_.size()) {
            news.reset = true;
            cursor = {.epoch = epoch_};
        }
        cursor.next = std::max(cursor.next, first_);
        std::size_t taken = 0;
        while (cursor.next < first_ + rounds_.size() && (taken == 0 || taken < bytes)) {
            const auto& round = rounds_[static_cast<std::size_t>(cursor.next - first_)];
            news.rounds.emplace_back(cursor.next++, round.text);
            taken += round.text->size();
        }
        news.more = cursor.next < first_ + rounds_.size();
        if (cursor.state != version_) {
            progress = progress_;
            control = control_;
            cursor.state = version_;
        }
        epoch = epoch_;
        described = described_;
    }
    if (progress)
        news.state = "{\"epoch\":\"" + std::to_string(epoch) +
                     "\",\"described\":" + std::to_string(described) + ",\"progress\":" + *progress +
                     ",\"control\":" + *control + "}";
    return news;
}

Feed::Cursor Feed::after(const std::string& id) {
    Cursor cursor;
    const char* const end = id.data() + id.size();
    std::uint64_t epoch = 0, sequence = 0;
    const auto first = std::from_chars(id.data(), end, epoch);
    if (first.ec != std::errc{} || first.ptr == end || *first.ptr != '-') return {};
    const auto second = std::from_chars(first.ptr + 1, end, sequence);
    if (second.ec != std::errc{} || second.ptr != end || sequence == UINT64_MAX) return {};
    cursor.epoch = epoch;
    cursor.next = sequence + 1;
    return cursor;
}

std::string Feed::state() const {
    Text run, progress, control, latest;
    std::size_t count = 0;
    {
        const std::scoped_lock lock(mutex_);
        run = run_;
        progress = progress_;
        control = control_;
        if (!rounds_.empty()) latest = rounds_.back().text;
        count = static_cast<std::size_t>(first_) + rounds_.size();
    }
    return "{\"run\":" + *run + ",\"progress\":" + *progress + ",\"control\":" + *control +
           ",\"latest\":" + (latest ? *latest : "null") + ",\"recorded\":" + std::to_string(count) + "}";
}

std::string Feed::rounds(std::int64_t from, std::size_t bytes) const {
    std::vector<Text> texts;
    bool more = false;
    {
        const std::scoped_lock lock(mutex_);
        auto round =
            std::lower_bound(rounds_.begin(), rounds_.end(), from,
                             [](const Round& entry, std::int64_t number) { return entry.number < number; });
        std::size_t taken = 0;
        for (; round != rounds_.end() && (taken == 0 || taken < bytes); ++round) {
            texts.push_back(round->text);
            taken += round->text->size();
        }
        more = round != rounds_.end();
    }
    std::string json = "{\"rounds\":[";
    for (std::size_t i = 0; i < texts.size(); ++i) json += (i > 0 ? "," : "") + *texts[i];
    return json + "],\"more\":" + (more ? "true}" : "false}");
}

std::size_t Feed::history_bytes() const {
    const std::scoped_lock lock(mutex_);
    return bytes_;
}

Json round_summary(const Json& line) {
    constexpr std::size_t most_ids = 200;
    Json summary;
    for (const char* key : {"round", "train", "test", "sign_consistency", "seconds", "bytes"}) {
        if (line.contains(key)) summary[key] = line[key];
    }
    if (const auto cohort = line.find("cohort"); cohort != line.end() && cohort->is_array()) {
        summary["cohort_size"] = cohort->size();
        summary["cohort"] = Json::array();
        for (std::size_t i = 0; i < std::min(cohort->size(), most_ids); ++i)
            summary["cohort"].push_back((*cohort)[i]);
    }
    summary["stages"] = Json::array();
    if (line.contains("fusion") && line["fusion"].is_object() && line["fusion"].contains("stages")) {
        for (const auto& stage : line["fusion"]["stages"]) {
            if (stage.is_object() && stage.contains("name") && stage.contains("seconds"))
                summary["stages"].push_back({{"name", stage["name"]}, {"seconds", stage["seconds"]}});
        }
    }
    if (line.contains("failures") && line["failures"].is_array())
        summary["failures"] = line["failures"].size();
    return summary;
}

}  // namespace thalweg::live
