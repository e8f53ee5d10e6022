#include "thalweg/core/communicator.hpp"

#include <algorithm>
#include <stdexcept>

#include "thalweg/core/interrupt.hpp"

namespace thalweg::core {

void SelfCommunicator::agree(const std::exception_ptr& mine) {
    if (mine) std::rethrow_exception(mine);
    check_interrupt();
}

std::vector<Bytes> SelfCommunicator::all_gather(std::span<const std::byte> mine) {
    check_interrupt();
    return {Bytes(mine.begin(), mine.end())};
}

std::shared_ptr<const std::byte> SelfCommunicator::share(
    std::size_t size, const std::function<void(std::span<std::byte>)>& fill) {
    check_interrupt();
    const std::shared_ptr<std::byte[]> block(new std::byte[std::max<std::size_t>(size, 1)]());
    fill({block.get(), size});
    return {block, block.get()};
}

std::vector<double> gather_rows(Communicator& communicator, std::int64_t count, std::int64_t width,
                                const std::function<void(std::int64_t, std::span<double>)>& compute) {
    if (count < 0 || width < 0) throw std::invalid_argument("gather_rows: count and width must be >= 0");
    const auto row_length = static_cast<std::size_t>(width);
    const std::int64_t ranks = communicator.size();
    const auto rows_of = [&](std::int64_t rank) { return rank < count ? (count - rank - 1) / ranks + 1 : 0; };
    const auto mine = collectively(communicator, [&] {
        std::vector<double> rows(static_cast<std::size_t>(rows_of(communicator.rank())) * row_length);
        auto rest = std::span(rows);
        for (std::int64_t item = communicator.rank(); item < count; item += ranks) {
            check_interrupt();
            compute(item, rest.first(row_length));
            rest = rest.subspan(row_length);
        }
        return rows;
    });
    const auto parts = communicator.all_gather(as_bytes(mine));
    std::vector<double> all(static_cast<std::size_t>(count) * row_length);
    for (std::int64_t rank = 0; rank < ranks; ++rank) {
        const auto rows = from_bytes<double>(parts[static_cast<std::size_t>(rank)]);
        if (rows.size() != static_cast<std::size_t>(rows_of(rank)) * row_length) {
            throw std::logic_error("gather_rows: the ranks disagree about count or width");
        }
        for (std::size_t i = 0; i * row_length < rows.size(); ++i) {
            const auto item = static_cast<std::size_t>(rank) + i * static_cast<std::size_t>(ranks);
            std::copy_n(rows.begin() + static_cast<std::ptrdiff_t>(i * row_length), row_length,
                        all.begin() + static_cast<std::ptrdiff_t>(item * row_length));
        }
    }
    return all;
}

}  // namespace thalweg::core
