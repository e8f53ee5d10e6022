#pragma once

#include <cstdint>
#include <deque>
#include <string>
#include <string_view>
#include <vector>

namespace thalweg::model {

/// A Python object as far as state_dicts need it. Plain data; pointers stay inside one Pickle.
struct PickledObject {
    enum class Kind { none, boolean, integer, real, text, tuple, list, dict, global, storage, tensor };
    Kind kind = Kind::none;
    std::int64_t integer =
        0;  ///< of a boolean and an integer; a storage's count of elements; a tensor's offset
    double real = 0.0;
    std::string text;  ///< of a text and a global (`torch.FloatStorage`)
    /// Of a tuple and a list; a dict's keys and values in turn; a storage's type and key (a text); a tensor's
    /// storage.
    std::vector<PickledObject*> items;
    std::vector<std::int64_t> sizes, strides;  ///< of a tensor, in elements

    bool is(Kind other) const { return kind == other; }
    /// The dict's value for a text key (the last one, as Python would have it), or nullptr.
    const PickledObject* find(std::string_view key) const;
};

/// `a dict`, `a tensor`, …: for messages.
std::string kind_name(PickledObject::Kind kind);

/// A pickled object with everything below it. Only what state_dicts are made of is understood; nothing is
/// ever called and no class is looked up, so that a file can do no harm. All objects are owned by one arena:
/// cycles and deep nesting, which a damaged or hostile file may hold, cost nothing.
class Pickle {
  public:
    /// Reads protocols 2 to 5. FormatError for anything but a dict, list, tuple, number, text, tensor or
    /// Parameter.
    explicit Pickle(std::string_view bytes);
    const PickledObject& root() const { return *root_; }

  private:
    friend class Unpickler;
    std::deque<PickledObject> arena_;
    const PickledObject* root_ = nullptr;
};

}  // namespace thalweg::model
