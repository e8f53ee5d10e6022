#include "pickle.hpp"

#include <array>
#include <bit>

#include "pickle_machine.hpp"
#include "pickle_opcodes.hpp"

namespace thalweg::model {

namespace {

using Kind = PickledObject::Kind;

constexpr std::size_t most_axes = 16;
constexpr std::array<std::string_view, 14> white_list{"collections.OrderedDict",
                                                      "torch._utils._rebuild_tensor",
                                                      "torch._utils._rebuild_tensor_v2",
                                                      "torch._utils._rebuild_parameter",
                                                      "torch.FloatStorage",
                                                      "torch.DoubleStorage",
                                                      "torch.HalfStorage",
                                                      "torch.BFloat16Storage",
                                                      "torch.LongStorage",
                                                      "torch.IntStorage",
                                                      "torch.ShortStorage",
                                                      "torch.CharStorage",
                                                      "torch.ByteStorage",
                                                      "torch.BoolStorage"};

}  // namespace

/// The stack machine of the pickle format.
class Unpickler : private PickleMachine {
  public:
    Unpickler(std::string_view bytes, std::deque<PickledObject>& arena) : PickleMachine(bytes, arena) {}

    const PickledObject* run() {
        while (true) {
            const auto opcode = static_cast<unsigned char>(take(1)[0]);
            if (opcode == op_stop) {
                auto* root = pop();
                if (!is_empty()) damaged();
                return root;
            }
            if (!scalar(opcode) && !container(opcode) && !memory(opcode) && !call(opcode)) {
                throw FormatError("its pickled part (data.pkl) is damaged or uses an instruction (" +
                                  std::to_string(int{opcode}) + ") that no state_dict needs");
            }
        }
    }

  private:
    bool scalar(unsigned char opcode) {
        switch (opcode) {
            case op_none:
                push(make(Kind::none));
                return true;
            case op_newtrue:
            case op_newfalse:
                push_integer(opcode == op_newtrue ? 1 : 0, Kind::boolean);
                return true;
            case op_binint:
                push_integer(static_cast<std::int32_t>(little_endian(4)));
                return true;
            case op_binint1:
                push_integer(static_cast<std::int64_t>(little_endian(1)));
                return true;
            case op_binint2:
                push_integer(static_cast<std::int64_t>(little_endian(2)));
                return true;
            case op_long1:
                push_long(little_endian(1));
                return true;
            case op_binfloat:
                push_float();
                return true;
            case op_binunicode:
                push_text(take(little_endian(4)));
                return true;
            case op_short_binunicode:
                push_text(take(little_endian(1)));
                return true;
            default:
                return false;
        }
    }

    /// A two's complement number of `count` bytes.
    void push_long(std::uint64_t count) {
        if (count > 8) throw FormatError("its pickled part (data.pkl) holds a number beyond 64 bits");
        auto value = little_endian(count);
        if (count > 0 && count < 8 && (value >> (8 * count - 1)) != 0)
            value |= ~std::uint64_t{0} << (8 * count);
        push_integer(static_cast<std::int64_t>(value));
    }

    void push_float() {
        std::uint64_t bits = 0;
        for (const char byte : take(8)) bits = (bits << 8) | static_cast<unsigned char>(byte);
        push(make(Kind::real));
        top()->real = std::bit_cast<double>(bits);
    }

    bool container(unsigned char opcode) {
        switch (opcode) {
            case op_mark:
                push_mark();
                return true;
            case op_empty_tuple:
                push(make(Kind::tuple));
                return true;
            case op_empty_list:
                push(make(Kind::list));
                return true;
            case op_empty_dict:
                push(make(Kind::dict));
                return true;
            case op_tuple:
                push_tuple(pop_to_mark());
                return true;
            case op_tuple1:
            case op_tuple2:
            case op_tuple3:
                push_tuple(pop_many(opcode - op_tuple1 + 1U));
                return true;
            case op_append:
                extend(Kind::list, pop_many(1));
                return true;
            case op_appends:
                extend(Kind::list, pop_to_mark());
                return true;
            case op_setitem:
                extend(Kind::dict, pop_many(2));
                return true;
            case op_setitems:
                extend(Kind::dict, pop_to_mark());
                return true;
            default:
                return false;
        }
    }

    void push_tuple(std::vector<PickledObject*> items) {
        push(make(Kind::tuple));
        top()->items = std::move(items);
    }

    void extend(Kind kind, const std::vector<PickledObject*>& items) {
        auto* target = top();
        if (!target->is(kind) || (kind == Kind::dict && items.size() % 2 != 0)) damaged();
        target->items.insert(target->items.end(), items.begin(), items.end());
    }

    bool memory(unsigned char opcode) {
        switch (opcode) {
            case op_proto:
                if (const auto protocol = little_endian(1); protocol < 2 || protocol > 5) damaged();
                return true;
            case op_frame:
                little_endian(8);
                return true;
            case op_memoize:
                remember_next();
                return true;
            case op_binput:
                remember(little_endian(1));
                return true;
            case op_long_binput:
                remember(little_endian(4));
                return true;
            case op_binget:
                push(remembered(little_endian(1)));
                return true;
            case op_long_binget:
                push(remembered(little_endian(4)));
                return true;
            default:
                return false;
        }
    }

    bool call(unsigned char opcode) {
        switch (opcode) {
            case op_global: {
                const auto module = line();
                push_global(module + "." + line());
                return true;
            }
            case op_stack_global: {
                const auto* name = pop(Kind::text);
                const auto* module = pop(Kind::text);
                push_global(module->text + "." + name->text);
                return true;
            }
            case op_binpersid:
                push_storage(pop(Kind::tuple)->items);
                return true;
            case op_reduce: {
                const auto* arguments = pop(Kind::tuple);
                const auto* function = pop(Kind::global);
                reduce(function->text, arguments->items);
                return true;
            }
            case op_build:
                // An OrderedDict's attributes (PyTorch's _metadata) say nothing that is needed.
                pop();
                if (!top()->is(Kind::dict)) damaged();
                return true;
            default:
                return false;
        }
    }

    void push_global(const std::string& name) {
        bool known = false;
        for (const auto listed : white_list) known = known || listed == name;
        if (!known) {
            throw FormatError("it holds a Python object that is not read: " + name.substr(0, 200) +
                              ". Save tensors only, as torch.save(model.state_dict(), path) does");
        }
        push(make(Kind::global));
        top()->text = name;
    }

    /// ('storage', type, key, device, count of elements)
    void push_storage(const std::vector<PickledObject*>& id) {
        if (id.size() != 5 || !id[0]->is(Kind::text) || id[0]->text != "storage" ||
            !id[1]->is(Kind::global) || !id[1]->text.ends_with("Storage") || !id[2]->is(Kind::text) ||
            !id[4]->is(Kind::integer)) {
            damaged();
        }
        push(make(Kind::storage));
        top()->integer = id[4]->integer;
        top()->items = {id[1], id[2]};
    }

    void reduce(const std::string& function, const std::vector<PickledObject*>& arguments) {
        if (function == "collections.OrderedDict") {
            if (!arguments.empty()) damaged();
            push(make(Kind::dict));
        } else if (function == "torch._utils._rebuild_parameter") {
            if (arguments.empty() || !arguments[0]->is(Kind::tensor)) damaged();
            push(arguments[0]);
        } else if (function.starts_with("torch._utils._rebuild_tensor")) {
            push_tensor(arguments);
        } else {
            damaged();
        }
    }

    /// storage, offset, sizes, strides and things that only matter to autograd
    void push_tensor(const std::vector<PickledObject*>& arguments) {
        if (arguments.size() < 4 || !arguments[0]->is(Kind::storage) || !arguments[1]->is(Kind::integer))
            damaged();
        push(make(Kind::tensor));
        auto* tensor = top();
        tensor->items = {arguments[0]};
        tensor->integer = arguments[1]->integer;
        tensor->sizes = integers(*arguments[2]);
        tensor->strides = integers(*arguments[3]);
        if (tensor->sizes.size() != tensor->strides.size()) damaged();
    }

    static std::vector<std::int64_t> integers(const PickledObject& tuple) {
        if (!tuple.is(Kind::tuple)) damaged();
        std::vector<std::int64_t> values;
        // Bounded, because three bytes can ask for a copy of a tuple that is there already.
        if (tuple.items.size() > most_axes) throw FormatError("it holds a tensor of more than 16 axes");
        for (const auto* item : tuple.items) {
            if (!item->is(Kind::integer)) damaged();
            values.push_back(item->integer);
        }
        return values;
    }
};

const PickledObject* PickledObject::find(std::string_view key) const {
    if (!is(Kind::dict)) return nullptr;
    const PickledObject* found = nullptr;
    for (std::size_t i = 0; i + 1 < items.size(); i += 2) {
        if (items[i]->is(Kind::text) && items[i]->text == key) found = items[i + 1];
    }
    return found;
}

std::string kind_name(PickledObject::Kind kind) {
    switch (kind) {
        case Kind::none:
            return "None";
        case Kind::boolean:
            return "a bool";
        case Kind::integer:
            return "an int";
        case Kind::real:
            return "a float";
        case Kind::text:
            return "a text";
        case Kind::tuple:
            return "a tuple";
        case Kind::list:
            return "a list";
        case Kind::dict:
            return "a dict";
        case Kind::global:
            return "a class";
        case Kind::storage:
            return "a storage";
        case Kind::tensor:
            return "a tensor";
    }
    return "something else";
}

Pickle::Pickle(std::string_view bytes) {
    root_ = Unpickler(bytes, arena_).run();
}

}  // namespace thalweg::model
