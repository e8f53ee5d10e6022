#!/usr/bin/env python3
"""Writes assignment.txt: optima of scipy.optimize.linear_sum_assignment for matrices that the test makes anew.

Every number comes from splitmix64 by integer arithmetic and exact or elementwise operations, so that C++ gets the
same bits. A line: kind, n, seed, the optimum of the maximisation, and scipy's column of each row.

    python3 tests/golden/make_assignment.py > tests/golden/assignment.txt
"""
import numpy
from scipy.optimize import linear_sum_assignment


def random_bits(seed, count):
    """splitmix64 of seed·2^32 + 0, 1, 2, …"""
    with numpy.errstate(over="ignore"):
        z = (numpy.uint64(seed) << numpy.uint64(32)) + numpy.arange(count, dtype=numpy.uint64)
        z = (z + numpy.uint64(1)) * numpy.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> numpy.uint64(30))) * numpy.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> numpy.uint64(27))) * numpy.uint64(0x94D049BB133111EB)
        return z ^ (z >> numpy.uint64(31))


def uniform(seed, count):
    return (random_bits(seed, count) >> numpy.uint64(11)).astype(numpy.float64) * 2.0**-53


def matrix(kind, n, seed):
    u = uniform(seed, n * n).reshape(n, n)
    if kind == "uniform":
        return u
    if kind == "centred":
        return 20.0 * u - 10.0
    if kind == "integers":  # many ties
        return numpy.floor(10.0 * u)
    if kind == "range":  # twelve orders of magnitude
        return numpy.ldexp(u, (random_bits(seed + 1000, n * n).reshape(n, n) % numpy.uint64(41)).astype(int) - 20)
    if kind == "correlated":  # two noisy copies of five features, as channels of two networks
        a = uniform(seed + 2000, n * 5).reshape(n, 5)
        b = a + 0.5 * uniform(seed + 3000, n * 5).reshape(n, 5)
        gain = numpy.zeros((n, n))
        for k in range(5):
            gain = gain + a[:, k : k + 1] * b[None, :, k]
        return gain
    if kind == "duplicates":  # every row thrice
        return u[numpy.arange(n) // 3]
    raise ValueError(kind)


def main():
    print("# kind n seed optimum columns; made by make_assignment.py with scipy.optimize.linear_sum_assignment")
    for kind in ("uniform", "centred", "integers", "range", "correlated", "duplicates"):
        for n in (1, 2, 3, 5, 10, 33, 100, 200):
            seed = 17 * n
            gain = matrix(kind, n, seed)
            rows, columns = linear_sum_assignment(gain, maximize=True)
            optimum = float(gain[rows, columns].sum())
            print(kind, n, seed, optimum.hex(), *columns)


if __name__ == "__main__":
    main()
