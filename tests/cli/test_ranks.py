"""The same configuration gives the same bits on any number of ranks, after a kill and --resume, and stops on a signal."""
import json
import os
import shutil
import signal
import subprocess
import time
import unittest

from support import ENVIRONMENT, ROOT, SPEECHES, TEXT, TINY, Case, command_line

CNN = """
name: cnn
seed: 5
data:
  dataset: fashion_mnist
  partition: {scheme: labels_per_client, clients: 40, labels: 2}
  holdout: 100
model: {kind: cnn, norm: batch, layers: [{conv: 4, kernel: 5}, {pool: 4}, {linear: 10}]}
clients:
  algorithm: {kind: sgd, lr: 0.05, momentum: 0.9}
  steps: 6
  batch_size: 16
  init: shared
server:
  rounds: 3
  sampler: {kind: uniform, count: 4}
  fusion: [{activation_matching: {anchor: global}}, {mean: {weights: uniform}}, reset_batch_norm]
"""

# A residual net with batch norm that Python scripted. Every client starts from weights of its own, so that the alignment has
# something to undo.
SCRIPTED = """
name: scripted
seed: 5
data:
  dataset: {kind: gaussian_mixture, classes: 4, dimension: 36, shape: [1, 6, 6], train: 2000, test: 100}
  partition: {scheme: iid, clients: 5}
  holdout: 60
model: {kind: torchscript, file: net.pt, start: random}
clients: {algorithm: {kind: sgd, lr: 0.05, momentum: 0.9}, epochs: 4, batch_size: 16, init: independent}
server: {rounds: 2, fusion: [merge_many, mean, repair]}
analysis: {measures: [ladder, sign_consistency]}
"""

# About a second a round: whatever is sent to it after the first checkpoint arrives long before the end.
ROUNDS = 5
LONG = [f"server.rounds={ROUNDS}", "clients.epochs=3000", "analysis.measures=[]", "server.fusion=[merge_many, mean]"]


class Ranks(Case):
    def test_same_bits_on_one_two_three_and_five(self):
        self.write("play.txt", SPEECHES)
        shutil.copy(os.path.join(ROOT, "tests", "golden", "torchscript", "residual.script.pt"), self.path("net.pt"))
        for name, text in (("tiny", TINY), ("cnn", CNN), ("text", TEXT), ("scripted", SCRIPTED)):
            config = self.write(name + ".yaml", text)
            reference = None
            for ranks in (1, 2, 3, 5):
                out = self.path(f"{name}-{ranks}")
                self.succeed("run", config, "--out", out, ranks=ranks)
                with open(os.path.join(out, "final.pt"), "rb") as file:
                    content = file.read()
                reference = reference or content
                self.assertEqual(reference, content, f"{name} on {ranks} ranks")

    def test_an_imported_module_is_aligned_and_repaired(self):
        shutil.copy(os.path.join(ROOT, "tests", "golden", "torchscript", "residual.script.pt"), self.path("net.pt"))
        self.succeed("run", self.write("scripted.yaml", SCRIPTED), "server.rounds=1", "--out", self.path("out"), ranks=2)
        with open(self.path("out", "rounds.jsonl")) as file:
            line = json.loads(file.readline())
        steps = {step["name"]: step["accuracy"] for step in line["ladder"]["steps"]}
        self.assertGreater(steps["merge_many+mean+repair"], steps["mean"] + 0.1)
        signs = line["sign_consistency"]
        self.assertGreater(signs["client_client"], signs["client_client_before"])
        repair = line["fusion"]["stages"][-1]
        self.assertEqual((repair["batch_norms_reset"], repair["repaired_residual_sums"]), (5, 2))

    def test_character_models_are_federated_and_aligned(self):
        self.write("play.txt", SPEECHES)
        config = self.write("text.yaml", TEXT)
        for number, model in enumerate(("{kind: transformer, depth: 1, heads: 2, dim: 8, mlp_dim: 16}",
                                        "{kind: lstm, embedding: 4, hidden: 12}")):
            with self.subTest(model):
                for ranks in (1, 2):
                    self.succeed("run", config, f"model={model}", "server.rounds=3", "clients.epochs=3",
                                 "clients.algorithm.lr=0.02", "clients.init=independent",
                                 "server.fusion=[merge_many, mean]", "--out", self.path(f"{number}-{ranks}"), ranks=ranks)
                self.assertEqual(self.bytes_of(f"{number}-1", "final.pt"), self.bytes_of(f"{number}-2", "final.pt"))
                with open(self.path(f"{number}-1", "rounds.jsonl")) as file:
                    accuracy = [json.loads(line)["test"]["accuracy"] for line in file]
                self.assertGreater(accuracy[-1], 0.4)  # the first round's is about 0.1

    def test_records_agree_but_for_times(self):
        config = self.write("tiny.yaml", TINY)
        records = []
        for ranks in (1, 3):
            self.succeed("run", config, "--out", self.path(f"r{ranks}"), ranks=ranks)
            lines = []
            with open(self.path(f"r{ranks}", "rounds.jsonl")) as file:
                for line in map(json.loads, file):
                    line.pop("seconds")
                    line["bytes"].pop("transport")
                    for client in line["clients"]:
                        client.pop("seconds"), client.pop("rank")
                    for stage in line["fusion"]["stages"]:
                        stage.pop("seconds"), stage.pop("bytes")
                    lines.append(line)
            records.append(lines)
        self.assertEqual(records[0], records[1])

    def test_more_ranks_than_clients(self):
        config = self.write("tiny.yaml", TINY)
        self.succeed("run", config, "data.partition.clients=2", "--out", self.path("a"))
        self.succeed("run", config, "data.partition.clients=2", "--out", self.path("b"), ranks=4)
        self.assertEqual(self.bytes_of("a", "final.pt"), self.bytes_of("b", "final.pt"))


class Stops(Case):
    def start(self, ranks, out):
        config = self.write("tiny.yaml", TINY)
        return subprocess.Popen(command_line("run", config, *LONG, "--out", self.path(out), ranks=ranks), cwd=self.folder,
                                env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def wait_for_checkpoint(self, process, out, seconds=60):
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            folder = self.path(out, "checkpoints")
            if os.path.isdir(folder) and any(name.endswith(".pt") for name in os.listdir(folder)):
                return
            self.assertIsNone(process.poll(), process.communicate() if process.poll() is not None else "")
            time.sleep(0.01)
        self.fail("no checkpoint within a minute")

    @staticmethod
    def is_ours(pid):
        """True while process `pid` runs this program (a zombie that nobody has waited for does not)."""
        try:
            with open(f"/proc/{pid}/stat") as file:
                name, state = file.read().split("(", 1)[1].rsplit(")", 1)
        except OSError:
            return False
        return name == "thalweg" and state.split()[0] != "Z"

    whole = None

    def reference(self):
        if Stops.whole is None:
            self.succeed("run", self.write("tiny.yaml", TINY), *LONG, "--out", self.path("whole"))
            Stops.whole = self.bytes_of("whole", "final.pt")
        return Stops.whole

    def resume(self, out, ranks):
        self.succeed("run", self.path("tiny.yaml"), *LONG, "--resume", "--out", self.path(out), ranks=ranks)
        self.assertEqual(self.reference(), self.bytes_of(out, "final.pt"))
        with open(self.path(out, "rounds.jsonl")) as file:
            self.assertEqual([json.loads(line)["round"] for line in file], list(range(1, ROUNDS + 1)))
        with open(self.path(out, "manifest.json")) as file:
            self.assertEqual([session["ranks"] for session in json.load(file)["resumed"]], [ranks])

    def test_killed_rank_and_resume(self):
        process = self.start(3, "killed")
        self.wait_for_checkpoint(process, "killed")
        ranks = subprocess.run(["pgrep", "-P", str(process.pid)], stdout=subprocess.PIPE, text=True).stdout.split()
        ranks = [pid for pid in ranks if self.is_ours(pid)]
        self.assertEqual(len(ranks), 3)
        os.kill(int(ranks[1]), signal.SIGKILL)
        process.communicate(timeout=30)
        self.assertNotEqual(process.returncode, 0)
        deadline = time.monotonic() + 10  # nobody is left behind
        while any(map(self.is_ours, ranks)) and time.monotonic() < deadline:
            time.sleep(0.05)
        self.assertFalse(any(map(self.is_ours, ranks)))
        self.resume("killed", ranks=2)

    def test_ctrl_c_alone(self):
        process = self.start(1, "stopped")
        self.wait_for_checkpoint(process, "stopped")
        process.send_signal(signal.SIGINT)
        start = time.monotonic()
        _, errors = process.communicate(timeout=30)
        self.assertLess(time.monotonic() - start, 5)
        self.assertEqual(process.returncode, 130, errors)
        self.assertIn("--resume", errors)
        self.resume("stopped", ranks=1)

    def test_ctrl_c_under_mpirun(self):
        process = self.start(2, "stopped")
        self.wait_for_checkpoint(process, "stopped")
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
        self.assertNotEqual(process.returncode, 0)
        self.assertEqual(errors.count("--resume"), 1, errors)
        self.resume("stopped", ranks=2)


if __name__ == "__main__":
    unittest.main()
