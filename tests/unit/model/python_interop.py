"""What a Python user does with a model file: load it, run it, save its state_dict.

python_interop.py FOLDER: reads model.pt and input.pt there, writes state_dict.pt (an OrderedDict), parameters.pt (a
dict of Parameters, one of them transposed in memory), nested.pt, half.pt, whole.pt (a pickled module, which must be
refused), script.pt (TorchScript), old.pt (the format before 1.6) and output.pt.
"""

import collections
import inspect
import os
import sys

import torch

folder = sys.argv[1]


def path(name):
    return os.path.join(folder, name)


def load(name):
    if "weights_only" in inspect.signature(torch.load).parameters:
        safe = torch.load(path(name), weights_only=True)
        unsafe = torch.load(path(name), weights_only=False)
        assert repr(safe) == repr(unsafe)
        return safe
    return torch.load(path(name))


class Mlp(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = torch.nn.Sequential(
            torch.nn.Linear(12, 5), torch.nn.BatchNorm1d(5), torch.nn.ReLU(), torch.nn.Linear(5, 3)
        )

    def forward(self, x):
        return self.layers(x.flatten(1))


file = load("model.pt")
assert set(file) == {"state_dict", "model", "meta"}, set(file)
assert file["meta"] == {"data": "made up", "round": "3"}, file["meta"]
assert isinstance(file["model"], str) and "mlp" in file["model"]
model = Mlp()
assert list(file["state_dict"]) == list(model.state_dict()), list(file["state_dict"])
model.load_state_dict(file["state_dict"], strict=True)
assert model.layers[1].num_batches_tracked.item() == 42
for tensor in file["state_dict"].values():
    # Nothing drags a larger storage along.
    assert tensor.storage().size() == tensor.numel()

tensors = load("input.pt")
assert tensors["meta"] == {"what": "input"}
assert tensors["tensors"]["long"].tolist() == [-1, 2**40]
assert tensors["tensors"]["byte"].dtype == torch.uint8
x = tensors["tensors"]["x"]
model.eval()
with torch.no_grad():
    torch.save({"tensors": {"y": model(x)}, "meta": {"of": "python"}}, path("output.pt"))

state = model.state_dict()
torch.save(state, path("state_dict.pt"))
parameters = dict(state)
weight = parameters["layers.0.weight"]
parameters["layers.0.weight"] = torch.nn.Parameter(weight.t().contiguous().t())
assert not parameters["layers.0.weight"].is_contiguous()
everything = torch.cat([torch.zeros(7), parameters["layers.3.bias"], torch.zeros(2)])
parameters["layers.3.bias"] = everything[7:10]
torch.save(parameters, path("parameters.pt"), pickle_protocol=4)
torch.save({"epoch": 3, "lr": 0.1, "state_dict": state, "extra": [None, True, (1, "x")]}, path("nested.pt"))
torch.save({k: v.half() if v.is_floating_point() else v for k, v in state.items()}, path("half.pt"))
torch.save({k: v.long() for k, v in state.items()}, path("integers.pt"))
torch.save({**state, "layers.0.bias": torch.zeros(1).expand(5)}, path("expanded.pt"))
torch.save(model, path("whole.pt"))
torch.save([1, 2], path("list.pt"))
torch.jit.save(torch.jit.script(model), path("script.pt"))
torch.save(state, path("old.pt"), _use_new_zipfile_serialization=False)
torch.save(collections.OrderedDict(), path("empty.pt"))
