#!/usr/bin/env python3
"""Runs the shipped reproductions and prints the tables of docs/reproductions.md.

    configs/reproduce/reproduce.py [one-shot] [merge] [cifar10] [--seeds 1,2,3] [--data DIR] [--keep DIR] [--ranks 2] [--program build/release/thalweg]

Every number comes from a run of the program; nothing is read from earlier calls. Standard library only. `cifar10` needs
--data, a folder with the binary version of CIFAR-10, or a part of it (data_batch_1.bin, test_batch.bin).
"""
import argparse
import concurrent.futures
import json
import math
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))


STARTED = time.monotonic()
running = set()


def say(text):
    """A line on stderr with the minutes since the start: the tables come late."""
    print(f"{(time.monotonic() - STARTED) / 60:6.1f} min  {text}", file=sys.stderr, flush=True)


def run(args, *words, ranks=None):
    """The JSON that the program prints. When one of several at once fails, the others are ended, too."""
    command = [args.program, *words, "--json"]
    ranks = ranks or args.ranks
    if ranks > 1:
        command = ["mpirun", "--oversubscribe", "-n", str(ranks), *command]
    environment = dict(os.environ, OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1")
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    running.add(process)
    output, errors = process.communicate()
    running.discard(process)
    if process.returncode:
        for other in list(running):
            other.terminate()
        if process.returncode != -signal.SIGTERM:
            print(f"{' '.join(command)}\n{errors}", file=sys.stderr, flush=True)
        sys.exit(1)
    return json.loads(output)


def mean_error(values, scale=100.0, digits=2):
    """mean ± standard error of the mean, which one value does not have"""
    values = [scale * value for value in values]
    if len(values) == 1:
        return f"{values[0]:.{digits}f}"
    error = statistics.stdev(values) / math.sqrt(len(values))
    return f"{statistics.mean(values):.{digits}f} ± {error:.{digits}f}"


# Two-sided 95% quantiles of Student's t, by degrees of freedom; beyond 30 the normal distribution's is near enough.
STUDENT = dict(enumerate([12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160,
                          2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056,
                          2.052, 2.048, 2.045, 2.042], 1))


def paired(first, second):
    """Mean difference second − first in points, with its 95% confidence interval over the seeds."""
    differences = [100 * (b - a) for a, b in zip(first, second)]
    middle = statistics.mean(differences)
    if len(differences) < 2:
        return f"{middle:+.2f}"
    half = STUDENT.get(len(differences) - 1, 1.96) * statistics.stdev(differences) / math.sqrt(len(differences))
    return f"{middle:+.2f} [{middle - half:+.2f}, {middle + half:+.2f}]"


def ladder(args, config, seed, folder):
    path = os.path.join(HERE, config + ".yaml")
    out = os.path.join(folder, f"{config}-{seed}")
    line = run(args, "run", path, f"seed={seed}", "--out", out)["rounds"][-1]
    steps = {step["name"]: step["accuracy"] for step in line["ladder"]["steps"]}
    steps["ensemble"] = line["ladder"]["ensemble"]["accuracy"]
    steps["clients"] = [client["accuracy"] for client in line["ladder"]["clients"]]
    steps["ratio_before"] = statistics.mean(line["variance_ratio"]["before"].values())
    steps["ratio_after"] = statistics.mean(line["variance_ratio"]["after"].values())
    return steps


def one_shot(args, folder):
    for part in ("iid", "dirichlet"):
        base = [ladder(args, f"one-shot-{part}", seed, folder) for seed in args.seeds]
        signs = [ladder(args, f"one-shot-{part}-signs", seed, folder) for seed in args.seeds]
        clients = [ladder(args, f"one-shot-{part}-clients", seed, folder) for seed in args.seeds]
        column = lambda runs, name: [run[name] for run in runs]
        every = [accuracy for run in base for accuracy in run["clients"]]
        print(f"\n**{part}**, seeds {', '.join(map(str, args.seeds))}\n")
        print("| model | test accuracy, % |\n|---|---|")
        print(f"| clients alone, lowest to highest | {100 * min(every):.2f} – {100 * max(every):.2f} |")
        print(f"| plain mean | {mean_error(column(base, 'mean'))} |")
        print(f"| merge_many + mean | {mean_error(column(base, 'merge_many+mean'))} |")
        repaired = column(base, "merge_many+mean+repair")
        print(f"| merge_many + mean + repair (server) | {mean_error(repaired)} |")
        federated = column(clients, "merge_many+mean+repair")
        print(f"| merge_many + mean + repair (clients) | {mean_error(federated)} |")
        elected = column(signs, "merge_many+sign_alignment+mean")
        print(f"| merge_many + sign_alignment + mean | {mean_error(elected)} |")
        finished = column(signs, "merge_many+sign_alignment+mean+repair")
        print(f"| merge_many + sign_alignment + mean + repair | {mean_error(finished)} |")
        print(f"| ensemble of logits | {mean_error(column(base, 'ensemble'))} |")
        print(f"\nvariance ratio, mean over layers: {mean_error(column(base, 'ratio_before'), 1, 3)} before REPAIR, "
              f"{mean_error(column(base, 'ratio_after'), 1, 3)} after")
        print("\npaired differences in points, 95% interval (Student's t over the seeds):")
        print(f"- sign election, without REPAIR: {paired(column(base, 'merge_many+mean'), elected)}")
        print(f"- sign election, with REPAIR: {paired(repaired, finished)}")
        print(f"- REPAIR with the clients' statistics instead of the server's: {paired(repaired, federated)}")
        sys.stdout.flush()


def merge(args, folder):
    print("\n| width | ends, % | midpoint naive | matched | matched + REPAIR | loss barrier naive | matched | "
          "+ REPAIR | reduction | + REPAIR | signs before | after |\n|" + "---|" * 12)
    for width in (512, 128):
        rows = []
        for seed in args.seeds:
            config = os.path.join(HERE, f"merge-mlp-{width}.yaml")
            ends = [os.path.join(folder, f"{width}-{seed}-{side}.pt") for side in "ab"]
            for number, path in enumerate(ends):
                run(args, "train", config, f"seed={10 * seed + number}", "--out", path, ranks=1)
            curve = lambda *more: run(args, "lmc", *ends, "--points", "25", "--split", "test", *more)
            rows.append((curve(), curve("--align", "weight_matching"),
                         curve("--align", "weight_matching", "--finish", "repair")))
        accuracy = lambda k: mean_error([row[k]["midpoint"]["accuracy"] for row in rows])
        loss = lambda k: [row[k]["barrier"]["test"]["loss"] for row in rows]
        reduction = lambda k: mean_error([1 - after / before for before, after in zip(loss(0), loss(k))])
        signs = lambda k: mean_error([row[k]["sign_consistency"] for row in rows], 1, 3)
        ends = [row[0]["endpoints"][side]["accuracy"] for row in rows for side in "ab"]
        print(f"| {width} | {mean_error(ends)} | {accuracy(0)} | {accuracy(1)} | {accuracy(2)} | "
              f"{mean_error(loss(0), 1, 3)} | {mean_error(loss(1), 1, 3)} | {mean_error(loss(2), 1, 3)} | "
              f"{reduction(1)} | {reduction(2)} | {signs(0)} | {signs(1)} |")
        sys.stdout.flush()


def cifar10(args, folder):
    """The middle of the line between two models: as they are, matched, and matched and mended."""
    print("\n| model | ends, % | naive | weights matched | + reset | + REPAIR | activations matched | + reset | + REPAIR | "
          "planted: starts |\n|" + "---|" * 10)
    data = f"data.dataset={{kind: cifar10, path: '{os.path.abspath(args.data)}'}}"
    for name in ("vgg11", "resnet20"):
        ends, middles, starts = [], {}, []
        for seed in args.seeds:
            config = os.path.join(HERE, f"merge-{name}-cifar10.yaml")
            files = [os.path.join(folder, f"{name}-{seed}-{side}.pt") for side in "ab"]
            with concurrent.futures.ThreadPoolExecutor(args.ranks) as pool:
                list(pool.map(lambda end: run(args, "train", config, data, f"seed={10 * seed + end[0]}", "--out", end[1],
                                              ranks=1), enumerate(files)))
            say(f"{name}, seed {seed}: both ends are trained")
            for align in ("none", "weight_matching", "activation_matching"):
                for finish in ("none", "reset_batch_norm", "repair"):
                    if (align == "none" and finish != "none") or (name == "vgg11" and finish == "reset_batch_norm"):
                        continue
                    line = run(args, "lmc", *files, "--points", "3", "--split", "test", "--holdout", "2000",
                               "--align", align, "--finish", finish)
                    middles.setdefault((align, finish), []).append(line["midpoint"]["accuracy"])
                    say(f"{name}, seed {seed}: {align}, {finish}: {100 * middles[align, finish][-1]:.2f}%")
            ends += [line["endpoints"][side]["accuracy"] for side in "ab"]
            planted = run(args, "symmetry", files[0], "--verify", "--draws", "1", ranks=1)["planted"]
            say(f"{name}, seed {seed}: planted permutation sought")
            starts.append(str(planted["starts"]) if planted["recovered"] else "not found")
        cells = [mean_error(middles[key]) if (key := (align, finish)) in middles else "–"
                 for align, finish in [("none", "none")] + [(align, finish)
                                                            for align in ("weight_matching", "activation_matching")
                                                            for finish in ("none", "reset_batch_norm", "repair")]]
        print(f"| {name} | {mean_error(ends)} | {' | '.join(cells)} | {', '.join(starts)} |")
        sys.stdout.flush()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", default=["one-shot", "merge"], help="one-shot, merge (default: both), cifar10")
    parser.add_argument("--seeds", default="1,2,3", type=lambda text: [int(word) for word in text.split(",")])
    parser.add_argument("--ranks", default=2, type=int)
    parser.add_argument("--program", default=os.path.join(HERE, "..", "..", "build", "release", "thalweg"))
    parser.add_argument("--data", help="folder of CIFAR-10's binary files")
    parser.add_argument("--keep", metavar="DIR", help="a new folder where models and runs stay; by default they are deleted")
    args = parser.parse_args()
    studies = {"one-shot": one_shot, "merge": merge, "cifar10": cifar10}
    unknown = [name for name in args.what if name not in studies]
    if unknown:
        parser.error(f"unknown study '{unknown[0]}'; there are: {', '.join(studies)}")
    if "cifar10" in args.what and not args.data:
        parser.error("cifar10 needs --data DIR, the folder with data_batch_1.bin and test_batch.bin")
    if args.keep and os.path.isdir(args.keep) and os.listdir(args.keep):
        parser.error(f"--keep {args.keep}: the folder is not empty; name a new one")
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.keep or temporary
        os.makedirs(folder, exist_ok=True)
        for name in args.what:
            studies[name](args, folder)


if __name__ == "__main__":
    main()
