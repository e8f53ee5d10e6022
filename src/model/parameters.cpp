#include "thalweg/model/parameters.hpp"

#include <torch/types.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <stdexcept>

#include "thalweg/core/error.hpp"
#include "thalweg/core/memory.hpp"
#include "thalweg/core/text.hpp"

namespace thalweg::model {

namespace {

/// `layers.0` of `layers.0.weight`.
std::string module_of(const std::string& name) {
    const auto dot = name.rfind('.');
    return dot == std::string::npos ? std::string() : name.substr(0, dot);
}

bool is_trainable(Role role) {
    return role != Role::running_mean && role != Role::running_var;
}

template <class T>
std::int64_t count_non_finite(const T* data, std::int64_t size) {
    return std::count_if(data, data + size, [](T value) { return !std::isfinite(value); });
}

std::string described(const Layout& layout) {
    return "a copy of a model of " + std::to_string(layout.size()) + " parameters";
}

void require_memory(const Layout& layout, bool double_precision) {
    const double bytes = static_cast<double>(layout.size()) * (double_precision ? 8 : 4);
    if (bytes < 1e8) return;
    core::require_memory(bytes, described(layout));
}

}  // namespace

std::string_view role_name(Role role) {
    switch (role) {
        case Role::weight:
            return "weight";
        case Role::bias:
            return "bias";
        case Role::norm_scale:
            return "norm_scale";
        case Role::norm_shift:
            return "norm_shift";
        case Role::running_mean:
            return "running_mean";
        case Role::running_var:
            return "running_var";
        case Role::slope:
            return "slope";
        case Role::embedding:
            return "embedding";
        case Role::free:
            return "free";
    }
    throw std::logic_error("role_name: not a role");
}

std::size_t Layout::add(std::string name, std::vector<std::int64_t> shape, Role role) {
    const bool trainable = is_trainable(role);
    if (trainable && size_ != trainable_size_) {
        throw std::logic_error("Layout::add: trainable " + name + " after a buffer");
    }
    const auto taken = std::find(counters_.begin(), counters_.end(), name) != counters_.end();
    if (taken || find(name)) throw std::logic_error("Layout::add: " + name + " is there already");
    std::int64_t size = 1;
    for (const auto extent : shape) {
        if (extent < 0 || __builtin_mul_overflow(size, extent, &size)) {
            throw std::logic_error("Layout::add: impossible shape " + core::shape_text(shape) + " of " +
                                   name);
        }
    }
    entries_.push_back({std::move(name), std::move(shape), size_, size, role, trainable});
    size_ += size;
    if (trainable) trainable_size_ = size_;
    return entries_.size() - 1;
}

std::size_t Layout::add_counter(std::string name) {
    const auto taken = std::find(counters_.begin(), counters_.end(), name) != counters_.end();
    if (taken || find(name)) throw std::logic_error("Layout::add_counter: " + name + " is there already");
    counters_.push_back(std::move(name));
    return counters_.size() - 1;
}

std::optional<std::size_t> Layout::find(std::string_view name) const {
    for (std::size_t i = 0; i < entries_.size(); ++i) {
        if (entries_[i].name == name) return i;
    }
    return std::nullopt;
}

std::vector<std::string> Layout::state_dict_order() const {
    std::vector<std::string> modules;
    std::map<std::string, std::vector<std::string>> members;
    const auto put = [&](const std::string& name) {
        const auto module = module_of(name);
        const auto [place, is_new] = members.try_emplace(module);
        if (is_new) modules.push_back(module);
        place->second.push_back(name);
    };
    for (const auto& entry : entries_) put(entry.name);
    for (const auto& counter : counters_) put(counter);
    std::vector<std::string> order;
    for (const auto& module : modules) {
        order.insert(order.end(), members[module].begin(), members[module].end());
    }
    return order;
}

bool Layout::operator==(const Layout& other) const {
    if (this == &other) return true;
    return counters_ == other.counters_ &&
           std::equal(entries_.begin(), entries_.end(), other.entries_.begin(), other.entries_.end(),
                      [](const Entry& a, const Entry& b) {
                          return a.name == b.name && a.shape == b.shape && a.role == b.role;
                      });
}

Parameters::Parameters(std::shared_ptr<const Layout> layout_, bool double_precision)
    : layout(std::move(layout_)) {
    require_memory(*layout, double_precision);
    try {
        values = at::zeros({layout->size()}, double_precision ? at::kDouble : at::kFloat);
    } catch (const c10::Error&) {  // a limit of the process
        throw core::RunError("There is not enough memory for " + described(*layout) +
                             ". Choose a smaller model, or run fewer processes on this machine.");
    }
    counters = at::zeros({static_cast<std::int64_t>(layout->counters().size())}, at::kLong);
}

Parameters Parameters::clone() const {
    require_memory(*layout, is_double());
    Parameters copy;
    copy.layout = layout;
    copy.values = values.detach().clone();
    copy.counters = counters.clone();
    return copy;
}

Parameters Parameters::to_double() const {
    require_memory(*layout, true);
    Parameters copy = clone();
    copy.values = copy.values.to(at::kDouble);
    return copy;
}

Parameters Parameters::to_float() const {
    Parameters copy = clone();
    copy.values = copy.values.to(at::kFloat);
    return copy;
}

bool Parameters::is_double() const {
    return values.scalar_type() == at::kDouble;
}

at::Tensor Parameters::view(std::size_t index) const {
    const auto& entry = layout->entries().at(index);
    return values.narrow(0, entry.offset, entry.size).view(entry.shape);
}

at::Tensor Parameters::view(std::string_view name) const {
    const auto index = layout->find(name);
    if (!index) throw std::logic_error("Parameters::view: no entry " + std::string(name));
    return view(*index);
}

at::Tensor Parameters::trainable() const {
    return values.narrow(0, 0, layout->trainable_size());
}

float* Parameters::data() const {
    if (is_double()) throw std::logic_error("Parameters::data: these are double");
    return values.data_ptr<float>();
}

std::optional<std::string> Parameters::first_non_finite() const {
    for (const auto& entry : layout->entries()) {
        const auto count = is_double()
                               ? count_non_finite(values.data_ptr<double>() + entry.offset, entry.size)
                               : count_non_finite(values.data_ptr<float>() + entry.offset, entry.size);
        if (count == 0) continue;
        return entry.name + " (" + std::to_string(count) + " of " + std::to_string(entry.size) +
               (entry.size == 1 ? " value)" : " values)");
    }
    return std::nullopt;
}

}  // namespace thalweg::model
