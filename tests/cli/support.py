"""What the command-line tests share: how the program is called, and small configurations."""
import concurrent.futures
import json
import os
import subprocess
import tempfile
import unittest

PROGRAM = os.environ.get("THALWEG", os.path.join(os.path.dirname(__file__), "../../build/release/thalweg"))
ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), "../.."))
ENVIRONMENT = dict(os.environ, OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1",
                   OMPI_MCA_rmaps_base_oversubscribe="1", PRTE_MCA_rmaps_default_mapping_policy=":oversubscribe")

TINY = """
name: tiny
seed: 3
data:
  dataset: {kind: gaussian_mixture, classes: 4, dimension: 12, train: 600, test: 200, separation: 3}
  partition: {scheme: iid, clients: 5}
  holdout: 60
model: {kind: mlp, hidden: [16, 12]}
clients:
  algorithm: {kind: adam, lr: 0.01}
  epochs: 2
  batch_size: 20
  init: independent
server:
  rounds: 2
  fusion: [merge_many, {sign_alignment: {mode: elect}}, mean, {repair: {statistics: clients}}]
analysis:
  measures: [ladder, sign_consistency, barrier, variance_ratio]
"""

# 65 different characters and more; three speakers, the first of whom says most.
SPEECHES = "\n\n".join(
    f"{'ANNA' if i % 4 < 2 else 'BERT' if i % 4 == 2 else 'CARL'}:\nLine {i * i} says:\n{chr(48 + i % 75)}{chr(48 + i % 75)}, ¿no?"
    for i in range(150))

TEXT = """
name: text
data:
  dataset: {kind: text, path: play.txt, clients_by: speaker, min_text: 100, window: 7, stride: 4}
  partition: {scheme: natural, clients: 3}
  holdout: 40
model: {kind: mlp, hidden: [12]}
clients: {algorithm: {kind: adam, lr: 0.003}, batch_size: 16}
server: {rounds: 2, fusion: [mean]}
"""


def command_line(*words, ranks=1):
    launcher = ["mpirun", "--oversubscribe", "-n", str(ranks)] if ranks > 1 else []
    return [*launcher, PROGRAM, *map(str, words)]


class Case(unittest.TestCase):
    """A test with a folder of its own and short names for running the program."""

    maxDiff = None

    def setUp(self):
        holder = tempfile.TemporaryDirectory(prefix="thalweg-cli-")
        self.addCleanup(holder.cleanup)
        self.folder = holder.name

    def path(self, *names):
        return os.path.join(self.folder, *names)

    def write(self, name, text):
        with open(self.path(name), "w", encoding="utf-8") as file:
            file.write(text)
        return self.path(name)

    def call(self, *words, ranks=1, timeout=120):
        return subprocess.run(command_line(*words, ranks=ranks), env=ENVIRONMENT, cwd=self.folder, timeout=timeout,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def calls(self, commands, ranks=1):
        """What came of each, in order. Several at once: most of what a refused command takes is its start, and mpirun's end."""
        with concurrent.futures.ThreadPoolExecutor(3) as pool:
            return list(pool.map(lambda words: self.call(*words, ranks=ranks), commands))

    def succeed(self, *words, ranks=1, timeout=120):
        done = self.call(*words, ranks=ranks, timeout=timeout)
        self.assertEqual(done.returncode, 0, f"{words}\n{done.stdout}\n{done.stderr}")
        return done

    def json(self, *words, ranks=1):
        return json.loads(self.succeed(*words, "--json", ranks=ranks).stdout)

    def bytes_of(self, *names):
        with open(self.path(*names), "rb") as file:
            return file.read()
