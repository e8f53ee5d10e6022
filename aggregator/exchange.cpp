#include "thalweg/aggregator/exchange.hpp"

#include <torch/types.h>

#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <string>
#include <tuple>

namespace thalweg::aggregator {

namespace {

/// The byte in front of each update of a message.
constexpr std::uint8_t double_flag = 1;
constexpr std::uint8_t mask_flag = 2;

template <class T>
void to_double(const std::byte* from, std::span<double> out) {
    for (std::size_t i = 0; i < out.size(); ++i) {
        T value;
        std::memcpy(&value, from + i * sizeof(T), sizeof(T));  // a message's values are not aligned
        out[i] = static_cast<double>(value);
    }
}

void to_double(const std::byte* from, bool is_double, std::span<double> out) {
    if (is_double) {
        to_double<double>(from, out);
    } else {
        to_double<float>(from, out);
    }
}

std::int64_t width_of(bool is_double) {
    return is_double ? 8 : 4;
}

/// How many elements of a slice have a mask.
std::int64_t masked_length(std::pair<std::int64_t, std::int64_t> slice, std::int64_t trainable) {
    return std::max<std::int64_t>(0, std::min(slice.second, trainable) - slice.first);
}

const std::byte* bytes_of(const at::Tensor& tensor) {
    return static_cast<const std::byte*>(tensor.data_ptr());
}

std::span<std::byte> writable_bytes(const at::Tensor& tensor) {
    return {static_cast<std::byte*>(tensor.data_ptr()), static_cast<std::size_t>(tensor.nbytes())};
}

}  // namespace

std::shared_ptr<const model::Layout> layout_of(const Member& member, const FusionContext& context) {
    return member.graph ? member.graph->layout : context.graph.layout;
}

void check_updates(const std::vector<Update>& updates, const FusionContext& context, bool any_width) {
    const auto& members = context.members;
    std::size_t next = 0;
    for (std::size_t k = 0; k < members.size(); ++k) {
        if (k > 0 && members[k].client <= members[k - 1].client) {
            throw std::logic_error("members must stand in increasing order of their client ids");
        }
        if (members[k].owner < 0 || members[k].owner >= context.communicator.size()) {
            throw std::logic_error("a member's owner is no rank");
        }
        if (members[k].owner != context.communicator.rank()) continue;
        if (next == updates.size() || updates[next].client != members[k].client) {
            throw std::logic_error("the update of client " + std::to_string(members[k].client) +
                                   " is not where its member says");
        }
        const Update& update = updates[next++];
        if (update.graph != members[k].graph || (update.graph != nullptr && !any_width))
            throw std::logic_error("an update of other widths than the round's, where none may be");
        const auto& layout = *layout_of(members[k], context);
        const auto& values = update.parameters.values;
        const auto type = values.defined() ? values.scalar_type() : at::kByte;
        if (!update.parameters.defined() || values.numel() != layout.size() || !values.is_contiguous() ||
            (type != at::kFloat && type != at::kDouble)) {
            throw std::logic_error("an update is not a vector of the layout's length");
        }
        if (update.mask.defined() &&
            (update.mask.scalar_type() != at::kBool || update.mask.numel() != layout.trainable_size() ||
             !update.mask.is_contiguous())) {
            throw std::logic_error("an update's mask is not a bool vector of the trainable length");
        }
    }
    if (next != updates.size()) throw std::logic_error("this rank holds an update that no member stands for");
}

std::pair<std::int64_t, std::int64_t> slice_of(std::int64_t size, int rank, int ranks) {
    const std::int64_t quotient = size / ranks, rest = size % ranks;
    const std::int64_t begin = rank * quotient + std::min<std::int64_t>(rank, rest);
    return {begin, begin + quotient + (rank < rest ? 1 : 0)};
}

void load(const at::Tensor& values, std::int64_t first, std::span<double> out) {
    const bool is_double = values.scalar_type() == at::kDouble;
    to_double(bytes_of(values) + first * width_of(is_double), is_double, out);
}

UpdateSlices::UpdateSlices(const std::vector<Update>& updates, const FusionContext& context,
                           std::int64_t size)
    : own_(updates) {
    auto& communicator = context.communicator;
    const std::int64_t trainable = context.graph.layout->trainable_size();
    const int rank = communicator.rank(), ranks = communicator.size();
    std::tie(begin_, end_) = slice_of(size, rank, ranks);

    const auto out = core::collectively(communicator, [&] {
        check_updates(updates, context);
        std::vector<core::Bytes> messages(static_cast<std::size_t>(ranks));
        for (int to = 0; to < ranks; ++to) {
            // This rank's own slice is read in place.
            if (to != rank)
                messages[static_cast<std::size_t>(to)] = pack(updates, slice_of(size, to, ranks), trainable);
        }
        return messages;
    });
    received_ = communicator.exchange(out);

    std::vector<const std::byte*> position;
    for (const auto& message : received_) position.push_back(message.data());
    std::size_t next = 0;
    bool first = true;
    core::collectively(communicator, [&] {
        for (const Member& member : context.members) {
            Part part;
            bool is_double = false;
            if (member.owner == rank) {
                const Update& update = own_[next++];
                is_double = update.parameters.is_double();
                part.values = bytes_of(update.parameters.values) + begin_ * width_of(is_double);
                if (update.mask.defined()) {
                    part.mask = reinterpret_cast<const std::uint8_t*>(bytes_of(update.mask)) +
                                std::min(begin_, trainable);
                    has_masks_ = true;
                }
            } else {
                auto& from = position[static_cast<std::size_t>(member.owner)];
                is_double = (std::to_integer<std::uint8_t>(*from) & double_flag) != 0;
                part = unpack(from, trainable);
            }
            if (!first && is_double != is_double_) {
                throw std::logic_error("updates of one round in single and in double precision");
            }
            is_double_ = is_double;
            first = false;
            parts_.push_back(part);
        }
    });
}

core::Bytes UpdateSlices::pack(const std::vector<Update>& updates,
                               std::pair<std::int64_t, std::int64_t> slice, std::int64_t trainable) const {
    const std::int64_t length = slice.second - slice.first;
    const std::int64_t masked = masked_length(slice, trainable);
    core::Bytes message;
    std::size_t total = 0;
    for (const Update& update : updates) {
        total += static_cast<std::size_t>(1 + length * width_of(update.parameters.is_double()) +
                                          (update.mask.defined() ? masked : 0));
    }
    message.reserve(total);
    for (const Update& update : updates) {
        const bool is_double = update.parameters.is_double(), has_mask = update.mask.defined();
        message.push_back(static_cast<std::byte>((is_double ? double_flag : 0) | (has_mask ? mask_flag : 0)));
        const auto* values = bytes_of(update.parameters.values) + slice.first * width_of(is_double);
        message.insert(message.end(), values, values + length * width_of(is_double));
        if (has_mask) {
            const auto* mask = bytes_of(update.mask) + slice.first;
            message.insert(message.end(), mask, mask + masked);
        }
    }
    return message;
}

UpdateSlices::Part UpdateSlices::unpack(const std::byte*& position, std::int64_t trainable) {
    const auto flags = std::to_integer<std::uint8_t>(*position++);
    Part part;
    part.values = position;
    position += (end_ - begin_) * width_of((flags & double_flag) != 0);
    if ((flags & mask_flag) != 0) {
        part.mask = reinterpret_cast<const std::uint8_t*>(position);
        position += masked_length({begin_, end_}, trainable);
        has_masks_ = true;
    }
    return part;
}

void UpdateSlices::load(std::size_t k, std::int64_t first, std::span<double> out) const {
    to_double(parts_[k].values + (first - begin_) * width_of(is_double_), is_double_, out);
}

const std::uint8_t* UpdateSlices::mask(std::size_t k, std::int64_t first) const {
    const auto* mask = parts_[k].mask;
    return mask == nullptr ? nullptr : mask + (first - begin_);
}

void for_each_block(std::int64_t begin, std::int64_t end, std::int64_t border,
                    const std::function<void(std::int64_t first, std::int64_t length)>& use) {
    for (std::int64_t first = begin; first < end;) {
        std::int64_t last = std::min(end, first + block_length);
        if (first < border) last = std::min(last, border);
        use(first, last - first);
        first = last;
    }
}

std::vector<double> gather_member_rows(
    core::Communicator& communicator, const std::vector<Member>& members, std::int64_t width,
    const std::function<void(std::size_t k, std::span<double> row)>& compute) {
    const auto columns = static_cast<std::size_t>(width);
    const auto mine = core::collectively(communicator, [&] {
        std::vector<double> rows;
        for (std::size_t k = 0; k < members.size(); ++k) {
            if (members[k].owner != communicator.rank()) continue;
            rows.resize(rows.size() + columns, 0.0);
            compute(k, std::span(rows).last(columns));
        }
        return rows;
    });
    const auto gathered = communicator.all_gather(core::as_bytes(mine));
    std::vector<double> matrix(members.size() * columns);
    std::vector<std::size_t> position(gathered.size(), 0);
    for (std::size_t k = 0; k < members.size() && columns > 0; ++k) {
        const auto owner = static_cast<std::size_t>(members[k].owner);
        std::memcpy(matrix.data() + k * columns, gathered[owner].data() + position[owner],
                    columns * sizeof(double));
        position[owner] += columns * sizeof(double);
    }
    return matrix;
}

model::Parameters broadcast_parameters(const model::Parameters& mine, int root, const FusionContext& context,
                                       std::shared_ptr<const model::Layout> layout) {
    if (layout == nullptr) layout = context.graph.layout;
    auto& communicator = context.communicator;
    if (communicator.size() == 1) return mine;
    const bool is_root = communicator.rank() == root;
    std::byte is_double{static_cast<unsigned char>(is_root && mine.is_double() ? 1 : 0)};
    communicator.broadcast({&is_double, 1}, root);
    const auto parameters = core::collectively(
        communicator, [&] { return is_root ? mine : model::Parameters(layout, is_double != std::byte{0}); });
    communicator.broadcast(writable_bytes(parameters.values), root);
    communicator.broadcast(writable_bytes(parameters.counters), root);
    return parameters;
}

}  // namespace thalweg::aggregator
