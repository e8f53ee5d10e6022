#pragma once

#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "view.hpp"

namespace thalweg::model::torchscript {

class Translator;

/// One node of the trace while it is translated: typed access to what it reads, with messages that name it.
class Call {
  public:
    Call(Translator& translator, const Node& node) : translator_(translator), node_(node) {}

    std::size_t count() const { return node_.inputs.size(); }
    /// Beyond the last input counts as none: later PyTorch versions add inputs at the end.
    bool is_none(std::size_t input) const;
    std::int64_t integer(std::size_t input) const;
    std::int64_t integer_or(std::size_t input, std::int64_t fallback) const;
    bool flag(std::size_t input) const { return integer(input) != 0; }
    double number(std::size_t input) const;
    /// A number, or a constant tensor of one element.
    std::optional<double> maybe_number(std::size_t input) const;
    /// A number that was another one when the module was run again (on a batch of another size).
    bool varies(std::size_t input) const;
    /// A number as a list of one.
    std::vector<double> numbers(std::size_t input) const;
    Sizes integers(std::size_t input) const;
    /// Of `rank` items, one standing for all.
    Sizes integers(std::size_t input, std::size_t rank) const;
    std::optional<std::string> maybe_text(std::size_t input) const;
    /// A tensor that is the same for every input; nothing when it is not constant.
    std::optional<at::Tensor> maybe_constant(std::size_t input) const;

    View tensor(std::size_t input) const;
    std::vector<View> tensors(std::size_t input) const;
    /// The number in State::tensors of a parameter or buffer that is read as it is (or, `transposed`, read as a
    /// transposed matrix); -1 for anything else.
    int state(std::size_t input, bool transposed = false) const;
    /// The same for an input that must be a trainable parameter, or none (-1).
    int parameter(std::size_t input, const std::string& what) const;
    int buffer(std::size_t input) const;
    /// The items of a list of tensors.
    std::vector<int> items(std::size_t input) const;
    int parameter_of(int value, const std::string& what) const;
    std::optional<at::Tensor> constant_of(int value) const;

    /// An axis number as 0…rank−1.
    std::size_t axis(std::size_t input, std::size_t rank) const;
    const Extents& extents(std::size_t output = 0) const;
    void write(View view, std::size_t output = 0);
    void write_list(std::vector<View> views);

    Draft& draft() const;
    /// The module's name for an operation that reads this entry.
    std::string name_of(int state) const;
    /// Notes that the input holds rows of a table of so many.
    void note_symbols(std::int64_t count) const;
    [[noreturn]] void refuse(const std::string& reason) const;
    [[noreturn]] void refuse_batch() const;

  private:
    friend class Translator;
    const Value& value(std::size_t input) const;
    const c10::IValue& constant(std::size_t input) const;
    Translator& translator_;
    const Node& node_;
};

using Handler = void (*)(Call& call);
/// By the operation's name without `aten::` and without the underscore of in-place versions.
using Table = std::map<std::string, Handler>;

void add_activations(Table& table);
void add_arithmetic(Table& table);
void add_layers(Table& table);
void add_norms(Table& table);
void add_pools(Table& table);
void add_recurrent(Table& table);
void add_products(Table& table);
void add_shapes(Table& table);
const Table& handlers();

/// Trace to graph.
class Translator {
  public:
    Translator(std::filesystem::path path, const Trace& trace, const Sizes& input_shape);
    /// The value of the logits.
    int run(std::int64_t classes);

    Draft draft;
    /// Rows of the smallest table that the input chooses from; 0 when it does not.
    std::int64_t symbols = 0;

  private:
    friend class Call;
    View view_of(int value, const Call& call);
    View constant_view(const Value& value, const Call& call);
    const std::filesystem::path path_;
    const Trace& trace_;
    std::vector<std::optional<View>> views_;
    std::vector<std::vector<View>> lists_;
};

/// What several handlers share: the two views with axes of the same number and, where both have an extent, factors of
/// the same sizes; then as values whose axes fit for broadcasting, and the view of their result without its value.
struct Broadcast {
    int first = 0, second = 0;
    View result;
};
Broadcast broadcast(Call& call, View first, View second);
/// first + factor · second and first · second.
View add(Call& call, const View& first, const View& second, double factor = 1);
View multiply(Call& call, const View& first, const View& second);
/// torch.matmul.
View matmul(Call& call, View first, View second);
/// Over the last axis.
View linear(Call& call, const View& input, int weight, int bias);
View scaled(Call& call, View view, double factor, double offset = 0);

}  // namespace thalweg::model::torchscript
