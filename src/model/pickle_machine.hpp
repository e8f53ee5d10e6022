#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "file_error.hpp"
#include "pickle.hpp"

namespace thalweg::model {

/// What the instructions of a pickle work on: the bytes, a stack with marks, a memory by number, and the arena that owns
/// every object. Reaching outside any of them is a FormatError, and so are more objects than any state_dict has: an
/// instruction of one byte makes an object of a hundred.
class PickleMachine {
  protected:
    using Kind = PickledObject::Kind;
    static constexpr std::size_t most_objects = 2'000'000;  // some 300 MB; a tensor takes about 25

    PickleMachine(std::string_view bytes, std::deque<PickledObject>& arena) : bytes_(bytes), arena_(arena) {}

    [[noreturn]] static void damaged() { throw FormatError("its pickled part (data.pkl) is damaged"); }

    std::string_view take(std::size_t count) {
        if (count > bytes_.size() - at_) damaged();
        const auto taken = bytes_.substr(at_, count);
        at_ += count;
        return taken;
    }

    std::uint64_t little_endian(std::size_t count) {
        std::uint64_t value = 0;
        const auto raw = take(count);
        for (std::size_t i = count; i-- > 0;) value = (value << 8) | static_cast<unsigned char>(raw[i]);
        return value;
    }

    std::string line() {
        const auto end = bytes_.find('\n', at_);
        if (end == std::string_view::npos) damaged();
        const auto text = take(end - at_);
        take(1);
        return std::string(text);
    }

    PickledObject* make(Kind kind) {
        if (arena_.size() >= most_objects) too_many();
        arena_.emplace_back();
        arena_.back().kind = kind;
        return &arena_.back();
    }

    void push(PickledObject* object) { stack_.push_back(object); }
    void push_integer(std::int64_t value, Kind kind = Kind::integer) {
        push(make(kind));
        stack_.back()->integer = value;
    }
    void push_text(std::string_view text) {
        push(make(Kind::text));
        stack_.back()->text = text;
    }

    std::size_t floor() const { return marks_.empty() ? 0 : marks_.back(); }
    PickledObject* top() {
        if (stack_.size() <= floor()) damaged();
        return stack_.back();
    }
    PickledObject* pop() {
        auto* object = top();
        stack_.pop_back();
        return object;
    }
    PickledObject* pop(Kind kind) {
        auto* object = pop();
        if (!object->is(kind)) damaged();
        return object;
    }
    std::vector<PickledObject*> pop_many(std::size_t count) {
        if (stack_.size() - floor() < count) damaged();
        std::vector<PickledObject*> taken(stack_.end() - static_cast<std::ptrdiff_t>(count), stack_.end());
        stack_.resize(stack_.size() - count);
        return taken;
    }
    std::vector<PickledObject*> pop_to_mark() {
        if (marks_.empty()) damaged();
        auto taken = pop_many(stack_.size() - marks_.back());
        marks_.pop_back();
        return taken;
    }

    void remember(std::uint64_t index) {
        if (memo_.size() >= most_objects) too_many();
        memo_[index] = top();
    }
    void remember_next() { remember(memo_.size()); }
    PickledObject* remembered(std::uint64_t index) const {
        const auto found = memo_.find(index);
        if (found == memo_.end()) damaged();
        return found->second;
    }

    bool is_empty() const { return stack_.empty() && marks_.empty(); }
    void push_mark() { marks_.push_back(stack_.size()); }

  private:
    [[noreturn]] static void too_many() {
        throw FormatError("its pickled part (data.pkl) holds more objects than any state_dict");
    }

    std::string_view bytes_;
    std::size_t at_ = 0;
    std::deque<PickledObject>& arena_;
    std::vector<PickledObject*> stack_;
    std::vector<std::size_t> marks_;
    std::map<std::uint64_t, PickledObject*> memo_;
};

}  // namespace thalweg::model
