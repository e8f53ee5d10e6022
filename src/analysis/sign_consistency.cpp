#include <ATen/Dispatch.h>
#include <torch/types.h>

#include <cmath>
#include <limits>

#include "thalweg/analysis/measures.hpp"
#include "thalweg/core/error.hpp"

namespace thalweg::analysis {

namespace {

constexpr double nothing = std::numeric_limits<double>::quiet_NaN();

struct Counts {
    std::int64_t agree = 0, counted = 0, tested = 0;
    double agreeing_products = 0, products = 0;

    void add(const Counts& other) {
        agree += other.agree;
        counted += other.counted;
        tested += other.tested;
        agreeing_products += other.agreeing_products;
        products += other.products;
    }

    SignAgreement agreement() const {
        SignAgreement result{.ratio = nothing, .weighted = nothing, .z = nothing, .p = nothing};
        result.agree = agree;
        result.counted = counted;
        result.tested = tested;
        if (counted > 0) result.ratio = static_cast<double>(agree) / static_cast<double>(counted);
        if (products > 0) result.weighted = agreeing_products / products;
        if (tested > 0) {
            const auto n = static_cast<double>(tested);
            result.z = (static_cast<double>(agree) - n / 2) / (std::sqrt(n) / 2);
            result.p = std::erfc(std::abs(result.z) / std::sqrt(2.0));
        }
        return result;
    }
};

/// Signs, not the product: that of two tiny numbers is zero.
template <class T>
Counts count(const T* a, const T* b, std::int64_t size) {
    Counts counts;
    for (std::int64_t i = 0; i < size; ++i) {
        const bool together = (a[i] > 0 && b[i] > 0) || (a[i] < 0 && b[i] < 0);
        const double product = std::abs(static_cast<double>(a[i]) * static_cast<double>(b[i]));
        counts.agree += together ? 1 : 0;
        counts.counted += a[i] == 0 && b[i] == 0 ? 0 : 1;
        counts.tested += a[i] == 0 || b[i] == 0 ? 0 : 1;
        counts.products += product;
        counts.agreeing_products += together ? product : 0;
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
        if (counts.counted > 0) {
            result.by_tensor.emplace_back(entry.name, counts.agreement());
            result.tensors.emplace_back(entry.name, result.by_tensor.back().second.ratio);
        }
        if (entry.role != model::Role::norm_scale) overall.add(counts);
    }
    result.all = overall.agreement();
    result.overall = result.all.ratio;
    return result;
}

}  // namespace thalweg::analysis
