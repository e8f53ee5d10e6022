"""Linear CKA, Hessian and effective dimension of Thalweg's model files (an MLP), written independently in NumPy."""
import gzip
import json
import sys

import numpy
import torch

folder, first, second, count = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])


def images(name):
    with gzip.open(f"{folder}/{name}-images-idx3-ubyte.gz") as file:
        return numpy.frombuffer(file.read(), numpy.uint8, offset=16).reshape(-1, 784).astype(numpy.float64) / 255


def layers(path):
    """Weights and biases in order, in double."""
    state = torch.load(path)["state_dict"]
    names = [name[:-7] for name in state if name.endswith(".weight")]
    return names, [(state[n + ".weight"].double().numpy(), state[n + ".bias"].double().numpy()) for n in names]


def pre_activations(model, x):
    found = []
    for weight, bias in model:
        z = x @ weight.T + bias
        found.append(z)
        x = numpy.maximum(z, 0)
    return found


def cka(x, y):
    """In the space of features, as Kornblith et al. write it."""
    x, y = x - x.mean(0), y - y.mean(0)
    square = lambda m: (m * m).sum()
    return square(y.T @ x) / numpy.sqrt(square(x.T @ x) * square(y.T @ y))


def effective(matrix):
    values = numpy.linalg.eigvalsh(matrix)
    return values.sum() ** 2 / (values ** 2).sum()


def last_layer_trace(hidden, z):
    """Of the Hessian with respect to the classifier alone: mean of Σ p(1 − p) · (‖h‖² + 1)."""
    p = numpy.exp(z - z.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    return ((p * (1 - p)).sum(1) * ((hidden ** 2).sum(1) + 1)).mean()


train = images("train")
x = ((images("t10k") - train.mean()) / train.std()).astype(numpy.float32).astype(numpy.float64)[:count]
names, a = layers(first)
b = layers(second)[1]
of_a, of_b = pre_activations(a, x), pre_activations(b, x)
inputs = [x] + [numpy.maximum(z, 0) for z in of_a[:-1]]
print(json.dumps({
    "layers": names,
    "cka": [[cka(u, v) for v in of_b] for u in of_a],
    "support": [{"weights": effective(w.T @ w), "inputs": effective(numpy.cov(h.T)),
                 "outputs": effective(numpy.cov((h @ w.T).T))} for (w, _), h in zip(a, inputs)],
    "classifier_trace": last_layer_trace(inputs[-1], of_a[-1]),
}))
