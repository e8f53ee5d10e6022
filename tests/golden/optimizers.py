"""Writes optimizers.yaml: what torch.optim makes of a small problem, in double precision.

    python3 tests/golden/optimizers.py > tests/golden/optimizers.yaml

Entry i starts at 0.5 - 0.25 i; its gradient at step t (from 0) is 0.5 (i + 1) theta_i + cos(i + t).
"""

import math

import torch

ENTRIES = 5
RECORDED = (1, 5, 20)

CASES = [
    ("{kind: sgd, lr: 0.05}", lambda p: torch.optim.SGD(p, lr=0.05)),
    ("{kind: sgd, lr: 0.05, weight_decay: 0.1}", lambda p: torch.optim.SGD(p, lr=0.05, weight_decay=0.1)),
    ("{kind: sgd, lr: 0.05, momentum: 0.9}", lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9)),
    (
        "{kind: sgd, lr: 0.02, momentum: 0.8, nesterov: true, weight_decay: 0.05}",
        lambda p: torch.optim.SGD(p, lr=0.02, momentum=0.8, nesterov=True, weight_decay=0.05),
    ),
    ("{kind: adam, lr: 0.03}", lambda p: torch.optim.Adam(p, lr=0.03)),
    (
        "{kind: adam, lr: 0.03, betas: [0.7, 0.95], eps: 0.001, weight_decay: 0.2}",
        lambda p: torch.optim.Adam(p, lr=0.03, betas=(0.7, 0.95), eps=0.001, weight_decay=0.2),
    ),
]


def main():
    print(f"# made by optimizers.py with torch {torch.__version__.split('+')[0]}")
    for options, make in CASES:
        theta = torch.tensor([0.5 - 0.25 * i for i in range(ENTRIES)], dtype=torch.float64, requires_grad=True)
        optimizer = make([theta])
        print(f"- algorithm: {options}")
        print("  after:")
        for t in range(max(RECORDED)):
            scale = torch.tensor([0.5 * (i + 1) for i in range(ENTRIES)], dtype=torch.float64)
            push = torch.tensor([math.cos(i + t) for i in range(ENTRIES)], dtype=torch.float64)
            theta.grad = scale * theta.detach() + push
            optimizer.step()
            if t + 1 in RECORDED:
                values = ", ".join(f"{value:.12g}" for value in theta.tolist())
                print(f"    - {{steps: {t + 1}, values: [{values}]}}")


main()
