#include <algorithm>
#include <memory>
#include <string>

#include "owners.hpp"
#include "thalweg/core/registry.hpp"

namespace thalweg::data {
namespace {

/// Each client holds `labels` different labels; a label's samples are split equally, at random, among its
/// holders. Every label is held by somebody when there are at least as many clients × labels as labels; the
/// samples of a label that nobody holds are left out.
class LabelsPerClient final : public Partitioner {
  public:
    explicit LabelsPerClient(core::Value options) : options_(std::move(options)) {}
    std::int64_t clients() const override { return options_["clients"].as_int(); }

    Assignment split(std::span<const std::uint32_t> pool, std::span<const std::uint8_t> labels,
                     std::int64_t classes, core::Random& random) const override {
        require_a_sample_each(options_, pool.size());
        ByLabel groups = group_by_label(labels, classes);
        const std::vector<std::uint8_t> held = choose(groups, random);
        const auto each = static_cast<std::size_t>(options_["labels"].as_int());

        std::vector<std::size_t> holders(static_cast<std::size_t>(classes), 0);
        for (const std::uint8_t label : held) ++holders[label];
        for (std::size_t c = 0; c < holders.size(); ++c) random.shuffle(groups.of(c));

        Owners owners(pool.size(), nobody);
        std::vector<std::size_t> turn(holders.size(), 0);
        for (std::size_t k = 0; k < static_cast<std::size_t>(clients()); ++k) {
            std::size_t got = 0;
            for (std::size_t slot = k * each; slot < (k + 1) * each; ++slot) {
                const std::size_t label = held[slot];
                const auto samples = groups.of(label);
                const std::size_t begin = turn[label] * samples.size() / holders[label];
                const std::size_t end = ++turn[label] * samples.size() / holders[label];
                for (std::size_t i = begin; i < end; ++i) owners[samples[i]] = static_cast<std::uint32_t>(k);
                got += end - begin;
            }
            if (got == 0) {
                options_["labels"].reject("client " + std::to_string(k) +
                                          " gets no sample because its label has more " +
                                          "holders than samples; raise `labels` or lower `clients`");
            }
        }
        return assign(pool, owners, clients());
    }

  private:
    /// [clients, labels]: the labels each client holds, out of those that occur.
    std::vector<std::uint8_t> choose(const ByLabel& groups, core::Random& random) const {
        std::vector<std::uint8_t> present;
        for (std::size_t c = 0; c + 1 < groups.begin.size(); ++c) {
            if (!groups.of(c).empty()) present.push_back(static_cast<std::uint8_t>(c));
        }
        const auto each = static_cast<std::size_t>(options_["labels"].as_int());
        if (each > present.size()) {
            options_["labels"].reject(std::to_string(each) + " labels a client are more than the " +
                                      std::to_string(present.size()) + " labels that the samples have");
        }
        const auto count = static_cast<std::size_t>(clients());
        if (each > groups.positions.size() / count) {
            options_["labels"].reject(std::to_string(count) + " clients with " + std::to_string(each) +
                                      " labels each need more than the " +
                                      std::to_string(groups.positions.size()) + " samples there are");
        }
        random.shuffle(std::span(present));
        std::vector<std::uint8_t> held;
        held.reserve(count * each);
        for (std::size_t k = 0; k < count; ++k) {
            const auto mine = held.size();
            // First the labels that are this client's turn (NIID-Bench: label k mod classes), so that none is
            // left out …
            for (std::size_t slot = k; slot < std::max(present.size(), k + 1) && held.size() < mine + each;
                 slot += count) {
                held.push_back(present[slot % present.size()]);
            }
            // … then different ones at random.
            while (held.size() < mine + each) {
                const auto label = present[static_cast<std::size_t>(
                    random.below(static_cast<std::int64_t>(present.size())))];
                const auto begin = held.begin() + static_cast<std::ptrdiff_t>(mine);
                if (std::find(begin, held.end(), label) == held.end()) held.push_back(label);
            }
        }
        return held;
    }

    core::Value options_;
};

const core::Registration<std::unique_ptr<Partitioner>> labels_per_client_registration{
    {.kind = "partitioner",
     .name = "labels_per_client",
     .help = "label skew: each client holds a few labels, whose samples their holders share equally; samples "
             "of a label "
             "that nobody holds are left out",
     .citation = "Li, Diao, Chen, He: Federated learning on non-IID data silos (ICDE 2022), arXiv:2102.02079",
     .options = {clients_option(),
                 core::integer("labels", "labels a client holds").at_least(1).at_most(256)}},
    [](const core::Value& options) { return std::make_unique<LabelsPerClient>(options); }};

}  // namespace
}  // namespace thalweg::data
