"""Loss and accuracy of a Thalweg model file on Fashion-MNIST: data reader and forward pass written independently."""
import gzip
import json
import sys

import numpy
import torch

FOLDER = "/usr/share/datasets/fashion-mnist/"


def images(name):
    with gzip.open(FOLDER + name) as file:
        return numpy.frombuffer(file.read(), numpy.uint8, offset=16).reshape(-1, 784).astype(numpy.float64) / 255


def labels(name):
    with gzip.open(FOLDER + name) as file:
        return torch.from_numpy(numpy.frombuffer(file.read(), numpy.uint8, offset=8).astype(numpy.int64))


torch.set_num_threads(1)
train = images("train-images-idx3-ubyte.gz")
x = torch.from_numpy((images("t10k-images-idx3-ubyte.gz") - train.mean()) / train.std()).float()
y = labels("t10k-labels-idx1-ubyte.gz")
state = torch.load(sys.argv[1])["state_dict"]
modules = sorted({int(name.split(".")[1]) for name in state})
last = modules[-1]
with torch.no_grad():
    for number in modules:
        key = f"layers.{number}."
        if key + "running_mean" in state:
            x = torch.nn.functional.batch_norm(x, state[key + "running_mean"], state[key + "running_var"],
                                               state[key + "weight"], state[key + "bias"])
            x = torch.relu(x)
        else:
            x = torch.nn.functional.linear(x, state[key + "weight"], state[key + "bias"])
    print(json.dumps({"loss": torch.nn.functional.cross_entropy(x, y).item(),
                      "accuracy": (x.argmax(1) == y).double().mean().item()}))
