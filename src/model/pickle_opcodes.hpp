#pragma once

namespace thalweg::model {

/// The instructions of the pickle format that state_dicts use, as named in Python's pickletools.
enum Opcode : unsigned char {
    op_mark = '(',
    op_stop = '.',
    op_none = 'N',
    op_binint = 'J',
    op_binint1 = 'K',
    op_binint2 = 'M',
    op_binfloat = 'G',
    op_binunicode = 'X',
    op_tuple = 't',
    op_empty_tuple = ')',
    op_empty_list = ']',
    op_append = 'a',
    op_appends = 'e',
    op_empty_dict = '}',
    op_setitem = 's',
    op_setitems = 'u',
    op_global = 'c',
    op_reduce = 'R',
    op_build = 'b',
    op_binpersid = 'Q',
    op_binput = 'q',
    op_long_binput = 'r',
    op_binget = 'h',
    op_long_binget = 'j',
    op_proto = 0x80,
    op_tuple1 = 0x85,
    op_tuple2 = 0x86,
    op_tuple3 = 0x87,
    op_newtrue = 0x88,
    op_newfalse = 0x89,
    op_long1 = 0x8a,
    op_short_binunicode = 0x8c,
    op_stack_global = 0x93,
    op_memoize = 0x94,
    op_frame = 0x95,
};

}  // namespace thalweg::model
