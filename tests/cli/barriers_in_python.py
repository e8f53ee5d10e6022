"""Loss and error between two models (MLPs of linear layers and ReLU) on Fashion-MNIST, along the line and layer by layer:
data reader, interpolation, forward pass and barriers in NumPy, in double, written independently."""
import gzip
import json
import sys

import numpy
import torch

FOLDER = "/usr/share/datasets/fashion-mnist/"


def read(name, offset):
    with gzip.open(FOLDER + name) as file:
        return numpy.frombuffer(file.read(), numpy.uint8, offset=offset)


def samples():
    train = read("train-images-idx3-ubyte.gz", 16).astype(numpy.float64) / 255
    x = read("t10k-images-idx3-ubyte.gz", 16).reshape(-1, 784).astype(numpy.float64) / 255
    return (x - train.mean()) / train.std(), read("t10k-labels-idx1-ubyte.gz", 8).astype(int)


def model(path):
    state = torch.load(path)["state_dict"]
    return {name: tensor.numpy().astype(numpy.float64) for name, tensor in state.items()}


def loss_and_error(state, x, y):
    numbers = sorted({int(name.split(".")[1]) for name in state})
    for number in numbers:
        x = x @ state[f"layers.{number}.weight"].T + state[f"layers.{number}.bias"]
        if number != numbers[-1]:
            x = numpy.maximum(x, 0)
    shifted = x - x.max(axis=1, keepdims=True)
    picked = shifted[numpy.arange(len(y)), y]
    return (numpy.log(numpy.exp(shifted).sum(axis=1)) - picked).mean(), (x.argmax(axis=1) != y).mean()


def mixed(a, b, t, layer=None):
    return {name: (1 - t) * a[name] + t * b[name] if layer is None or name.startswith(layer + ".") else a[name]
            for name in a}


def excess(values, ends, ts):
    """The largest distance above the line between `ends`, never below 0: (loss, error)."""
    return [max(0.0, *(value[k] - (1 - t) * ends[0][k] - t * ends[1][k] for t, value in zip(ts, values)))
            for k in (0, 1)]


def main(path_a, path_b, points):
    a, b = model(path_a), model(path_b)
    x, y = samples()
    ts = numpy.linspace(0, 1, points)
    line = [loss_and_error(mixed(a, b, t), x, y) for t in ts]
    ends = line[0], line[-1]
    layers = sorted({name.rsplit(".", 1)[0] for name in a})
    alone = {layer: excess([loss_and_error(mixed(a, b, t, layer), x, y) for t in ts[1:]], ends, ts[1:])
             for layer in layers}
    middle = {layer: [value - (ends[0][k] + ends[1][k]) / 2
                      for k, value in enumerate(loss_and_error(mixed(a, b, 0.5, layer), x, y))] for layer in layers}
    print(json.dumps({"middle": middle, "loss": [point[0] for point in line], "error": [point[1] for point in line],
                      "barrier": excess(line, ends, ts), "layers": alone}))


main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
