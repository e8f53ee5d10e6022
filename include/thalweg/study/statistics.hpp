#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "thalweg/core/random.hpp"

namespace thalweg::study {

/// An estimate with its 95% interval; NaN: not known.
struct Estimate {
    double value = 0, low = 0, high = 0;
    std::int64_t count = 0;
};

/// Mean with Student's interval.
Estimate mean_of(const std::vector<double>& values);
/// Pearson's correlation; NaN for fewer than 2 points or no spread.
double correlation(const std::vector<double>& x, const std::vector<double>& y);
/// Spearman's: of the ranks, ties sharing their mean rank.
double rank_correlation(const std::vector<double>& x, const std::vector<double>& y);
/// Least-squares slope of y over x; NaN without spread in x.
double slope(const std::vector<double>& x, const std::vector<double>& y);

/// Two quantities of every pair among `models` models. Pair (i, j), i < j, lies at pair_index(i, j, models).
struct PairTable {
    std::int64_t models = 0;
    std::vector<double> x, y;
};
std::size_t pair_index(std::int64_t i, std::int64_t j, std::int64_t models);

/// Is there more of y where there is more of x, among the pairs of one setting? Several settings are joined without being
/// pooled: x and y are centred and scaled within each, and their products summed over all pairs.
struct PairCorrelation {
    double value = 0;          ///< the pooled within-setting correlation
    double low = 0, high = 0;  ///< 95% percentile interval, models drawn with replacement within settings
    double p = 1;              ///< two-sided, see below
    std::int64_t permutations = 0;
};
/// Mantel's test (Mantel 1967) of `tables`: under the null hypothesis the models' names in y can be permuted; one permutation
/// of the models (not of pairs, which share models) in every setting, `permutations` times; p = (1 + those with a
/// correlation at least as large in size) ÷ (1 + all). No model may stand in two tables: each is permuted by itself. Settings
/// whose x or y do not vary count nothing; one NaN, and there is no answer. The interval is a
/// bootstrap over models; pairs of a model with itself are left out.
PairCorrelation pair_correlation(const std::vector<PairTable>& tables, core::Random& random,
                                 std::int64_t permutations = 9999, std::int64_t resamples = 2000);

/// The same question of one setting whose models come in blocks (trained one way), when what is joined are the blocks:
/// x and y of two models both follow their blocks, so that the blocks are the units, not their models. Under the null
/// hypothesis the blocks' names in y can be permuted, models keeping their places in them: model (block, place) stands for
/// (π(block), place). All orders of the blocks where there are no more than `permutations` (`result.permutations` says how
/// many), that many drawn ones and the given one otherwise. The interval is a bootstrap over blocks with all their models;
/// no model is paired with itself, and none with models of a copy of its block. `blocks`: which models; all of one size,
/// every model in one (std::logic_error).
PairCorrelation block_correlation(const PairTable& table,
                                  const std::vector<std::vector<std::int64_t>>& blocks, core::Random& random,
                                  std::int64_t permutations = 9999, std::int64_t resamples = 2000);

/// Is there more of y where there is more of x, among independent units (models, or pairs that share none)? Spearman's
/// correlation, its 95% percentile interval over units drawn with replacement, and the two-sided p of the units' names
/// permuted in y. NaN for fewer than 3 units or no spread.
struct UnitCorrelation {
    double value = 0, low = 0, high = 0, p = 1;
    std::int64_t units = 0;
};
UnitCorrelation unit_correlation(const std::vector<double>& x, const std::vector<double>& y,
                                 core::Random& random, std::int64_t permutations = 9999,
                                 std::int64_t resamples = 2000);
/// Two quantities of the units of one group.
struct UnitTable {
    std::vector<double> x, y;
};
/// The same inside groups (ways of training) that may differ in both: the mean of the groups' rank correlations by their
/// units; units are permuted, and drawn, inside their group. Groups of fewer than 3 units or without spread count nothing;
/// `units` are those of all groups.
UnitCorrelation unit_correlation(const std::vector<UnitTable>& groups, core::Random& random,
                                 std::int64_t permutations = 9999, std::int64_t resamples = 2000);

/// Sign-flip test of independent units (models): does their mean differ from 0? Two-sided; exact for up to 20 units, so that
/// n units cannot give less than 2^(1−n). NaN for no unit, or one that is NaN.
double sign_flip_p(const std::vector<double>& units);

}  // namespace thalweg::study
