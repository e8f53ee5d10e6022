// From the walk's channels to groups: channels are interchangeable when they stand at the same axes in the same way.
#include <algorithm>
#include <functional>
#include <map>
#include <numeric>
#include <tuple>

#include "thalweg/symmetry/symmetry.hpp"
#include "walk.hpp"

namespace thalweg::symmetry {
namespace {

/// The places of one channel on one axis of an entry.
struct Standing {
    std::size_t axis;  ///< index into Walk::axes
    std::size_t slab;
    std::vector<std::int64_t> places;
};
/// What two channels must have in common to change places: on which axes they stand and through which slices they go, and
/// how their places lie to each other (as those of a flattened channel do).
using Kind = std::vector<std::pair<std::size_t, std::vector<std::int64_t>>>;
using Kinds = std::map<Kind, std::vector<Channel>>;

class Grouping {
  public:
    Grouping(const model::ModelGraph& graph, const Walk& walk) : graph_(graph), walk_(walk) {
        find_standings();
        find_passages();
        for (const Channel channel : walk.channels.roots()) {
            const Channel owner = walk_.channels.owner(channel);
            if (owner >= 0) owned_[owner].push_back(channel);
        }
    }

    Symmetries symmetries() {
        group_free_channels();
        group_blocks();
        std::stable_sort(found_.begin(), found_.end(),
                         [](const Found& a, const Found& b) { return a.oldest < b.oldest; });
        for (Found& found : found_) result_.groups.push_back(std::move(found.group));
        name_apart();
        number_bonds();
        note_frozen();
        return std::move(result_);
    }

  private:
    struct Found {
        Channel oldest;
        Group group;
    };

    void find_standings() {
        for (std::size_t a = 0; a < walk_.axes.size(); ++a) {
            for (std::size_t s = 0; s < walk_.axes[a].slabs.size(); ++s) {
                const Line& slab = walk_.axes[a].slabs[s];
                for (std::size_t place = 0; place < slab.size(); ++place) {
                    auto& standings = standings_[walk_.channels.find(slab[place])];
                    if (standings.empty() || standings.back().axis != a || standings.back().slab != s)
                        standings.push_back({a, s, {}});
                    standings.back().places.push_back(static_cast<std::int64_t>(place));
                }
            }
        }
    }

    /// Numbered behind the axes, and behind one number for what is fixed (see block_kind).
    void find_passages() {
        for (std::size_t p = 0; p < walk_.passages.size(); ++p) {
            std::map<Channel, std::vector<std::int64_t>> places;
            const Line& passage = walk_.passages[p];
            for (std::size_t place = 0; place < passage.size(); ++place) {
                if (passage[place] != Walk::nothing)
                    places[walk_.channels.find(passage[place])].push_back(static_cast<std::int64_t>(place));
            }
            for (const auto& [channel, of_channel] : places)
                passages_[channel].emplace_back(walk_.axes.size() + 1 + p, relative(of_channel));
        }
    }

    static std::vector<std::int64_t> relative(const std::vector<std::int64_t>& places) {
        std::vector<std::int64_t> result;
        for (const auto place : places) result.push_back(place - places.front());
        return result;
    }

    Kind kind_of(Channel channel) const {
        Kind kind;
        if (const auto found = standings_.find(channel); found != standings_.end()) {
            for (const auto& [axis, slab, places] : found->second) kind.emplace_back(axis, relative(places));
        }
        if (const auto found = passages_.find(channel); found != passages_.end())
            kind.insert(kind.end(), found->second.begin(), found->second.end());
        return kind;
    }

    bool is_frozen(Channel channel) const { return !walk_.channels.frozen(channel).empty(); }

    /// A channel inside a block that may move has its place there; any other is free, or fixed.
    bool is_in_a_block(Channel channel) const {
        const Channel owner = walk_.channels.owner(channel);
        return owner >= 0 && !is_frozen(owner) && blocks_alike(owner).size() > 1;
    }

    void group_free_channels() {
        // Channels of a block that stays where it is may change places among themselves only.
        std::map<std::pair<Channel, Kind>, std::vector<Channel>> alike;
        for (const auto& [channel, standings] : standings_) {
            if (is_frozen(channel) || owned_.contains(channel) || is_in_a_block(channel)) continue;
            alike[{walk_.channels.owner(channel), kind_of(channel)}].push_back(channel);
        }
        for (const auto& [key, channels] : alike) {
            if (channels.size() > 1) {
                found_.push_back({channels.front(), group_of(channels)});
            } else {
                alone_.push_back(channels.front());
            }
        }
    }

    using BlockKind = std::tuple<Kind, std::map<Kind, std::size_t>>;
    /// What two blocks must have in common: what they are themselves, and how many channels of which kind are inside.
    BlockKind block_kind(Channel block) const {
        std::map<Kind, std::size_t> inside;
        for (const Channel channel : owned_.at(block)) {
            Kind kind = kind_of(channel);
            if (is_frozen(channel)) kind.emplace_back(walk_.axes.size(), std::vector<std::int64_t>{channel});
            inside[kind] += 1;
        }
        return {kind_of(block), std::move(inside)};
    }

    const std::vector<Channel>& blocks_alike(Channel block) const {
        if (alike_.empty()) {
            for (const auto& [other, channels] : owned_) {
                if (!is_frozen(other)) alike_[block_kind(other)].push_back(other);
            }
        }
        return alike_.at(block_kind(block));
    }

    void group_blocks() {
        for (const auto& [block, inside] : owned_) {
            if (is_frozen(block)) continue;
            const auto& blocks = blocks_alike(block);
            if (blocks.front() != block) continue;  // once for all that are alike
            if (blocks.size() == 1) {
                if (standings_.contains(block)) alone_.push_back(block);
                continue;
            }
            const int bond = bonds_++;
            if (standings_.contains(block)) add_bound(blocks, blocks.size(), bond);
            Kinds kinds;
            for (const Channel channel : inside) kinds[kind_of(channel)];
            for (auto& [kind, channels] : kinds) {
                for (const Channel owner : blocks) {
                    for (const Channel channel : owned_.at(owner)) {
                        if (kind_of(channel) == kind) channels.push_back(channel);
                    }
                }
                add_bound(channels, blocks.size(), bond);
            }
        }
    }

    void add_bound(const std::vector<Channel>& channels, std::size_t blocks, int bond) {
        Group group = group_of(channels);
        group.blocks = static_cast<std::int64_t>(blocks);
        group.bond = bond;
        found_.push_back({*std::min_element(channels.begin(), channels.end()), std::move(group)});
    }

    Group group_of(const std::vector<Channel>& channels) const {
        Group group;
        group.name = walk_.channels.name(channels.front());
        group.size = static_cast<std::int64_t>(channels.size());
        const auto& first = standings_.at(channels.front());
        for (std::size_t k = 0; k < first.size(); ++k) {
            const EntryAxis& on = walk_.axes[first[k].axis];
            AxisUse use{.entry = on.entry, .axis = on.axis, .places = {}};
            use.each = static_cast<std::int64_t>(first[k].places.size());
            if (on.slabs.size() > 1) use.slabs = static_cast<std::int64_t>(on.slabs.size());
            for (const Channel channel : channels) {
                const Standing& standing = standings_.at(channel)[k];
                use.places.insert(use.places.end(), standing.places.begin(), standing.places.end());
                const auto slab = static_cast<std::int64_t>(standing.slab);
                if (use.slabs > 0 && (use.slab_of.empty() || use.slab_of.back() != slab))
                    use.slab_of.push_back(slab);
            }
            group.uses.push_back(std::move(use));
        }
        group.sight = sight_of(channels);
        return group;
    }

    /// The last operation that shows every channel at one place of its own; else the last that shows them equally often.
    Group::Sight sight_of(const std::vector<Channel>& channels) const {
        Group::Sight best;
        for (auto sight = walk_.sights.rbegin(); sight != walk_.sights.rend(); ++sight) {
            const auto found = sight_of(channels, *sight);
            if (found.places.empty()) continue;
            if (found.each == 1) return found;
            if (best.places.empty()) best = found;
        }
        return best;
    }

    Group::Sight sight_of(const std::vector<Channel>& channels, const Sight& sight) const {
        std::map<Channel, std::vector<std::int64_t>> places;
        for (std::size_t i = 0; i < sight.line.size(); ++i)
            places[walk_.channels.find(sight.line[i])].push_back(static_cast<std::int64_t>(i));
        Group::Sight result{sight.operation, sight.axis, {}, 1};
        for (const Channel channel : channels) {
            const auto found = places.find(channel);
            if (found == places.end() || found->second.size() != places.at(channels.front()).size())
                return {};
            result.each = static_cast<std::int64_t>(found->second.size());
            result.places.insert(result.places.end(), found->second.begin(), found->second.end());
        }
        return result;
    }

    /// Groups of one module (the two ends of a padded shortcut, heads' queries and values) get numbers.
    void name_apart() {
        std::map<std::string, int> times, met;
        for (const Group& group : result_.groups) times[group.name] += 1;
        for (Group& group : result_.groups) {
            if (times[group.name] > 1) group.name += "#" + std::to_string(++met[group.name]);
        }
    }

    void number_bonds() {
        std::map<int, int> number;
        for (Group& group : result_.groups) {
            if (group.bond >= 0)
                group.bond = number.try_emplace(group.bond, static_cast<int>(number.size())).first->second;
        }
    }

    void note_frozen() {
        std::map<Channel, bool> covered;
        for (const auto& [channel, standings] : standings_) {
            const std::string& reason = walk_.channels.frozen(channel);
            const bool is_border = reason == "input" || reason == "output" ||
                                   reason == "symbols of the input" || reason == "fixed positions" ||
                                   reason == "a single channel" ||
                                   // the positions of positional parameters
                                   (reason == "it meets fixed positions" && standings.size() == 1);
            if (!is_border) covered[channel] = reason.empty();
        }
        for (const Channel channel : alone_) covered.erase(channel);  // alone there is nothing to permute
        result_.hidden_channels = static_cast<std::int64_t>(covered.size());
        for (const auto& [channel, yes] : covered) result_.covered_channels += yes ? 1 : 0;

        for (const EntryAxis& axis : walk_.axes) {
            std::vector<std::string> reasons;
            for (const Line& slab : axis.slabs) {
                for (const Channel member : slab) {
                    const Channel channel = walk_.channels.find(member);
                    std::string reason = walk_.channels.frozen(channel);
                    if (std::find(alone_.begin(), alone_.end(), channel) != alone_.end())
                        reason = "a single channel";
                    if (!reason.empty() && std::find(reasons.begin(), reasons.end(), reason) == reasons.end())
                        reasons.push_back(reason);
                }
            }
            for (const std::string& reason : reasons)
                result_.frozen.push_back({axis.entry, axis.axis, reason});
        }
    }

    const model::ModelGraph& graph_;
    const Walk& walk_;
    std::map<Channel, std::vector<Standing>> standings_;  ///< by channel that stands for itself
    std::map<Channel, Kind> passages_;                    ///< what slices leave and take of each
    std::map<Channel, std::vector<Channel>> owned_;       ///< by block
    mutable std::map<BlockKind, std::vector<Channel>> alike_;
    std::vector<Channel> alone_;  ///< not frozen, but like no other
    std::vector<Found> found_;
    int bonds_ = 0;
    Symmetries result_;
};

/// Share of the trainable elements that lie on a moved place of some axis.
double covered_share(const model::Layout& layout, const std::vector<Group>& groups) {
    if (layout.trainable_size() == 0) return 0.0;
    const auto& entries = layout.entries();
    // fixed[entry][axis]: places of the axis that no group moves
    std::vector<std::vector<std::int64_t>> fixed;
    for (const model::Entry& entry : entries) fixed.push_back(entry.shape);
    for (const Group& group : groups) {
        for (const AxisUse& use : group.uses) {
            const auto moved =
                static_cast<std::int64_t>(use.places.size()) / std::max<std::int64_t>(use.slabs, 1);
            fixed[use.entry][static_cast<std::size_t>(use.axis)] -= moved;
        }
    }
    std::int64_t covered = 0;
    for (std::size_t e = 0; e < entries.size(); ++e) {
        if (!entries[e].trainable) continue;
        covered += entries[e].size -
                   std::accumulate(fixed[e].begin(), fixed[e].end(), std::int64_t{1}, std::multiplies<>());
    }
    return static_cast<double>(covered) / static_cast<double>(layout.trainable_size());
}

}  // namespace

std::optional<std::int64_t> AxisUse::run() const {
    if (slabs > 0) return {};
    for (std::size_t i = 0; i < places.size(); ++i) {
        if (places[i] != places.front() + static_cast<std::int64_t>(i)) return {};
    }
    return places.front();
}

Symmetries derive(const model::ModelGraph& graph) {
    const Walk walk(graph);
    Symmetries result = Grouping(graph, walk).symmetries();
    result.coverage = covered_share(*graph.layout, result.groups);
    return result;
}

}  // namespace thalweg::symmetry
