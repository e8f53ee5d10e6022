#include "thalweg/study/statistics.hpp"

#include <algorithm>
#include <boost/math/distributions/students_t.hpp>
#include <cmath>
#include <functional>
#include <limits>
#include <numeric>
#include <stdexcept>

namespace thalweg::study {

namespace {

constexpr double none = std::numeric_limits<double>::quiet_NaN();

bool holds_nan(const std::vector<double>& values) {
    return std::any_of(values.begin(), values.end(), [](double value) { return std::isnan(value); });
}

double mean(const std::vector<double>& values) {
    return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

/// Values minus their mean, over their norm; empty when they do not vary.
std::vector<double> standardised(std::vector<double> values) {
    if (values.size() < 2) return {};
    const double centre = mean(values);
    double squares = 0, largest = 0;
    for (double& value : values) {
        largest = std::max(largest, std::abs(value));
        value -= centre;
        squares += value * value;
    }
    const double norm = std::sqrt(squares);
    // What is left of equal values is rounding of their mean.
    if (!(norm > 1e-12 * largest * std::sqrt(static_cast<double>(values.size())))) return {};
    for (double& value : values) value /= norm;
    return values;
}

double product(const std::vector<double>& a, const std::vector<double>& b) {
    return std::inner_product(a.begin(), a.end(), b.begin(), 0.0);
}

std::vector<double> ranks(const std::vector<double>& values) {
    std::vector<std::size_t> order(values.size());
    std::iota(order.begin(), order.end(), std::size_t{0});
    std::stable_sort(order.begin(), order.end(), [&](auto a, auto b) { return values[a] < values[b]; });
    std::vector<double> result(values.size());
    for (std::size_t first = 0; first < order.size();) {
        std::size_t last = first;
        while (last + 1 < order.size() && values[order[last + 1]] == values[order[first]]) ++last;
        for (std::size_t i = first; i <= last; ++i)
            result[order[i]] = 0.5 * static_cast<double>(first + last) + 1;
        first = last + 1;
    }
    return result;
}

/// One setting, standardised: Σ x y over its pairs is its correlation; weighed by its number of pairs.
struct Setting {
    std::int64_t models = 0;
    std::vector<double> x, y;
    double weight() const { return static_cast<double>(x.size()); }
};

std::vector<Setting> settings_of(const std::vector<PairTable>& tables) {
    std::vector<Setting> settings;
    for (const auto& table : tables) {
        const auto pairs = static_cast<std::size_t>(table.models * (table.models - 1) / 2);
        if (table.x.size() != pairs || table.y.size() != pairs)
            throw std::logic_error("a pair table of " + std::to_string(table.models) + " models has " +
                                   std::to_string(pairs) + " pairs");
        Setting setting{table.models, standardised(table.x), standardised(table.y)};
        if (!setting.x.empty() && !setting.y.empty()) settings.push_back(std::move(setting));
    }
    return settings;
}

/// The mean of the settings' correlations by their pairs; `y_of(setting, i, j)` says which pair's y stands for (i, j).
double pooled(const std::vector<Setting>& settings,
              const std::function<std::size_t(std::size_t, std::int64_t, std::int64_t)>& y_of) {
    double sum = 0, weight = 0;
    for (std::size_t s = 0; s < settings.size(); ++s) {
        const auto& setting = settings[s];
        double correlation = 0;
        std::size_t pair = 0;
        for (std::int64_t i = 0; i < setting.models; ++i) {
            for (std::int64_t j = i + 1; j < setting.models; ++j)
                correlation += setting.x[pair++] * setting.y[y_of(s, i, j)];
        }
        sum += setting.weight() * correlation;
        weight += setting.weight();
    }
    return sum / weight;
}

/// The 95% percentile interval of a statistic that `draw` computes of units drawn with replacement (NaN: nothing varies).
template <typename Correlation, typename Draw>
void bootstrap(Correlation& result, std::int64_t resamples, const Draw& draw) {
    std::vector<double> drawn;
    for (std::int64_t repeat = 0; repeat < resamples; ++repeat) {
        const double value = draw();
        if (!std::isnan(value)) drawn.push_back(value);
    }
    if (drawn.size() < 40) return;
    std::sort(drawn.begin(), drawn.end());
    const auto last = static_cast<double>(drawn.size() - 1);
    result.low = drawn[static_cast<std::size_t>(0.025 * last)];
    result.high = drawn[static_cast<std::size_t>(0.975 * last)];
}

/// The pooled correlation of models drawn with replacement; NaN when nothing varies.
double resampled(const std::vector<Setting>& settings, core::Random& random) {
    double sum = 0, weight = 0;
    for (const auto& setting : settings) {
        std::vector<std::int64_t> drawn(static_cast<std::size_t>(setting.models));
        for (auto& model : drawn) model = random.below(setting.models);
        std::vector<double> x, y;
        for (std::size_t a = 0; a < drawn.size(); ++a) {
            for (std::size_t b = a + 1; b < drawn.size(); ++b) {
                if (drawn[a] == drawn[b]) continue;
                const auto pair = pair_index(drawn[a], drawn[b], setting.models);
                x.push_back(setting.x[pair]);
                y.push_back(setting.y[pair]);
            }
        }
        const double value = correlation(x, y);
        if (std::isnan(value)) continue;
        sum += setting.weight() * value;
        weight += setting.weight();
    }
    return weight > 0 ? sum / weight : none;
}

/// The correlation of blocks drawn with replacement, each with all of its models. A pair of a model with itself is left out,
/// as is one of two models of a block that was drawn twice: it stands in each of the copies already.
double resampled_blocks(const Setting& setting, const std::vector<std::vector<std::int64_t>>& blocks,
                        core::Random& random) {
    std::vector<std::size_t> drawn(blocks.size());
    for (auto& block : drawn)
        block = static_cast<std::size_t>(random.below(static_cast<std::int64_t>(blocks.size())));
    std::vector<double> x, y;
    const auto add = [&](std::int64_t i, std::int64_t j) {
        const auto pair = pair_index(i, j, setting.models);
        x.push_back(setting.x[pair]);
        y.push_back(setting.y[pair]);
    };
    for (std::size_t a = 0; a < drawn.size(); ++a) {
        const auto& first = blocks[drawn[a]];
        for (std::size_t i = 0; i < first.size(); ++i) {
            for (std::size_t j = i + 1; j < first.size(); ++j) add(first[i], first[j]);
        }
        for (std::size_t b = a + 1; b < drawn.size(); ++b) {
            if (drawn[a] == drawn[b]) continue;
            for (const auto i : first) {
                for (const auto j : blocks[drawn[b]]) add(i, j);
            }
        }
    }
    return correlation(x, y);
}

/// Mean of the groups' rank correlations by their units; groups without spread count nothing.
double mean_rank_correlation(const std::vector<UnitTable>& groups) {
    double sum = 0, weight = 0;
    for (const auto& group : groups) {
        const double value = rank_correlation(group.x, group.y);
        if (std::isnan(value)) continue;
        const auto units = static_cast<double>(group.x.size());
        sum += units * value;
        weight += units;
    }
    return weight > 0 ? sum / weight : none;
}

}  // namespace

Estimate mean_of(const std::vector<double>& values) {
    Estimate estimate{none, none, none, static_cast<std::int64_t>(values.size())};
    if (values.empty()) return estimate;
    estimate.value = mean(values);
    if (values.size() < 2) return estimate;
    double squares = 0;
    for (const double value : values) squares += (value - estimate.value) * (value - estimate.value);
    const auto n = static_cast<double>(values.size());
    const boost::math::students_t distribution(n - 1);
    const double reach = boost::math::quantile(distribution, 0.975) * std::sqrt(squares / (n - 1) / n);
    estimate.low = estimate.value - reach;
    estimate.high = estimate.value + reach;
    return estimate;
}

double correlation(const std::vector<double>& x, const std::vector<double>& y) {
    if (x.size() != y.size()) throw std::logic_error("a correlation of lists of two lengths");
    const auto a = standardised(x), b = standardised(y);
    return a.empty() || b.empty() ? none : product(a, b);
}

double rank_correlation(const std::vector<double>& x, const std::vector<double>& y) {
    if (holds_nan(x) || holds_nan(y)) return none;  // what is not known has no rank
    return correlation(ranks(x), ranks(y));
}

double slope(const std::vector<double>& x, const std::vector<double>& y) {
    if (x.size() != y.size()) throw std::logic_error("a slope of lists of two lengths");
    if (x.empty()) return none;
    const double centre_x = mean(x), centre_y = mean(y);
    double products = 0, squares = 0;
    for (std::size_t i = 0; i < x.size(); ++i) {
        products += (x[i] - centre_x) * (y[i] - centre_y);
        squares += (x[i] - centre_x) * (x[i] - centre_x);
    }
    return squares > 0 ? products / squares : none;
}

std::size_t pair_index(std::int64_t i, std::int64_t j, std::int64_t models) {
    if (i > j) std::swap(i, j);
    if (i < 0 || i == j || j >= models) throw std::logic_error("there is no such pair of models");
    return static_cast<std::size_t>(i * models - i * (i + 1) / 2 + j - i - 1);
}

PairCorrelation pair_correlation(const std::vector<PairTable>& tables, core::Random& random,
                                 std::int64_t permutations, std::int64_t resamples) {
    const auto settings = settings_of(tables);
    PairCorrelation result{none, none, none, none, permutations};
    const bool known = std::none_of(tables.begin(), tables.end(), [](const PairTable& table) {
        return holds_nan(table.x) || holds_nan(table.y);
    });
    if (settings.empty() || !known) return result;
    result.value = pooled(settings, [&](std::size_t s, std::int64_t i, std::int64_t j) {
        return pair_index(i, j, settings[s].models);
    });
    std::int64_t as_large = 0;
    for (std::int64_t repeat = 0; repeat < permutations; ++repeat) {
        std::vector<std::vector<std::int64_t>> names;
        for (const auto& setting : settings) names.push_back(random.permutation(setting.models));
        const double value = pooled(settings, [&](std::size_t s, std::int64_t i, std::int64_t j) {
            const auto& name = names[s];
            return pair_index(name[static_cast<std::size_t>(i)], name[static_cast<std::size_t>(j)],
                              settings[s].models);
        });
        // A permutation that changes nothing must count, whatever the order of its sum rounds to.
        if (std::abs(value) >= std::abs(result.value) - 1e-12) ++as_large;
    }
    result.p = static_cast<double>(1 + as_large) / static_cast<double>(1 + permutations);
    bootstrap(result, resamples, [&] { return resampled(settings, random); });
    return result;
}

PairCorrelation block_correlation(const PairTable& table,
                                  const std::vector<std::vector<std::int64_t>>& blocks, core::Random& random,
                                  std::int64_t permutations, std::int64_t resamples) {
    PairCorrelation result{none, none, none, none, permutations};
    if (blocks.empty()) return result;
    std::size_t members = 0;
    for (const auto& block : blocks) {
        if (block.size() != blocks.front().size())
            throw std::logic_error("blocks that are permuted have equally many models");
        members += block.size();
    }
    if (static_cast<std::int64_t>(members) != table.models)
        throw std::logic_error("every model stands in one block");
    const auto settings = settings_of({table});
    if (settings.empty() || holds_nan(table.x) || holds_nan(table.y)) return result;
    const Setting& setting = settings.front();
    std::vector<std::size_t> block_of(members), place_of(members);
    for (std::size_t b = 0; b < blocks.size(); ++b) {
        for (std::size_t place = 0; place < blocks[b].size(); ++place) {
            block_of.at(static_cast<std::size_t>(blocks[b][place])) = b;
            place_of.at(static_cast<std::size_t>(blocks[b][place])) = place;
        }
    }
    const auto of_order = [&](const std::vector<std::int64_t>& order) {
        const auto other = [&](std::int64_t model) {
            const auto index = static_cast<std::size_t>(model);
            return blocks[static_cast<std::size_t>(order[block_of[index]])][place_of[index]];
        };
        return pooled(settings, [&](std::size_t, std::int64_t i, std::int64_t j) {
            return pair_index(other(i), other(j), setting.models);
        });
    };
    std::vector<std::int64_t> order(blocks.size());
    std::iota(order.begin(), order.end(), 0);
    result.value = of_order(order);
    std::int64_t as_large = 0, all = 0;
    const auto count = [&](const std::vector<std::int64_t>& names) {
        // As above: what changes nothing counts.
        as_large += std::abs(of_order(names)) >= std::abs(result.value) - 1e-12;
        ++all;
    };
    double orders = 1;
    for (std::size_t b = 2; b <= blocks.size(); ++b) orders *= static_cast<double>(b);
    if (orders <= static_cast<double>(permutations)) {
        do count(order);
        while (std::next_permutation(order.begin(), order.end()));
        result.permutations = all;
    } else {
        count(order);
        for (std::int64_t repeat = 0; repeat < permutations; ++repeat)
            count(random.permutation(static_cast<std::int64_t>(blocks.size())));
    }
    result.p = static_cast<double>(as_large) / static_cast<double>(all);
    bootstrap(result, resamples, [&] { return resampled_blocks(setting, blocks, random); });
    return result;
}

UnitCorrelation unit_correlation(const std::vector<double>& x, const std::vector<double>& y,
                                 core::Random& random, std::int64_t permutations, std::int64_t resamples) {
    return unit_correlation(std::vector<UnitTable>{{x, y}}, random, permutations, resamples);
}

UnitCorrelation unit_correlation(const std::vector<UnitTable>& groups, core::Random& random,
                                 std::int64_t permutations, std::int64_t resamples) {
    UnitCorrelation result{none, none, none, none, 0};
    std::vector<UnitTable> varying;
    for (const auto& group : groups) {
        result.units += static_cast<std::int64_t>(group.x.size());
        if (holds_nan(group.x) || holds_nan(group.y)) return result;
        if (group.x.size() >= 3 && !std::isnan(rank_correlation(group.x, group.y))) varying.push_back(group);
    }
    if (varying.empty()) return result;
    result.value = mean_rank_correlation(varying);
    std::vector<UnitTable> other = varying;
    std::int64_t as_large = 0;
    for (std::int64_t repeat = 0; repeat < permutations; ++repeat) {
        for (std::size_t g = 0; g < varying.size(); ++g) {
            const auto order = random.permutation(static_cast<std::int64_t>(varying[g].y.size()));
            for (std::size_t i = 0; i < order.size(); ++i)
                other[g].y[i] = varying[g].y[static_cast<std::size_t>(order[i])];
        }
        // A permutation that changes nothing must count, whatever the order of its sum rounds to.
        if (std::abs(mean_rank_correlation(other)) >= std::abs(result.value) - 1e-12) ++as_large;
    }
    result.p = static_cast<double>(1 + as_large) / static_cast<double>(1 + permutations);
    bootstrap(result, resamples, [&] {
        for (std::size_t g = 0; g < varying.size(); ++g) {
            for (std::size_t i = 0; i < varying[g].x.size(); ++i) {
                const auto unit =
                    static_cast<std::size_t>(random.below(static_cast<std::int64_t>(varying[g].x.size())));
                other[g].x[i] = varying[g].x[unit];
                other[g].y[i] = varying[g].y[unit];
            }
        }
        return mean_rank_correlation(other);
    });
    return result;
}

double sign_flip_p(const std::vector<double>& units) {
    if (units.empty() || holds_nan(units)) return none;
    const double seen = std::abs(std::accumulate(units.begin(), units.end(), 0.0));
    double size = 0;
    for (const double unit : units) size += std::abs(unit);
    const double least = seen - 1e-12 * size;
    if (units.size() <= 20) {
        const std::uint64_t all = std::uint64_t{1} << units.size();
        std::uint64_t as_large = 0;
        for (std::uint64_t signs = 0; signs < all; ++signs) {
            double sum = 0;
            for (std::size_t i = 0; i < units.size(); ++i) sum += (signs >> i & 1) ? -units[i] : units[i];
            if (std::abs(sum) >= least) ++as_large;
        }
        return static_cast<double>(as_large) / static_cast<double>(all);
    }
    constexpr std::int64_t repeats = 99999;
    core::Random random(0, "sign flips");
    std::int64_t as_large = 0;
    for (std::int64_t repeat = 0; repeat < repeats; ++repeat) {
        double sum = 0;
        for (const double unit : units) sum += (random.next() >> 63) ? -unit : unit;
        if (std::abs(sum) >= least) ++as_large;
    }
    return static_cast<double>(1 + as_large) / static_cast<double>(1 + repeats);
}

}  // namespace thalweg::study
