#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

namespace thalweg::symmetry {

/// One channel: something that an index along some axis of some tensor stands for. Channels that the graph ties together
/// (the outputs of two layers that are added, the inputs of the layers that read them) are united into one.
using Channel = std::int64_t;
/// What the places of an axis stand for, in order.
using Line = std::vector<Channel>;

/// Disjoint sets of channels, and what is known of each set. The older of two united ones stands for both.
class Channels {
  public:
    Channel open(const std::string& name);
    Line open(const std::string& name, std::int64_t count);
    Line open_frozen(const std::string& name, std::int64_t count, const std::string& reason);

    Channel find(Channel channel) const;
    void unite(Channel a, Channel b);
    void unite(const Line& a, const Line& b);  ///< place by place

    void freeze(Channel channel, const std::string& reason);
    void freeze(const Line& line, const std::string& reason);
    const std::string& frozen(Channel channel) const { return reason_[at(channel)]; }
    const std::string& name(Channel channel) const { return name_[at(channel)]; }

    /// Cuts the line into `count` stretches of equal length that may move as wholes, and returns the block each of them
    /// is: channels that own those inside. Blocks of two cuts are one when they hold the same channels.
    Line blocks(const Line& line, std::int64_t count);
    /// The block that owns a channel, or -1.
    Channel owner(Channel channel) const;
    /// Cuts the line into stretches of equal length, which belong to these owners.
    void bind(const Line& owners, const Line& line);

    /// To be called once, at the end: freezes what was cut in ways that do not nest.
    void settle();
    /// All that stand for themselves, oldest first.
    std::vector<Channel> roots() const;

  private:
    std::size_t at(Channel channel) const { return static_cast<std::size_t>(find(channel)); }
    mutable std::vector<Channel> parent_;
    std::vector<std::string> name_, reason_;
    std::vector<Channel> owner_;
    std::vector<std::vector<Line>> cuts_;  ///< what `bind` was told: the stretches of each line
};

}  // namespace thalweg::symmetry
