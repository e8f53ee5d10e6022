#!/usr/bin/env python3
"""Writes the TorchScript modules that the importer must refuse: FOLDER/NAME.refused.pt. Made with PyTorch 1.13.

    make_refused.py FOLDER
"""
import os
import sys
import warnings

import torch
import torch.nn.functional as F
from torch import nn


class Cumulative(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(6, 3)

    def forward(self, x):
        return self.fc(torch.cumsum(x, 1))


class DataDependent(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(6, 3)

    def forward(self, x):
        x = self.fc(x)
        if x.sum() > 0:
            x = x * 2
        return x


class MixesBatch(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(6, 3)

    def forward(self, x):
        return self.fc(x - x.mean(0))


class NoGrad(nn.Module):
    """A frozen first layer, as fine-tuning writes it."""
    def __init__(self):
        super().__init__()
        self.features = nn.Linear(6, 5)
        self.fc = nn.Linear(5, 3)

    def forward(self, x):
        with torch.no_grad():
            x = F.relu(self.features(x))
        return self.fc(x)


class NoGradCat(NoGrad):
    def forward(self, x):
        x = self.features(x)
        with torch.no_grad():
            x = torch.stack([x, x]).sum(0)
        return self.fc(x)


class Detached(NoGrad):
    def forward(self, x):
        return self.fc(F.relu(self.features(x)).detach())


class Normed(nn.Module):
    def __init__(self, **settings):
        super().__init__()
        self.fc1 = nn.Linear(6, 5)
        self.norm = nn.BatchNorm1d(5, **settings)
        self.fc2 = nn.Linear(5, 3)

    def forward(self, x):
        return self.fc2(F.relu(self.norm(self.fc1(x))))


class Frequencies(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(7, 5, scale_grad_by_freq=True)
        self.fc = nn.Linear(5, 3)

    def forward(self, x):
        return self.fc(self.embed(x).mean(1))


class Padded(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(7, 5, padding_idx=0)
        self.fc = nn.Linear(5, 3)

    def forward(self, x):
        return self.fc(self.embed(x).mean(1))


class Instance(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv1d(2, 4, 3)
        self.norm = nn.InstanceNorm1d(4, affine=True, track_running_stats=True)
        self.fc = nn.Linear(4, 3)

    def forward(self, x):
        return self.fc(F.relu(self.norm(self.conv(x))).mean(2))


class TwoDirections(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(3, 4, batch_first=True, bidirectional=True)
        self.fc = nn.Linear(8, 3)

    def forward(self, x):
        return self.fc(self.lstm(x)[0][:, -1])


class GivenState(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(3, 4, batch_first=True)
        self.start = nn.Parameter(torch.randn(1, 1, 4))
        self.fc = nn.Linear(4, 3)

    def forward(self, x):
        start = self.start.expand(1, x.size(0), 4)
        return self.fc(self.lstm(x, (start, start))[0][:, -1])


def frozen():
    module = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3))
    module[0].weight.requires_grad_(False)
    return module


def reparametrised(norm):
    return nn.Sequential(norm(nn.Linear(6, 5)), nn.ReLU(), nn.Linear(5, 3)).eval()


SCRIPTED = {
    "cumulative": Cumulative, "data_dependent": DataDependent, "mixes_batch": MixesBatch, "no_grad": NoGrad,
    "no_grad_cat": NoGradCat, "detached": Detached, "frequencies": Frequencies, "frozen": frozen, "padded": Padded,
    "no_statistics": lambda: Normed(track_running_stats=False), "no_momentum": lambda: Normed(momentum=0.0),
    "average_momentum": lambda: Normed(momentum=None), "instance_statistics": Instance, "two_directions": TwoDirections,
    "given_state": GivenState,
}
TRACED = {
    "weight_norm": lambda: reparametrised(nn.utils.weight_norm),
    "spectral_norm": lambda: reparametrised(nn.utils.spectral_norm),
}


def main():
    folder = sys.argv[1]
    warnings.simplefilter("ignore")
    for name, kind in SCRIPTED.items():
        torch.manual_seed(0)
        torch.jit.save(torch.jit.script(kind()), os.path.join(folder, name + ".refused.pt"))
    for name, kind in TRACED.items():
        torch.manual_seed(0)
        torch.jit.save(torch.jit.trace(kind(), torch.randn(1, 6)), os.path.join(folder, name + ".refused.pt"))


if __name__ == "__main__":
    main()
