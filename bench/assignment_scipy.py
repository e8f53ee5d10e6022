#!/usr/bin/env python3
"""Times scipy.optimize.linear_sum_assignment on matrices of the kinds that bench_assignment.cpp solves."""
import time

import numpy
from scipy.optimize import linear_sum_assignment

random = numpy.random.default_rng(1)


def matrix(kind, n):
    if kind == "random":
        return random.random((n, n))
    if kind == "matching":
        a = random.normal(size=(n, 32))
        return a @ (a + random.normal(size=(n, 32))).T
    return random.normal(1, size=(n, 8)) @ random.normal(1, size=(n, 8)).T


print(f"{'kind':12s} {'n':>5s} {'ms':>10s}")
for kind in ("random", "matching", "correlated"):
    for n in (256, 512, 1024, 2048, 4096):
        gain = matrix(kind, n)
        best = float("inf")
        for _ in range(3 if n <= 1024 else 1):
            start = time.perf_counter()
            linear_sum_assignment(gain, maximize=True)
            best = min(best, time.perf_counter() - start)
        print(f"{kind:12s} {n:5d} {best * 1e3:10.1f}", flush=True)
