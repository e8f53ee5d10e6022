#!/usr/bin/env python3
"""Round time with and without 50 slow readers at the live page.

    bench/live_readers.py PROGRAM [--config configs/quickstart.yaml] [--runs 3] [--block 8] [--readers 50] [--ranks 1] [key=value...]

Within a run the readers come and go: they stay for a block of rounds, then there are none for as many, so that a run's own
pace (where its memory lies, what else the machine does) falls on both alike. A block with readers is compared with the mean
of the blocks before and after it, each block by the median of its rounds but the first, in which readers come or go. A reader
asks for the event stream, has a small receive buffer and takes 64 bytes a second. Prints the median of the ratios with a
95% interval (order statistics). Of one rank also what does not drown in a shared machine's noise: the processor time of the
server's thread, and how long the training thread was ready and had no core, with readers and without."""
import argparse
import json
import math
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


def server_seconds(process):
    """Processor time of the thread that has the lowest priority; 0 for what is not to be seen."""
    try:
        for task in os.listdir(f"/proc/{process}/task"):
            with open(f"/proc/{process}/task/{task}/stat", encoding="utf-8") as file:
                fields = file.read().rsplit(")", 1)[1].split()
            if int(fields[16]) == 19:
                return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    except (OSError, IndexError):
        pass
    return 0


class Waiting:
    """How long a process's first thread, which trains, was ready and waited for a core, as a share of the time: without
    readers and with them."""

    def __init__(self, process):
        self.process, self.waited, self.passed, self.last = process, [0.0, 0.0], [0.0, 0.0], None

    def stamp(self, readers):
        """At the end of a block, with or without readers."""
        try:
            with open(f"/proc/{self.process}/task/{self.process}/schedstat", encoding="utf-8") as file:
                now = time.monotonic(), int(file.read().split()[1]) / 1e9
        except (OSError, IndexError):
            return
        if self.last is not None:
            self.passed[readers] += now[0] - self.last[0]
            self.waited[readers] += now[1] - self.last[1]
        self.last = now

    def shares(self):
        return [waited / passed if passed else math.nan for waited, passed in zip(self.waited, self.passed)]


class Crowd:
    """Readers that come and go together."""

    def __init__(self, port, readers, ending):
        self.port, self.readers, self.ending, self.threads, self.fates = port, readers, ending, [], []

    def come(self):
        self.done, self.fates = threading.Event(), []
        self.threads = [threading.Thread(target=slow_reader, args=(self.port, self.ending, self.done, self.fates))
                        for _ in range(self.readers)]
        for thread in self.threads:
            thread.start()

    def go(self, run_ended=False):
        """Whoever comes as the run ends finds nobody, and counts in no block."""
        if not self.threads:
            return
        self.done.set()
        for thread in self.threads:
            thread.join()
        self.threads = []
        if run_ended:
            return
        lost = [fate for fate in self.fates if fate is not None]
        if lost:
            raise SystemExit(f"{len(lost)} of {self.readers} readers did not stay: {'; '.join(sorted(set(lost)))}")


def written(folder):
    try:
        return len(rounds_of(folder))
    except (OSError, ValueError, KeyError):  # not there yet, or a line that is being written
        return None


def one_run(arguments, folder):
    """Seconds of each round, the processor time of the server's thread, the shares of Waiting. Readers come with every second
    block."""
    launcher = ["mpirun", "--oversubscribe", "--bind-to", "none", "-n", str(arguments.ranks)] if arguments.ranks > 1 else []
    command = [*launcher, arguments.program, "run", arguments.config, *arguments.overrides, "record.serve=127.0.0.1:0",
               "--out", folder]
    environment = dict(os.environ, OMP_NUM_THREADS="1", OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1")
    with open(folder + ".err", "w+", encoding="utf-8") as said:
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=said)

        def ending():
            # The server closes shortly before its process ends.
            try:
                return process.wait(2) is not None
            except subprocess.TimeoutExpired:
                return False

        port, crowd, block, used, waiting = None, None, 0, 0, Waiting(process.pid)
        while process.poll() is None:
            time.sleep(0.02)
            if port is None:
                with open(folder + ".err", encoding="utf-8") as file:
                    port = re.search(r"http://[^/]*:(\d+)/", file.read())
                if port is not None:
                    crowd = Crowd(int(port.group(1)), arguments.readers, ending)
                continue
            rounds = written(folder)
            if rounds is None or rounds // arguments.block == block:
                continue
            block = rounds // arguments.block
            used = max(used, server_seconds(process.pid))
            waiting.stamp(readers=(block - 1) % 2)
            if block % 2 == 1:
                crowd.come()
            else:
                crowd.go()
        if crowd is not None:
            crowd.go(run_ended=True)
    if process.returncode != 0:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}; see {folder}.err")
    return rounds_of(folder), used, waiting.shares()


def block_ratios(seconds, size):
    medians = [statistics.median(seconds[i + 1:i + size]) for i in range(0, len(seconds) - size + 1, size)]
    return [medians[i] / statistics.mean((medians[i - 1], medians[i + 1])) for i in range(1, len(medians) - 1, 2)]


def interval(values):
    """95% of the median, by order statistics; all there is where there are too few values for that."""
    values, n = sorted(values), len(values)
    below, k = 0.0, 0
    while below + math.comb(n, k) / 2**n <= 0.025:
        below += math.comb(n, k) / 2**n
        k += 1
    return values[max(k - 1, 0)], values[n - max(k, 1)]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program")
    parser.add_argument("--config", default=os.path.join(os.path.dirname(__file__), "../configs/quickstart.yaml"))
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--block", type=int, default=8, help="rounds with, then without readers; 3 or more")
    parser.add_argument("--readers", type=int, default=50)
    parser.add_argument("--ranks", type=int, default=1)
    parser.add_argument("overrides", nargs="*")
    arguments = parser.parse_intermixed_args()
    if arguments.block < 3:
        parser.error("a block has 3 rounds or more")
    ratios = []
    with tempfile.TemporaryDirectory(prefix="thalweg-readers-") as folder:
        for run in range(arguments.runs):
            seconds, used, (without, beside) = one_run(arguments, os.path.join(folder, str(run)))
            found = block_ratios(seconds, arguments.block)
            ratios += found
            print(f"run {run + 1}: {len(seconds)} rounds, median {statistics.median(seconds):.4f} s; {len(found)} blocks with readers"
                  + (f", median ratio {statistics.median(found):.4f}" if found else "")
                  + (f"; the server's thread took {used:.2f} s; the training thread waited for a core {100 * without:.2f}% of the "
                     f"time without readers, {100 * beside:.2f}% with them" if arguments.ranks == 1 else ""), flush=True)
    if not ratios:
        raise SystemExit(f"too few rounds: three blocks of {arguments.block} are the least (server.rounds={6 * arguments.block})")
    low, high = interval(ratios)
    print(f"round time with {arguments.readers} readers ÷ without, {len(ratios)} blocks: median {statistics.median(ratios):.4f} "
          f"[{low:.4f}, {high:.4f}]")


if __name__ == "__main__":
    main()
