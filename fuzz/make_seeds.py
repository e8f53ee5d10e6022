"""Writes the seeds of the fuzz targets: small files, valid ones and ones with a typical fault. Needs Python's torch.

    python3 fuzz/make_seeds.py        (from anywhere; the seeds are in the repository)
"""

import collections
import gzip
import io
import json
import os
import struct
import zipfile

import torch

HERE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "seeds")
SPEC = "{kind: linear, input: [3], classes: 2}"
STATE = {"fc.weight": torch.arange(6.0).reshape(2, 3), "fc.bias": torch.tensor([0.5, -1.0])}


def write(target, name, content):
    os.makedirs(os.path.join(HERE, target), exist_ok=True)
    with open(os.path.join(HERE, target, name), "wb") as file:
        file.write(content)


def saved(value, **options):
    buffer = io.BytesIO()
    torch.save(value, buffer, **options)
    return buffer.getvalue()


def pickled(content):
    """The pickled object inside an archive, which the target wraps again."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return archive.read(next(name for name in archive.namelist() if name.endswith("data.pkl")))


def state_dict():
    whole = saved({"state_dict": STATE, "model": SPEC, "meta": {"data": "mnist:/x", "seed": "3"}})
    values = {
        "bare": STATE,
        "model": {"state_dict": STATE, "model": SPEC, "meta": {"data": "mnist:/x", "seed": "3"}},
        "batch": {"state_dict": STATE, "model": "{kind: mlp, hidden: [3, 2], norm: batch, input: [2, 2], classes: 2}"},
        "ordered": collections.OrderedDict(STATE),
        "views": {"fc.weight": STATE["fc.weight"].t().contiguous().t(), "fc.bias": torch.arange(9.0)[3:5]},
        "parameters": {name: torch.nn.Parameter(value) for name, value in STATE.items()},
        "tensors": {"tensors": {"a": torch.tensor([1, 2]), "b": torch.zeros(0, 3), "c": torch.tensor([True])},
                    "meta": {"config": "{}"}},
        "types": {"tensors": {str(t): torch.ones(2).to(t) for t in (torch.float64, torch.half, torch.bfloat16,
                                                                    torch.int8, torch.uint8, torch.int16)}, "meta": {}},
        "expanded": {"fc.weight": torch.zeros(1).expand(2, 3), "fc.bias": STATE["fc.bias"]},
        "nested": {"epoch": 3, "lr": 0.1, "state_dict": STATE, "extra": [None, True, (1, "x"), -2**40]},
        "not-a-tensor": {"fc.weight": "text", "fc.bias": 1},
        "no-dict": [1, 2],
    }
    for name, value in values.items():
        write("state_dict", name + ".pkl", pickled(saved(value)))
    write("state_dict", "protocol-4.pkl", pickled(saved(values["nested"], pickle_protocol=4)))
    write("state_dict", "model.pt", whole)
    write("state_dict", "cut.pt", whole[: len(whole) // 2])
    write("state_dict", "no-class.pkl", b"\x80\x02cos\nsystem\n(X\x02\x00\x00\x00lstR.")


def tensors(**metadata):
    header = {"__metadata__": metadata} if metadata else {}
    data = b""
    for name, value in STATE.items():
        raw = value.numpy().tobytes()
        header[name] = {"dtype": "F32", "shape": list(value.shape), "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    return header, data


def safetensors():
    def put(name, header, data, length=None):
        text = header if isinstance(header, bytes) else json.dumps(header, separators=(",", ":")).encode()
        write("safetensors", name, struct.pack("<Q", len(text) if length is None else length) + text + data)

    header, data = tensors(format="pt", model=SPEC, seed="3")
    put("model", header, data)
    put("bare", *tensors())
    put("padded", json.dumps(tensors()[0]).encode() + b"     ", data)
    half = {"fc.weight": {"dtype": "F16", "shape": [2, 3], "data_offsets": [0, 12]},
            "fc.bias": {"dtype": "BF16", "shape": [2], "data_offsets": [12, 16]},
            "n": {"dtype": "I64", "shape": [], "data_offsets": [16, 24]},
            "e": {"dtype": "F64", "shape": [0, 3], "data_offsets": [24, 24]}}
    put("types", half, data[:24])
    put("empty", {}, b"")
    put("too-long", header, data, length=2**63)
    put("gap", {"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}, data[:8])
    put("overlap", {k: {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]} for k in "ab"}, data[:8])
    put("overflow", {"a": {"dtype": "F32", "shape": [2**32, 2**32], "data_offsets": [0, 0]}}, b"")
    put("nested", b"[" * 100, b"")
    # The target writes the length in front of what begins with a brace.
    write("safetensors", "header", json.dumps(header, separators=(",", ":")).encode() + data)


def idx():
    images = struct.pack(">4I", 0x803, 2, 28, 28) + bytes(range(0, 196)) * 8
    labels = struct.pack(">2I", 0x801, 2) + b"\x03\x09"
    put = lambda name, file, content: write("idx", name, bytes([file]) + content)
    put("images", 0, images)
    put("images-gz", 0, gzip.compress(images, mtime=0))
    put("labels", 1, labels)
    put("labels-gz", 1, gzip.compress(labels, mtime=0))
    put("test-images", 2, images)
    put("cut", 2, images[:400])
    put("cut-gz", 0, gzip.compress(images, mtime=0)[:60])
    put("too-many", 2, struct.pack(">4I", 0x803, 2**32 - 1, 28, 28) + b"\x00" * 40)
    put("too-many-gz", 0, gzip.compress(struct.pack(">4I", 0x803, 100000, 28, 28) + b"\x00" * 9000, mtime=0))
    put("bad-label", 3, labels[:8] + b"\x0a\x00")
    put("more", 3, labels + b"\x00")


def cifar():
    for number, label in ((0, b"\x09"), (1, b"\x13\x63")):
        record = label + bytes(range(256)) * 12
        write("cifar", f"train-{number}", bytes([number]) + record * 2)
        write("cifar", f"test-{number}", bytes([number | 2]) + record)
        write("cifar", f"cut-{number}", bytes([number]) + record[:100])
        write("cifar", f"bad-label-{number}", bytes([number]) + b"\xff" + record[1:])
        write("cifar", f"gz-{number}", bytes([number]) + gzip.compress(record, mtime=0))


def configuration():
    tiny = ("name: tiny\ndata:\n  dataset: {kind: gaussian_mixture, classes: 4, dimension: 12, train: 600}\n"
            "  partition: {scheme: dirichlet, alpha: 0.3, clients: 5}\n  holdout: 60\n"
            "model: {kind: mlp, hidden: [16, 12]}\nclients:\n  algorithm: {kind: sgd, lr: 0.01}\n  epochs: 2\n")
    server = ("server:\n  rounds: 2\n  fusion: [merge_many, {sign_alignment: {mode: elect}}, mean, repair]\n"
              "analysis:\n  measures: [ladder, barrier]\n")
    write("configuration", "tiny", (tiny + server).encode())
    write("configuration", "bare", tiny.encode())
    write("configuration", "override", (tiny + "\0server.fusion[0]=mean").encode())
    write("configuration", "override-list", (tiny + server + "\0server.fusion.1.mode=fix").encode())
    write("configuration", "wrong-type", tiny.replace("holdout: 60", "holdout: [x]").encode())
    write("configuration", "unknown-key", (tiny + "modle: mlp\n").encode())
    write("configuration", "twice", (tiny + "name: again\n").encode())
    write("configuration", "anchor", b"name: &a x\nmodel: *a\n")
    write("configuration", "quotes", b"name: \"a\\tb\"\ndata: 'it''s'\nmodel: |\n  text\n")
    write("configuration", "deep", b"a: " + b"[" * 70 + b"]" * 70)


for make in (state_dict, safetensors, idx, cifar, configuration):
    make()
