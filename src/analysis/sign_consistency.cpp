#include <ATen/Dispatch.h>
#include <torch/types.h>

#include <limits>

#include "thalweg/analysis/measures.hpp"
#include "thalweg/core/error.hpp"

namespace thalweg::analysis {

namespace {

struct Counts {
    std::int64_t agree = 0, counted = 0;
    double share() const {
        if (counted == 0) return std::numeric_limits<double>::quiet_NaN();
        return static_cast<double>(agree) / static_cast<double>(counted);
    }
};

/// Signs, not the product: that of two tiny numbers is zero.
template <class T>
Counts count(const T* a, const T* b, std::int64_t size) {
    Counts counts;
    for (std::int64_t i = 0; i < size; ++i) {
        const bool together = (a[i] > 0 && b[i] > 0) || (a[i] < 0 && b[i] < 0);
        const bool empty = a[i] == 0 && b[i] == 0;
        counts.agree += together ? 1 : 0;
        counts.counted += empty ? 0 : 1;
    }
    return counts;
}

}  // namespace

SignConsistency sign_consistency(const model::Parameters& a, const model::Parameters& b) {
    if (!(*a.layout == *b.layout) || a.is_double() != b.is_double()) {
        throw core::RunError("The signs of two models of different architectures cannot be compared.");
    }
    const at::Tensor left = a.values.contiguous(), right = b.values.contiguous();
    SignConsistency result;
    Counts overall;
    for (const model::Entry& entry : a.layout->entries()) {
        if (!entry.trainable) continue;
        Counts counts;
        AT_DISPATCH_FLOATING_TYPES(left.scalar_type(), "sign_consistency", [&] {
            counts = count(left.data_ptr<scalar_t>() + entry.offset,
                           right.data_ptr<scalar_t>() + entry.offset, entry.size);
        });
        if (counts.counted > 0) result.tensors.emplace_back(entry.name, counts.share());
        if (entry.role == model::Role::norm_scale) continue;
        overall.agree += counts.agree;
        overall.counted += counts.counted;
    }
    result.overall = overall.share();
    return result;
}

}  // namespace thalweg::analysis
