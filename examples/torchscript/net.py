#!/usr/bin/env python3
"""A residual network that is defined in Python, federated by Thalweg and used in Python again.

    net.py save NET.pt            the module as TorchScript, for a configuration's `model: {kind: torchscript, file: NET.pt}`
    net.py check RUN_DIR          loads RUN_DIR/final.pt with strict=True, evaluates it and compares with Thalweg's accuracy
"""
import argparse
import gzip
import json
import os

import numpy
import torch
from torch import nn


class Block(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Sequential()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x):
        y = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(1, 8, 3, stride=2, padding=1)
        self.blocks = nn.Sequential(Block(8, 8, 1), Block(8, 16, 2))
        self.dropout = nn.Dropout(0.1)
        self.fc = nn.Linear(16, 10)

    def forward(self, x):
        x = self.blocks(torch.relu(self.stem(x)))
        return self.fc(self.dropout(x.mean([2, 3])))


def read_idx(path, header):
    with gzip.open(path) as file:
        return numpy.frombuffer(file.read(), numpy.uint8, offset=header).copy()


def test_data(folder):
    """The test images, normalised with the training set's mean and deviation as Thalweg does, and their labels."""
    name = lambda part, kind: os.path.join(folder, f"{part}-{kind}-ubyte.gz")
    train = read_idx(name("train", "images-idx3"), 16).astype(numpy.float64) / 255
    test = read_idx(name("t10k", "images-idx3"), 16).reshape(-1, 1, 28, 28).astype(numpy.float64) / 255
    return (torch.from_numpy((test - train.mean()) / train.std()).float(),
            torch.from_numpy(read_idx(name("t10k", "labels-idx1"), 8)).long())


@torch.no_grad()
def check(run, data):
    model = Net()
    print(model.load_state_dict(torch.load(os.path.join(run, "final.pt"))["state_dict"], strict=True))
    model.eval()
    x, y = test_data(data)
    ours = torch.cat([model(part).argmax(1) for part in x.split(1000)]).eq(y).double().mean().item()
    with open(os.path.join(run, "rounds.jsonl")) as file:
        theirs = [json.loads(line) for line in file][-1]["test"]["accuracy"]
    print(f"accuracy: {100 * ours:.2f}% in PyTorch, {100 * theirs:.2f}% in Thalweg")
    # a sample whose two best logits are equal up to rounding may fall to either side
    if abs(ours - theirs) > 3 / len(y):
        raise SystemExit("they differ")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("save").add_argument("file")
    checking = commands.add_parser("check")
    checking.add_argument("run")
    checking.add_argument("--data", default="/usr/share/datasets/fashion-mnist")
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.command == "save":
        torch.manual_seed(0)
        torch.jit.script(Net()).save(args.file)  # or torch.jit.trace(Net(), torch.zeros(1, 1, 28, 28))
    else:
        check(args.run, args.data)


if __name__ == "__main__":
    main()
