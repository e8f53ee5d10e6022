#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace thalweg::model {

/// What an entry of the flat vector is for.
enum class Role {
    weight,        ///< of a linear or convolution
    bias,          ///< of a linear or convolution
    norm_scale,    ///< γ of a norm (starts at 1)
    norm_shift,    ///< β of a norm
    running_mean,  ///< buffer of a batch norm
    running_var,   ///< buffer of a batch norm
    slope,         ///< of a PReLU (starts at 0.25)
    embedding,     ///< rows for symbols
    free,          ///< a tensor of the model's own: positions, class tokens
};

std::string_view role_name(Role role);

/// One named tensor inside the flat vector.
struct Entry {
    std::string name;  ///< as in PyTorch's state_dict: `layers.0.weight`
    std::vector<std::int64_t> shape;
    std::int64_t offset = 0;  ///< in elements
    std::int64_t size = 0;    ///< in elements
    Role role = Role::weight;
    bool trainable = true;
};

/// Where everything lies: trainable entries first, float buffers after them, integer buffers
/// (`num_batches_tracked`) beside. Immutable once built; shared by all models of one architecture.
class Layout {
  public:
    /// Appends an entry and returns its index. Trainable ones must come before buffers: std::logic_error
    /// otherwise.
    std::size_t add(std::string name, std::vector<std::int64_t> shape, Role role);
    /// Appends an integer buffer (a scalar) and returns its index among the counters.
    std::size_t add_counter(std::string name);

    const std::vector<Entry>& entries() const { return entries_; }
    const std::vector<std::string>& counters() const { return counters_; }
    /// Elements an optimizer step, a matching gain and a sign consistency see.
    std::int64_t trainable_size() const { return trainable_size_; }
    /// Trainable entries and float buffers.
    std::int64_t size() const { return size_; }
    std::optional<std::size_t> find(std::string_view name) const;
    /// Entry or counter names in the order of PyTorch's state_dict (module by module: weight, bias,
    /// running_mean, running_var, num_batches_tracked).
    std::vector<std::string> state_dict_order() const;
    bool operator==(const Layout& other) const;

  private:
    std::vector<Entry> entries_;
    std::vector<std::string> counters_;
    std::int64_t trainable_size_ = 0;
    std::int64_t size_ = 0;
};

/// A model's state: one contiguous float vector [layout.size()] (float32, or float64 for proofs) plus the
/// integer buffers [layout.counters()] (int64). A handle: copies share the memory, `clone` does not.
struct Parameters {
    std::shared_ptr<const Layout> layout;
    at::Tensor values;
    at::Tensor counters;

    Parameters() = default;
    /// Zeros.
    explicit Parameters(std::shared_ptr<const Layout> layout_, bool double_precision = false);

    bool defined() const { return values.defined(); }
    Parameters clone() const;
    Parameters to_double() const;
    Parameters to_float() const;
    bool is_double() const;
    /// Entry `index` as a tensor of its shape that shares the memory.
    at::Tensor view(std::size_t index) const;
    at::Tensor view(std::string_view name) const;
    /// The first layout.trainable_size() elements.
    at::Tensor trainable() const;
    /// Raw access; float32 only.
    float* data() const;
    /// Name of the first entry that holds a NaN or an infinity, with how many; nothing when all are finite.
    std::optional<std::string> first_non_finite() const;
};

}  // namespace thalweg::model
