#!/usr/bin/env python3
"""FedAvg in plain PyTorch, on the same clients, batches and initial model as a Thalweg run, compared round by round.

    fedavg.py RUN_DIR PLAN.pt [--data /usr/share/datasets/fashion-mnist] [--rounds N]

RUN_DIR holds initial.pt and rounds.jsonl; PLAN.pt is what `thalweg partition CONFIG --export PLAN.pt` wrote. Nothing
of Thalweg's is used but those files: model, training loop and mean are PyTorch's own.
"""
import argparse
import copy
import gzip
import json
import os

import numpy
import torch
from torch import nn


class NiidBenchCnn(nn.Module):
    """The CNN of NIID-Bench: names as in its state_dict."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 6, 5)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.fc1 = nn.Linear(256, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, 10)

    def forward(self, x):
        x = nn.functional.max_pool2d(torch.relu(self.conv1(x)), 2)
        x = nn.functional.max_pool2d(torch.relu(self.conv2(x)), 2)
        x = torch.relu(self.fc1(x.flatten(1)))
        return self.fc3(torch.relu(self.fc2(x)))


def read_idx(path, header):
    with gzip.open(path) as file:
        return numpy.frombuffer(file.read(), numpy.uint8, offset=header).copy()


def load_data(folder):
    """Training and test images, normalised with the training set's mean and deviation, and their labels."""
    name = lambda part, kind: os.path.join(folder, f"{part}-{kind}-ubyte.gz")
    train = read_idx(name("train", "images-idx3"), 16).reshape(-1, 1, 28, 28).astype(numpy.float64) / 255
    test = read_idx(name("t10k", "images-idx3"), 16).reshape(-1, 1, 28, 28).astype(numpy.float64) / 255
    mean, deviation = train.mean(), train.std()
    labels = [torch.from_numpy(read_idx(name(part, "labels-idx1"), 8)).long() for part in ("train", "t10k")]
    images = [torch.from_numpy((part - mean) / deviation).float() for part in (train, test)]
    return images[0], labels[0], images[1], labels[1]


def train_client(model, x, y, order, epochs, settings):
    optimizer = torch.optim.SGD(model.parameters(), lr=settings["lr"], momentum=settings["momentum"],
                                weight_decay=settings["weight_decay"])
    model.train()
    for epoch in order.view(epochs, -1):
        for batch in epoch.split(settings["batch_size"]):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x[batch]), y[batch]).backward()
            optimizer.step()


@torch.no_grad()
def accuracy(model, x, y):
    model.eval()
    return torch.cat([model(part).argmax(1) for part in x.split(1000)]).eq(y).double().mean().item()


def average(states, samples):
    total = sum(samples)
    return {name: sum(state[name].double() * (n / total) for state, n in zip(states, samples)).float()
            for name in states[0]}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run")
    parser.add_argument("plan")
    parser.add_argument("--data", default="/usr/share/datasets/fashion-mnist")
    parser.add_argument("--rounds", type=int, help="stop early")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--lr", type=float, default=0.01)
    parser.add_argument("--momentum", type=float, default=0.9)
    parser.add_argument("--weight-decay", type=float, default=1e-5)
    parser.add_argument("--perturb", type=float, default=0.0, metavar="SIZE",
                        help="multiply every initial weight by 1 + SIZE·N(0, 1): what a last bit grows to (1e-7, say)")
    args = parser.parse_args()
    torch.set_num_threads(1)
    settings = {"lr": args.lr, "momentum": args.momentum, "weight_decay": args.weight_decay,
                "batch_size": args.batch_size}

    train_x, train_y, test_x, test_y = load_data(args.data)
    plan = torch.load(args.plan)["tensors"]
    with open(os.path.join(args.run, "rounds.jsonl")) as file:
        lines = [json.loads(line) for line in file][: args.rounds]
    model = NiidBenchCnn()
    model.load_state_dict(torch.load(os.path.join(args.run, "initial.pt"))["state_dict"])
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1 + args.perturb * torch.randn_like(parameter))

    largest = 0
    print("| round | Thalweg, % | PyTorch, % | difference, points |\n|---|---|---|---|")
    for line in lines:
        states, samples = [], []
        for client in line["cohort"]:
            indices = plan[f"client_{client}"]
            local = copy.deepcopy(model)
            train_client(local, train_x[indices], train_y[indices], plan[f"round_{line['round']}/client_{client}"],
                         args.epochs, settings)
            states.append(local.state_dict())
            samples.append(len(indices))
        model.load_state_dict(average(states, samples))
        ours, theirs = 100 * line["test"]["accuracy"], 100 * accuracy(model, test_x, test_y)
        largest = max(largest, abs(ours - theirs))
        print(f"| {line['round']} | {ours:.2f} | {theirs:.2f} | {ours - theirs:+.2f} |", flush=True)
    print(f"\nlargest difference: {largest:.2f} points")


if __name__ == "__main__":
    main()
