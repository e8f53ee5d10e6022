#!/usr/bin/env python3
"""Round time with and without 50 slow readers at the live page.

    bench/live_readers.py PROGRAM [--config configs/quickstart.yaml] [--pairs 5] [--readers 50] [--ranks 1] [key=value...]

Runs the configuration in pairs, with and without readers, the order alternating, so that what else the machine does falls on
both alike. A reader asks for the event stream, has a small receive buffer and takes 64 bytes a second. Prints the median
round time of each run, the ratio of the medians over all pairs with its range, and (of one rank) the processor time of the
thread that trains and of the server's, which tell more than the clock on a machine that others use as well."""
import argparse
import json
import os
import re
import socket
import statistics
import subprocess
import tempfile
import threading
import time


def rounds_of(folder):
    with open(os.path.join(folder, "rounds.jsonl"), encoding="utf-8") as file:
        return [json.loads(line)["seconds"]["total"] for line in file]


def slow_reader(port, ending, done, fates):
    """Appends what became of it: nothing when it read until the run ended, which is when the server may close."""
    received, lost = b"", None
    try:
        with socket.socket() as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            connection.connect(("127.0.0.1", port))
            connection.sendall(b"GET /api/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
            connection.settimeout(1)
            while not done.wait(1):
                try:
                    piece = connection.recv(64)
                except TimeoutError:
                    continue
                if not piece:
                    lost = "closed by the server"
                    break
                if len(received) < 64:
                    received += piece
    except OSError as error:
        lost = str(error)
    if ending():
        lost = None
    if not received.startswith(b"HTTP/1.1 200"):
        lost = "answered " + repr(received[:20]) if received else lost or "without an answer"
    fates.append(lost)


def processor_seconds(process):
    """Of the main thread and of the one that has the lowest priority; 0 for what is not to be seen."""
    main, server = 0, 0
    try:
        for task in os.listdir(f"/proc/{process}/task"):
            with open(f"/proc/{process}/task/{task}/stat", encoding="utf-8") as file:
                fields = file.read().rsplit(")", 1)[1].split()
            used = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
            if int(task) == process:
                main = used
            elif int(fields[16]) == 19:
                server = used
    except (OSError, IndexError):
        pass
    return main, server


def one_run(arguments, folder, readers):
    launcher = ["mpirun", "--oversubscribe", "--bind-to", "none", "-n", str(arguments.ranks)] if arguments.ranks > 1 else []
    command = [*launcher, arguments.program, "run", arguments.config, *arguments.overrides, "record.serve=127.0.0.1:0",
               "--out", folder]
    environment = dict(os.environ, OMP_NUM_THREADS="1", OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1")
    said = open(folder + ".err", "w+", encoding="utf-8")
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=said)
    done = threading.Event()

    def ending():
        # The server closes shortly before its process ends.
        try:
            return process.wait(2) is not None
        except subprocess.TimeoutExpired:
            return False

    threads, fates = [], []
    if readers:
        port = None
        while port is None and process.poll() is None:
            with open(folder + ".err", encoding="utf-8") as file:
                port = re.search(r"http://[^/]*:(\d+)/", file.read())
            time.sleep(0.02)
        if port is not None:
            threads = [threading.Thread(target=slow_reader, args=(int(port.group(1)), ending, done, fates)) for _ in range(readers)]
        for thread in threads:
            thread.start()
    used = (0, 0)
    while process.poll() is None:
        used = max(used, processor_seconds(process.pid))
        time.sleep(0.1)
    code = process.returncode
    done.set()
    for thread in threads:
        thread.join()
    said.close()
    if code != 0:
        raise SystemExit(f"{' '.join(command)} ended with {code}; see {folder}.err")
    lost = [fate for fate in fates if fate is not None]
    if len(fates) < readers or lost:
        raise SystemExit(f"only {len(fates) - len(lost)} of {readers} readers stayed to the end: "
                         f"{'; '.join(sorted(set(lost))) or 'the live page was not found'}")
    return rounds_of(folder), used


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program")
    parser.add_argument("--config", default=os.path.join(os.path.dirname(__file__), "../configs/quickstart.yaml"))
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--readers", type=int, default=50)
    parser.add_argument("--ranks", type=int, default=1)
    parser.add_argument("overrides", nargs="*")
    arguments = parser.parse_intermixed_args()
    ratios, all_without, all_with = [], [], []
    used = {0: [], arguments.readers: []}
    with tempfile.TemporaryDirectory(prefix="thalweg-readers-") as folder:
        for pair in range(arguments.pairs):
            medians = {}
            for readers in ((0, arguments.readers) if pair % 2 == 0 else (arguments.readers, 0)):
                rounds, seconds = one_run(arguments, os.path.join(folder, f"{pair}-{readers}"), readers)
                used[readers].append(seconds)
                medians[readers] = statistics.median(rounds)
                (all_with if readers else all_without).extend(rounds)
            ratios.append(medians[arguments.readers] / medians[0])
            print(f"pair {pair + 1}: without {medians[0]:.4f} s, with {arguments.readers} readers "
                  f"{medians[arguments.readers]:.4f} s, ratio {ratios[-1]:.4f}", flush=True)
    print(f"median of the pairs' ratios {statistics.median(ratios):.4f} (from {min(ratios):.4f} to {max(ratios):.4f}); "
          f"median of all rounds {statistics.median(all_without):.4f} s without, {statistics.median(all_with):.4f} s with, "
          f"ratio {statistics.median(all_with) / statistics.median(all_without):.4f}")
    for readers, name in ((0, "without"), (arguments.readers, "with")):
        trained, served = (statistics.median(column) for column in zip(*used[readers]))
        print(f"processor time {name} readers: training {trained:.2f} s, server {served:.2f} s")


if __name__ == "__main__":
    main()
