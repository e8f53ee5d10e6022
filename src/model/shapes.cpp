// The shape that every operation writes, and what it asks of the shapes it reads.
#include <algorithm>
#include <functional>
#include <numeric>

#include "shape_error.hpp"
#include "thalweg/core/text.hpp"
#include "thalweg/model/operations.hpp"

namespace thalweg::model {

namespace {

std::string by(const Sizes& sizes) {
    std::string text;
    for (const auto size : sizes) {
        if (!text.empty()) text += 'x';
        text += std::to_string(size);
    }
    return text;
}

std::int64_t product(Sizes::const_iterator begin, Sizes::const_iterator end) {
    return std::accumulate(begin, end, std::int64_t{1}, std::multiplies<>());
}
std::int64_t product(const Sizes& sizes) {
    return product(sizes.begin(), sizes.end());
}

/// One rule for each operation, in the order of operations.hpp.
class Rules {
  public:
    Rules(const std::string& name, const std::vector<Sizes>& inputs, const std::vector<Sizes>& entries)
        : name_(name), inputs_(inputs), entries_(entries) {}

    Sizes operator()(const Linear& linear) const {
        const auto& weight = entry(linear.weight);
        what_ = " (linear layer)";
        if (in().empty()) refuse("it needs features");
        if (in().size() == 3 && in().back() != weight[1])
            refuse("it needs a vector [features]; flatten images before it");
        if (in().back() != weight[1]) refuse("its weight is " + core::shape_text(weight));
        Sizes out = in();
        out.back() = weight[0];
        return out;
    }

    Sizes operator()(const Convolution& conv) const {
        const auto& weight = entry(conv.weight);
        const Sizes kernel(weight.begin() + 2, weight.end());
        what_ = std::string(conv.transposed ? " (transposed convolution " : " (convolution ") + by(kernel) +
                ", stride " + by(conv.stride) + ", padding " + by(conv.padding) + ")";
        require_image(kernel.size());
        require_lists(kernel.size(), {&conv.stride, &conv.padding, &conv.dilation, &conv.output_padding});
        if (conv.groups < 1 || in()[0] % conv.groups != 0) {
            refuse("its " + std::to_string(conv.groups) + " groups do not divide the channels");
        }
        const auto expected = conv.transposed ? weight[0] : weight[1] * conv.groups;
        if (in()[0] != expected) refuse("its weight is for " + std::to_string(expected) + " channels");
        if (!conv.transposed && weight[0] % conv.groups != 0)
            refuse("its groups do not divide its output channels");
        if (!conv.transposed)
            return window(weight[0], kernel, conv.stride, conv.padding, conv.dilation, false);
        Sizes out{weight[1] * conv.groups};
        for (std::size_t i = 0; i < kernel.size(); ++i) {
            if (kernel[i] < 1 || conv.stride[i] < 1 || conv.padding[i] < 0 || conv.dilation[i] < 1)
                refuse("kernel, stride and dilation are at least 1, padding at least 0");
            if (conv.output_padding[i] < 0 ||
                conv.output_padding[i] >= std::max(conv.stride[i], conv.dilation[i]))
                refuse("its output padding is smaller than its stride or its dilation");
            out.push_back((in()[i + 1] - 1) * conv.stride[i] - 2 * conv.padding[i] +
                          conv.dilation[i] * (kernel[i] - 1) + conv.output_padding[i] + 1);
            if (out.back() < 1) refuse("nothing would be left of the image");
        }
        return out;
    }

    Sizes operator()(const BatchNorm& norm) const {
        return channelwise(" (batch norm)", norm.weight, norm.running_mean);
    }

    Sizes operator()(const LayerNorm& norm) const {
        what_ = " (layer norm)";
        const auto count = static_cast<std::size_t>(norm.axes);
        if (norm.channels_first ? in().size() < 2 : (norm.axes < 1 || in().size() < count))
            refuse("it normalises more axes than there are");
        const Sizes normalised =
            norm.channels_first ? Sizes{in()[0]} : Sizes(in().end() - norm.axes, in().end());
        if (norm.weight >= 0 && entry(norm.weight) != normalised)
            refuse("its weight is " + core::shape_text(entry(norm.weight)));
        return in();
    }

    Sizes operator()(const GroupNorm& norm) const {
        what_ = " (group norm of " + std::to_string(norm.groups) + " groups)";
        if (norm.groups < 1 || in().empty() || in()[0] % norm.groups != 0)
            refuse("the groups do not divide the channels");
        return channelwise(what_, norm.weight, norm.bias);
    }

    Sizes operator()(const Activation&) const { return in(); }

    Sizes operator()(const PRelu& prelu) const {
        what_ = " (PReLU)";
        const auto slopes = product(entry(prelu.weight));
        if (slopes != 1 && (in().empty() || slopes != in()[0]))
            refuse("it has " + std::to_string(slopes) + " slopes");
        return in();
    }

    Sizes operator()(const Softmax& softmax) const {
        axis(softmax.axis);
        return in();
    }
    Sizes operator()(const Dropout&) const { return in(); }

    Sizes operator()(const MaxPool& pool) const {
        what_ = " (max pool " + by(pool.kernel) + ", stride " + by(pool.stride) + ", padding " +
                by(pool.padding) + ")";
        require_image(pool.kernel.size());
        require_lists(pool.kernel.size(), {&pool.stride, &pool.padding, &pool.dilation});
        const auto out = window(in()[0], pool.kernel, pool.stride, pool.padding, pool.dilation, pool.ceil);
        check_pool_padding(pool.kernel, pool.padding);
        return out;
    }

    Sizes operator()(const AvgPool& pool) const {
        what_ = " (average pool " + by(pool.kernel) + ", stride " + by(pool.stride) + ", padding " +
                by(pool.padding) + ")";
        require_image(pool.kernel.size());
        require_lists(pool.kernel.size(), {&pool.stride, &pool.padding});
        const auto out =
            window(in()[0], pool.kernel, pool.stride, pool.padding, Sizes(pool.kernel.size(), 1), pool.ceil);
        check_pool_padding(pool.kernel, pool.padding);
        return out;
    }

    Sizes operator()(const AdaptivePool& pool) const {
        what_ = " (adaptive pool to " + by(pool.output) + ")";
        require_image(pool.output.size());
        Sizes out{in()[0]};
        for (const auto size : pool.output) {
            if (size < 1) refuse("it asks for an empty image");
            out.push_back(size);
        }
        return out;
    }

    Sizes operator()(const Flatten&) const { return {product(in())}; }

    Sizes operator()(const Reshape& reshape) const {
        if (product(reshape.shape) != product(in()))
            refuse("it has not the elements of " + core::shape_text(reshape.shape));
        return reshape.shape;
    }

    Sizes operator()(const Permute& permute) const {
        Sizes sorted = permute.order;
        std::sort(sorted.begin(), sorted.end());
        bool valid = permute.order.size() == in().size() + 1 && permute.order[0] == 0;
        for (std::size_t i = 0; valid && i < sorted.size(); ++i)
            valid = sorted[i] == static_cast<std::int64_t>(i);
        if (!valid)
            refuse("the order " + core::shape_text(permute.order) +
                   " is none of its axes with the batch first");
        Sizes out;
        for (std::size_t i = 1; i < permute.order.size(); ++i)
            out.push_back(in()[static_cast<std::size_t>(permute.order[i] - 1)]);
        return out;
    }

    Sizes operator()(const Expand& expand) const {
        bool valid = expand.shape.size() == in().size();
        for (std::size_t i = 0; valid && i < in().size(); ++i)
            valid = in()[i] == 1 || in()[i] == expand.shape[i];
        if (!valid) refuse("it cannot be repeated to " + core::shape_text(expand.shape));
        return expand.shape;
    }

    Sizes operator()(const Cat& cat) const {
        Sizes out = inputs_.at(0);
        const auto along = axis(cat.axis);
        for (std::size_t k = 1; k < inputs_.size(); ++k) {
            Sizes other = inputs_[k];
            if (other.size() != out.size()) refuse_two(other);
            out[along] += other[along];
            other[along] = out[along];
            if (other != out) refuse_two(inputs_[k]);
        }
        return out;
    }

    Sizes operator()(const Slice& slice) const {
        Sizes out = in();
        const auto along = axis(slice.axis);
        if (slice.start < 0 || slice.end > out[along] || slice.start >= slice.end || slice.step < 1)
            refuse("there are no elements " + std::to_string(slice.start) + " to " +
                   std::to_string(slice.end));
        out[along] = (slice.end - slice.start + slice.step - 1) / slice.step;
        return out;
    }

    Sizes operator()(const Add&) const { return broadcast(); }
    Sizes operator()(const Multiply&) const { return broadcast(); }
    Sizes operator()(const Divide&) const { return broadcast(); }
    Sizes operator()(const Affine&) const { return in(); }

    Sizes operator()(const MatMul&) const {
        const Sizes &a = inputs_.at(0), &b = inputs_.at(1);
        if (a.size() < 2 || a.size() != b.size() || a.back() != b[b.size() - 2]) refuse_two(b);
        Sizes out;
        for (std::size_t i = 0; i + 2 < a.size(); ++i) {
            if (a[i] != b[i] && a[i] != 1 && b[i] != 1) refuse_two(b);
            out.push_back(std::max(a[i], b[i]));
        }
        out.push_back(a[a.size() - 2]);
        out.push_back(b.back());
        return out;
    }

    Sizes operator()(const Attention& attention) const {
        what_ = " (attention of " + std::to_string(attention.heads) + " heads)";
        for (const Sizes& input : inputs_) {
            if (input.size() != 2 || attention.heads < 1 || input.back() % attention.heads != 0)
                refuse("it needs [positions, channels], and heads that divide the channels");
        }
        const Sizes &q = inputs_.at(0), &k = inputs_.at(1), &v = inputs_.at(2);
        if (q[1] != k[1] || k[0] != v[0]) refuse_two(k);
        return {q[0], v[1]};
    }

    Sizes operator()(const Reduce& reduce) const {
        Sizes out = in();
        if (reduce.axes.empty()) refuse("it names no axis");
        for (const auto number : reduce.axes) out[axis(number)] = reduce.keep ? 1 : -1;
        std::erase(out, -1);
        return out;
    }

    Sizes operator()(const Upsample& upsample) const {
        what_ = " (upsampling to " + by(upsample.size) + ")";
        require_image(2);
        require_lists(2, {&upsample.size});
        if (upsample.size[0] < 1 || upsample.size[1] < 1) refuse("it asks for an empty image");
        Sizes out{in()[0]};
        out.insert(out.end(), upsample.size.begin(), upsample.size.end());
        return out;
    }

    Sizes operator()(const Pad& pad) const {
        Sizes out = in();
        if (pad.amounts.size() % 2 != 0 || pad.amounts.size() / 2 > out.size())
            refuse("it pads more axes than there are");
        for (std::size_t i = 0; i < pad.amounts.size(); ++i) {
            auto& size = out[out.size() - 1 - i / 2];
            size += pad.amounts[i];
            if (size < 1) refuse("nothing would be left");
        }
        return out;
    }

    Sizes operator()(const Embedding& embedding) const {
        Sizes out = in();
        out.push_back(entry(embedding.weight)[1]);
        return out;
    }

    Sizes operator()(const Parameter& parameter) const {
        if (product(parameter.shape) != product(entry(parameter.weight)))
            throw ShapeError(name_ + " has not the elements of " + core::shape_text(parameter.shape));
        return parameter.shape;
    }
    Sizes operator()(const Constant& constant) const { return constant.shape; }

    Sizes operator()(const Lstm& lstm) const {
        what_ = " (LSTM)";
        if (in().size() != 2 || in()[1] != entry(lstm.weight_input)[1])
            refuse("it needs [positions, " + std::to_string(entry(lstm.weight_input)[1]) + "]");
        return {in()[0], entry(lstm.weight_hidden)[1]};
    }

  private:
    const Sizes& in() const { return inputs_.at(0); }
    const Sizes& entry(int index) const { return entries_.at(static_cast<std::size_t>(index)); }

    [[noreturn]] void refuse(const std::string& reason) const {
        throw ShapeError(name_ + what_ + " cannot take an input of " + core::shape_text(in()) + ": " +
                         reason);
    }
    [[noreturn]] void refuse_two(const Sizes& other) const {
        throw ShapeError(name_ + what_ + " cannot take inputs of " + core::shape_text(in()) + " and " +
                         core::shape_text(other));
    }

    /// The place of an axis (counted with the batch) in a sample's shape.
    std::size_t axis(std::int64_t number) const {
        if (number < 1 || number > static_cast<std::int64_t>(in().size()))
            refuse("it has no axis " + std::to_string(number));
        return static_cast<std::size_t>(number - 1);
    }

    void require_image(std::size_t rank) const {
        if (in().size() == rank + 1) return;
        refuse(rank == 2 ? "it needs an image [channels, height, width]"
                         : "it needs channels and " + std::to_string(rank) + " spatial axes");
    }

    void require_lists(std::size_t rank, std::initializer_list<const Sizes*> lists) const {
        for (const auto* list : lists) {
            if (list->size() != rank) refuse("every option needs a number for each spatial axis");
        }
    }

    /// Channels and spatial sizes after a window has moved over the image.
    Sizes window(std::int64_t channels, const Sizes& kernel, const Sizes& stride, const Sizes& padding,
                 const Sizes& dilation, bool ceil) const {
        if (channels < 1)
            refuse("it has " + std::to_string(channels) + " output channels, at least 1 is needed");
        Sizes out{channels}, padded;
        for (std::size_t i = 0; i < kernel.size(); ++i) padded.push_back(in()[i + 1] + 2 * padding[i]);
        for (std::size_t i = 0; i < kernel.size(); ++i) {
            if (kernel[i] < 1 || stride[i] < 1 || padding[i] < 0 || dilation[i] < 1)
                refuse("kernel, stride and dilation are at least 1, padding at least 0");
            const auto reach = dilation[i] * (kernel[i] - 1) + 1;
            if (reach > padded[i]) {
                refuse("the kernel is larger than the image with its padding (" + by(padded) +
                       "); choose a smaller kernel, more padding, or fewer pools before it");
            }
            auto size = (padded[i] - reach + (ceil ? stride[i] - 1 : 0)) / stride[i] + 1;
            // As PyTorch: a window that begins in the padding on the far side is left out.
            if (ceil && (size - 1) * stride[i] >= in()[i + 1] + padding[i]) --size;
            out.push_back(size);
        }
        return out;
    }

    void check_pool_padding(const Sizes& kernel, const Sizes& padding) const {
        for (std::size_t i = 0; i < kernel.size(); ++i) {
            if (2 * padding[i] > kernel[i]) refuse("a pool's padding is at most half its kernel");
        }
    }

    /// A norm over channels with these two entries of [channels].
    Sizes channelwise(const std::string& what, int first, int second) const {
        what_ = what;
        if (in().empty()) refuse("it needs channels");
        for (const int index : {first, second}) {
            if (index >= 0 && entry(index) != Sizes{in()[0]})
                refuse("its weight is " + core::shape_text(entry(index)));
        }
        return in();
    }

    Sizes broadcast() const {
        Sizes a = inputs_.at(0), b = inputs_.at(1);
        if (a.size() != b.size()) refuse_two(b);
        for (std::size_t i = 0; i < a.size(); ++i) {
            if (a[i] != b[i] && a[i] != 1 && b[i] != 1) refuse_two(b);
            a[i] = std::max(a[i], b[i]);
        }
        return a;
    }

    const std::string& name_;
    const std::vector<Sizes>& inputs_;
    const std::vector<Sizes>& entries_;
    mutable std::string what_;
};

}  // namespace

Sizes output_shape(const std::string& name, const OperationKind& kind, const std::vector<Sizes>& inputs,
                   const std::vector<Sizes>& entry_shapes) {
    return std::visit(Rules(name, inputs, entry_shapes), kind);
}

}  // namespace thalweg::model
