"""An independent reader and writer of safetensors, from the format's description: json and torch alone.

safetensors_interop.py FOLDER: reads model.safetensors there, loads it into a module of the same names, runs it on
input.safetensors and writes output.safetensors, and with foreign.safetensors a half-precision copy of the model whose header
another program would write: no metadata of ours, names sorted, compact JSON.
"""

import json
import os
import struct
import sys

import torch

folder = sys.argv[1]
DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I64": torch.int64}


def load(name):
    with open(os.path.join(folder, name), "rb") as file:
        content = file.read()
    (length,) = struct.unpack("<Q", content[:8])
    assert length % 8 == 0 and content[8:9] == b"{", length
    header = json.loads(content[8:8 + length])
    data = content[8 + length:]
    metadata = header.pop("__metadata__", {})
    tensors, end = {}, 0
    for key, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        begin, after = entry["data_offsets"]
        assert begin == end, (key, begin, end)
        end = after
        dtype = DTYPES[entry["dtype"]]
        assert begin % torch.empty(0, dtype=dtype).element_size() == 0, key
        tensors[key] = torch.frombuffer(bytearray(data[begin:after]), dtype=dtype).reshape(entry["shape"])
    assert end == len(data), (end, len(data))
    return tensors, metadata


def save(name, tensors, metadata=None):
    header, data = ({"__metadata__": metadata} if metadata else {}), b""
    for key in sorted(tensors):
        tensor = tensors[key].contiguous()
        raw = bytes(tensor.reshape(-1).view(torch.uint8).tolist()) if tensor.dim() else tensor.numpy().tobytes()
        dtype = next(short for short, dtype in DTYPES.items() if dtype == tensor.dtype)
        header[key] = {"dtype": dtype, "shape": list(tensor.shape), "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header, separators=(",", ":")).encode()
    with open(os.path.join(folder, name), "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text + data)


class Mlp(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = torch.nn.Sequential(
            torch.nn.Linear(12, 5), torch.nn.BatchNorm1d(5), torch.nn.ReLU(), torch.nn.Linear(5, 3)
        )

    def forward(self, x):
        return self.layers(x.flatten(1))


state, metadata = load("model.safetensors")
assert metadata["format"] == "pt" and metadata["data"] == "made up" and metadata["round"] == "3", metadata
assert "mlp" in metadata["model"]
model = Mlp()
model.load_state_dict(state, strict=True)
assert model.layers[1].num_batches_tracked.item() == 42
inputs, _ = load("input.safetensors")
model.eval()
with torch.no_grad():
    save("output.safetensors", {"y": model(inputs["x"])}, {"of": "python"})
save("foreign.safetensors", {k: v.half() if v.is_floating_point() else v for k, v in model.state_dict().items()})
