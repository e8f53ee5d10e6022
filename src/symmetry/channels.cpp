#include "channels.hpp"

#include <algorithm>
#include <set>
#include <stdexcept>

namespace thalweg::symmetry {

Channel Channels::open(const std::string& name) {
    const auto channel = static_cast<Channel>(parent_.size());
    parent_.push_back(channel);
    name_.push_back(name);
    reason_.emplace_back();
    owner_.push_back(-1);
    return channel;
}

Line Channels::open(const std::string& name, std::int64_t count) {
    Line line;
    for (std::int64_t i = 0; i < count; ++i) line.push_back(open(name));
    return line;
}

Line Channels::open_frozen(const std::string& name, std::int64_t count, const std::string& reason) {
    Line line = open(name, count);
    freeze(line, reason);
    return line;
}

Channel Channels::find(Channel channel) const {
    auto c = static_cast<std::size_t>(channel);
    while (parent_[c] != static_cast<Channel>(c)) {
        parent_[c] = parent_[static_cast<std::size_t>(parent_[c])];
        c = static_cast<std::size_t>(parent_[c]);
    }
    return static_cast<Channel>(c);
}

void Channels::unite(Channel a, Channel b) {
    a = find(a);
    b = find(b);
    if (a == b) return;
    if (b < a) std::swap(a, b);
    const auto older = static_cast<std::size_t>(a), younger = static_cast<std::size_t>(b);
    parent_[younger] = a;
    if (reason_[older].empty()) reason_[older] = reason_[younger];
    const Channel owner = owner_[older], other = owner_[younger];
    if (owner < 0) {
        owner_[older] = other;
    } else if (other >= 0) {
        unite(owner, other);
    }
}

void Channels::unite(const Line& a, const Line& b) {
    if (a.size() != b.size()) throw std::logic_error("uniting lines of channels of different lengths");
    for (std::size_t i = 0; i < a.size(); ++i) unite(a[i], b[i]);
}

void Channels::freeze(Channel channel, const std::string& reason) {
    auto& known = reason_[at(channel)];
    if (known.empty()) known = reason;
}

void Channels::freeze(const Line& line, const std::string& reason) {
    for (const Channel channel : line) freeze(channel, reason);
}

Channel Channels::owner(Channel channel) const {
    const Channel owner = owner_[at(channel)];
    return owner < 0 ? -1 : find(owner);
}

namespace {

std::vector<Line> cut(const Line& line, std::size_t count) {
    const auto each = static_cast<std::ptrdiff_t>(line.size() / count);
    std::vector<Line> parts;
    for (auto begin = line.begin(); begin != line.end(); begin += each)
        parts.emplace_back(begin, begin + each);
    return parts;
}

}  // namespace

void Channels::bind(const Line& owners, const Line& line) {
    cuts_.push_back(cut(line, owners.size()));
    for (std::size_t b = 0; b < owners.size(); ++b) {
        for (const Channel channel : cuts_.back()[b]) {
            auto& known = owner_[at(channel)];
            if (known < 0) {
                known = owners[b];
            } else {
                unite(known, owners[b]);
            }
        }
    }
}

Line Channels::blocks(const Line& line, std::int64_t count) {
    Line owners;
    for (const Line& block : cut(line, static_cast<std::size_t>(count))) {
        const Channel known = owner(block.front());
        owners.push_back(known >= 0 ? known : open("blocks of " + name(line.front())));
    }
    bind(owners, line);
    return owners;
}

void Channels::settle() {
    for (const auto& cut : cuts_) {
        // Blocks that became one would let channels cross the border between them.
        std::set<Channel> owners;
        for (const Line& block : cut) owners.insert(owner(block.front()));
        if (owners.size() == cut.size()) continue;
        for (const Line& block : cut) freeze(block, "it is cut into blocks in two ways");
    }
    for (const Channel channel : roots()) {
        const Channel block = owner(channel);
        if (block >= 0 && owner(block) >= 0) freeze(owner(block), "blocks of blocks");
    }
}

std::vector<Channel> Channels::roots() const {
    std::vector<Channel> result;
    for (std::size_t c = 0; c < parent_.size(); ++c) {
        if (parent_[c] == static_cast<Channel>(c)) result.push_back(parent_[c]);
    }
    return result;
}

}  // namespace thalweg::symmetry
