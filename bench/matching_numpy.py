#!/usr/bin/env python3
"""Weight matching beside a plain NumPy/SciPy implementation, on the same two models and in the same order of groups.

    matching_numpy.py BUILD_DIR/thalweg

Writes pairs of models with random weights, aligns B to A with `thalweg align` and with the algorithm as it is published
(float32 products, OpenBLAS, one thread, scipy.optimize.linear_sum_assignment, groups in the program's own order), each three
times in turn, and prints the medians of seconds, the objectives and the ratio; fails where ours finds the lower objective. The groups and their axes are what `thalweg symmetry` prints. Needs NumPy and SciPy.
"""
import json
import os
import struct
import subprocess
import sys
import tempfile
import time

os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")
import numpy  # noqa: E402
from scipy.optimize import linear_sum_assignment  # noqa: E402

MODELS = {
    "mlp 784-512-512-512-10": ("dimension: 784", "{kind: mlp, hidden: [512, 512, 512]}"),
    "vgg16, batch norm": ("dimension: 3072, shape: [3, 32, 32]", "{kind: vgg, depth: 16, norm: batch}"),
}


def run(*arguments):
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"{' '.join(arguments)} failed:\n{done.stderr}")
    return json.loads(done.stdout)


def read(path):
    with open(path, "rb") as file:
        size = struct.unpack("<Q", file.read(8))[0]
        header = json.loads(file.read(size))
        body = file.read()
    tensors = {}
    for name, item in header.items():
        if name == "__metadata__" or item["dtype"] != "F32":
            continue
        begin, end = item["data_offsets"]
        tensors[name] = numpy.frombuffer(body[begin:end], dtype=numpy.float32).reshape(item["shape"])
    return tensors


def rows(tensor, axis, size):
    """The group's channels as rows; behind a flattened image each owns neighbouring places."""
    first = numpy.moveaxis(tensor, axis, 0)
    return first.reshape(size, -1)


def permuted(tensor, uses, permutations, sizes, without=None):
    for group, axis in uses:
        if group == without:
            continue
        size = sizes[group]
        shape = tensor.shape
        each = shape[axis] // size
        split = tensor.reshape(shape[:axis] + (size, each) + shape[axis + 1:])
        tensor = numpy.take(split, permutations[group], axis=axis).reshape(shape)
    return tensor


def weight_matching(a, b, groups, sweeps=100):
    """Ainsworth, Hayase & Srinivasa (2023), algorithm 1."""
    sizes = {group["name"]: group["size"] for group in groups}
    uses = {}
    for group in groups:
        for tensor in group["tensors"]:
            uses.setdefault(tensor["name"], []).append((group["name"], tensor["axis"]))
    permutations = {name: numpy.arange(size) for name, size in sizes.items()}
    for sweep in range(1, sweeps + 1):
        progress = False
        for group in groups:
            name, size = group["name"], group["size"]
            gain = numpy.zeros((size, size), dtype=numpy.float32)
            for tensor in group["tensors"]:
                if "running" in tensor["name"]:
                    continue
                of_b = permuted(b[tensor["name"]], uses[tensor["name"]], permutations, sizes, without=name)
                gain += rows(a[tensor["name"]], tensor["axis"], size) @ rows(of_b, tensor["axis"], size).T
            _, chosen = linear_sum_assignment(gain, maximize=True)
            before = gain[numpy.arange(size), permutations[name]].sum(dtype=numpy.float64)
            after = gain[numpy.arange(size), chosen].sum(dtype=numpy.float64)
            if after > before + 1e-12 * abs(before):
                permutations[name] = chosen
                progress = progress or after > before + 1e-6 * abs(before)
        if not progress:
            break
    moved = {name: permuted(b[name], uses.get(name, []), permutations, sizes) for name in b}
    objective = sum(float(numpy.vdot(a[name].astype(numpy.float64), moved[name])) for name in a if "running" not in name)
    return objective, sweep


def write_random(program, folder, model, seed):
    """A model one tiny step after its initialisation."""
    shape, architecture = model
    path = os.path.join(folder, f"{seed}.safetensors")
    config = os.path.join(folder, "model.yaml")
    with open(config, "w", encoding="utf-8") as file:
        file.write(f"""
data: {{dataset: {{kind: gaussian_mixture, {shape}, train: 64, test: 64, seed: 1}}, partition: {{scheme: iid, clients: 1}}}}
model: {architecture}
clients: {{algorithm: {{kind: sgd, lr: 1e-6}}, steps: 1}}
server: {{}}
""")
    run(program, "train", config, f"seed={seed}", "--out", path, "--json")
    return path


def main(program):
    print("| model | thalweg, s | NumPy, s | ratio | objective, thalweg | NumPy | sweeps |\n|---|---|---|---|---|---|---|")
    worse = False
    for name, model in MODELS.items():
        with tempfile.TemporaryDirectory() as folder:
            a, b = (write_random(program, folder, model, seed) for seed in (1, 2))
            groups = run(program, "symmetry", a, "--json")["groups"]
            ours = [
                run(program, "align", a, b, "--method", "weight_matching(order=forward, flips=false)", "--out",
                    os.path.join(folder, "aligned.safetensors"), "--json")
                for _ in range(3)
            ]
            seconds = sorted(run["seconds"] for run in ours)[1]
            tensors_a, tensors_b = read(a), read(b)
            theirs = []
            for _ in range(3):
                start = time.perf_counter()
                objective, sweeps = weight_matching(tensors_a, tensors_b, groups)
                theirs.append(time.perf_counter() - start)
            theirs = sorted(theirs)[1]
            worse = worse or ours[0]["objective"] < objective * (1 - 1e-6)
            print(f"| {name} | {seconds:.3f} | {theirs:.3f} | {theirs / seconds:.1f} | {ours[0]['objective']:.6g} | "
                  f"{objective:.6g} | {ours[0]['sweeps']} and {sweeps} |", flush=True)
    if worse:
        sys.exit("an objective of ours is lower than NumPy's")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
