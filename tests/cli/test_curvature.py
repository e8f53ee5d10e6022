"""Curvature, similarity, flatness, support, variance, instability: against NumPy, on several ranks, and wrong input."""
import gzip
import json
import math
import os
import random
import struct
import subprocess
import unittest

from support import TINY, Case

PYTHON = "/usr/bin/python3"
HAS_TORCH = subprocess.run([PYTHON, "-c", "import torch, numpy"], stderr=subprocess.DEVNULL).returncode == 0

MLP = TINY.replace("init: independent", "init: shared").split("analysis:")[0]


def write_images(folder):
    """A data set in Fashion-MNIST's format: noise with a bright row for each class."""
    draw = random.Random(4)
    os.mkdir(folder)
    for name, count in (("train", 300), ("t10k", 120)):
        pixels, labels = bytearray(), bytearray()
        for _ in range(count):
            label = draw.randrange(10)
            image = bytearray(draw.randrange(90) for _ in range(784))
            for column in range(28):
                image[28 * 2 * label + column] = 160 + draw.randrange(90)
            pixels += image
            labels.append(label)
        with gzip.open(f"{folder}/{name}-images-idx3-ubyte.gz", "wb", compresslevel=1) as file:
            file.write(struct.pack(">IIII", 2051, count, 28, 28) + bytes(pixels))
        with gzip.open(f"{folder}/{name}-labels-idx1-ubyte.gz", "wb") as file:
            file.write(struct.pack(">II", 2049, count) + bytes(labels))


class AgainstNumPy(Case):
    def setUp(self):
        super().setUp()
        write_images(self.path("images"))
        config = self.write("image.yaml", f"""
data:
  dataset: {{kind: fashion_mnist, path: {self.path("images")}}}
  partition: {{scheme: iid, clients: 2}}
model: {{kind: mlp, hidden: [30, 20]}}
clients: {{algorithm: {{kind: adam, lr: 0.01}}, epochs: 4, batch_size: 20}}
server: {{}}
""")
        for seed, name in ((1, "a.pt"), (2, "b.pt")):
            self.succeed("train", config, f"seed={seed}", "--out", self.path(name))

    @unittest.skipUnless(HAS_TORCH, "needs PyTorch and NumPy")
    def test_cka_and_support(self):
        a, b = self.path("a.pt"), self.path("b.pt")
        script = os.path.join(os.path.dirname(os.path.abspath(__file__)), "curvature_in_python.py")
        done = subprocess.run([PYTHON, script, self.path("images"), a, b, "120"], stdout=subprocess.PIPE, check=True)
        expected = json.loads(done.stdout)
        for ranks in (1, 2):
            cka = self.json("cka", a, b, "--samples", 120, ranks=ranks)
            self.assertEqual(cka["layers_a"], expected["layers"])
            self.assertEqual(cka["samples"], 120)
            for mine, theirs in zip(cka["matrix"], expected["cka"]):
                for value, exact in zip(mine, theirs):
                    self.assertAlmostEqual(value, exact, delta=1e-6)
            support = self.json("support", a, "--samples", 120, "--split", "test", ranks=ranks)
            for layer, exact in zip(support["layers"], expected["support"]):
                self.assertAlmostEqual(layer["weights"], exact["weights"], delta=1e-6)
                self.assertAlmostEqual(layer["inputs_covariance"], exact["inputs"], delta=1e-6)
                self.assertAlmostEqual(layer["outputs_covariance"], exact["outputs"], delta=1e-6)

    @unittest.skipUnless(HAS_TORCH, "needs PyTorch and NumPy")
    def test_trace_of_a_linear_model(self):
        """All of a softmax regression is its classifier, whose trace has a closed form."""
        config = self.write("linear.yaml", f"""
data:
  dataset: {{kind: fashion_mnist, path: {self.path("images")}}}
  partition: {{scheme: iid, clients: 2}}
model: {{kind: linear}}
clients: {{algorithm: {{kind: sgd, lr: 0.002}}, epochs: 2, batch_size: 20}}
server: {{}}
""")
        model = self.path("linear.pt")
        self.succeed("train", config, "--out", model)
        script = os.path.join(os.path.dirname(os.path.abspath(__file__)), "curvature_in_python.py")
        done = subprocess.run([PYTHON, script, self.path("images"), model, model, "120"], stdout=subprocess.PIPE,
                              check=True)
        exact = json.loads(done.stdout)["classifier_trace"]
        found = self.json("hessian", model, "--split", "test", "--samples", 120, "--probes", 200, "--top", 1)
        self.assertLess(abs(found["trace"]["value"] - exact), 4 * found["trace"]["standard_error"])
        self.assertLess(found["trace"]["standard_error"], 0.1 * exact)
        self.assertGreater(found["smallest"], -1e-6 * found["eigenvalues"][0])  # convex

    def test_cka_is_one_for_permuted_models(self):
        a, b, moved = self.path("a.pt"), self.path("b.pt"), self.path("moved.pt")
        self.succeed("align", a, b, "--method", "weight_matching", "--out", moved)
        for other in (b, moved):
            cka = self.json("cka", b, other, "--samples", 120)
            for value in cka["diagonal"]:
                self.assertAlmostEqual(value, 1, delta=1e-6)
        with_a = [self.json("cka", a, other, "--samples", 120)["matrix"] for other in (b, moved)]
        for first, second in zip(*with_a):
            for one, two in zip(first, second):
                self.assertAlmostEqual(one, two, delta=1e-6)


class OnSmallData(Case):
    def setUp(self):
        super().setUp()
        self.config = self.write("tiny.yaml", MLP)
        for order, name in ((3, "a.pt"), (4, "b.pt")):
            self.succeed("train", self.config, f"seed={order}", "data.dataset.seed=1", "--out", self.path(name))
        self.a, self.b = self.path("a.pt"), self.path("b.pt")

    def test_hessian(self):
        words = ("hessian", self.a, "--samples", 250, "--top", 3, "--density", "--density-steps", 20,
                 "--density-probes", 2, "--probes", 4)
        found = self.json(*words)
        self.assertEqual(found, self.json(*words, ranks=2))
        self.assertEqual(found["parameters"], 12 * 16 + 16 + 16 * 12 + 12 + 12 * 4 + 4)
        self.assertEqual(found["eigenvalues"], sorted(found["eigenvalues"], reverse=True))
        self.assertTrue(found["converged"])
        grid, density = found["density"]["grid"], found["density"]["density"]
        integral = sum((grid[i + 1] - grid[i]) * (density[i] + density[i + 1]) / 2 for i in range(len(grid) - 1))
        self.assertAlmostEqual(integral, 1, delta=1e-3)
        self.assertAlmostEqual(found["density"]["largest"], found["eigenvalues"][0],
                               delta=1e-3 * found["eigenvalues"][0])
        self.assertIn("trace", self.succeed("hessian", self.a, "--samples", 50).stdout)

    def test_flatness(self):
        words = ("flatness", self.a, "--sigma", "0,0.2,0.6", "--repeats", 4)
        found = self.json(*words)
        self.assertEqual(found, self.json(*words, ranks=2))
        self.assertEqual(found["points"][0]["energy"], 0)
        self.assertEqual(len(found["points"][2]["errors"]), 4)
        self.assertGreater(found["points"][2]["loss_rise"], found["points"][1]["loss_rise"])

    def test_variance(self):
        plain = self.json("variance", self.a, self.b)["layers"]
        self.assertEqual(self.json("variance", self.a, self.b, ranks=2)["layers"], plain)
        mended = self.json("variance", self.a, self.b, "--align", "weight_matching", "--finish", "repair",
                           ranks=2)["layers"]
        self.assertEqual([layer["name"] for layer in plain], ["layers.0", "layers.2"])
        self.assertLess(plain[1]["deviation_ratio"]["mean"], 0.9)
        for layer in mended:
            self.assertTrue(layer["repairable"])
            for channel in layer["deviation_ratio"]["channels"]:
                self.assertAlmostEqual(channel, 1, delta=0.02)
        text = self.succeed("variance", self.a, self.b, "--out", self.path("variance")).stdout
        self.assertRegex(text, r"repairable\n.*\n.*yes\n")
        with open(self.path("variance", "result.json")) as file:
            self.assertIn("REPAIR mends each of these layers", file.read())
        # of a merged model from a file
        self.succeed("fuse", self.a, self.b, "--pipeline", "mean", "--out", self.path("mean.pt"))
        given = self.json("variance", self.a, self.b, "--merged", self.path("mean.pt"))["layers"]
        for one, two in zip(given, plain):
            self.assertAlmostEqual(one["variance_ratio"], two["variance_ratio"], delta=1e-6)

    def test_signs_against_chance(self):
        found = self.json("signs", self.a, self.a)
        self.assertEqual((found["overall"], found["weighted"]), (1, 1))
        self.assertGreater(found["z"], 10)
        found = self.json("signs", self.a, self.b)
        self.assertEqual(found["agree"], sum(t["agree"] for t in found["tensors"]))
        self.assertAlmostEqual(found["z"], (found["agree"] - found["tested"] / 2) / (math.sqrt(found["tested"]) / 2))

    def test_instability(self):
        words = ("instability", self.config, "clients.algorithm.lr=0.05", "--step", "0,30,60", "--points", 5)
        found = self.json(*words)
        self.assertEqual(found, self.json(*words, ranks=2))
        self.assertEqual(found["last"], 60)
        self.assertEqual([step["step"] for step in found["steps"]], [0, 30, 60])
        last = found["steps"][2]
        self.assertEqual((last["test_barrier"], last["loss_barrier"], last["stable"]), (0, 0, True))
        words = ("instability", self.config, "clients.algorithm.lr=0.05", "clients.epochs=1", "model.norm=batch", "--step", 0,
                 "--points", 3)
        plain, fresh = self.json(*words), self.json(*words, "--finish", "reset_batch_norm", "--holdout", 100, ranks=2)
        self.assertEqual(fresh["finish"], "reset_batch_norm")
        for stale, own in zip(plain["steps"][0]["curves"], fresh["steps"][0]["curves"]):
            for at, differ in ((0, False), (1, True), (2, False)):
                self.assertEqual(stale["test"]["loss"][at] != own["test"]["loss"][at], differ)

    def test_reports(self):
        for words, figure in ((("hessian", self.a, "--density", "--samples", 60), "spectral-density"),
                              (("cka", self.a, self.b), "cka"), (("support", self.a), "support"),
                              (("flatness", self.a, "--sigma", "0.1"), "local-energy"),
                              (("variance", self.a, self.b), "variance"),
                              (("instability", self.config, "--step", "0"), "instability")):
            folder = self.path(words[0])
            self.succeed(*words, "--out", folder)
            for name in ("report.html", "result.json", f"figures/{figure}.csv", f"figures/{figure}.gp"):
                self.assertTrue(os.path.exists(os.path.join(folder, name)), name)

    def test_measures_of_rounds(self):
        config = self.write("rounds.yaml", TINY)
        measures = ("analysis.measures=[{sign_consistency: {layers: true}}, {hessian: {top: 2, samples: 50, density: true, density_probes: 1, density_steps: 5}}, "
                    "{cka: {samples: 40}}, {flatness: {sigma: [0, 0.3], repeats: 2}}, support]")
        lines = []
        for ranks in (1, 2):
            folder = self.path(f"run-{ranks}")
            self.succeed("run", config, measures, "--out", folder, ranks=ranks)
            with open(os.path.join(folder, "analysis.jsonl")) as file:
                lines.append([json.loads(line) for line in file])
        self.assertEqual(*lines)
        text = json.dumps(lines[0])
        for word in ("by_client", "eigenvalues", "standard_error", "outputs_covariance", "layers.2"):
            self.assertIn(word, text)
        self.assertEqual(len(lines[0][0]["hessian"]["density"]["grid"]), 400)
        with open(self.path("run-1", "rounds.jsonl")) as file:
            signs = json.loads(file.readline())["sign_consistency"]
        whole = lines[0][0]["sign_consistency"]
        self.assertIn("layers.0.weight", whole.pop("by_client")["0"])
        self.assertEqual(set(whole.pop("by_pair")["0-1"]), {"before", "after"})
        self.assertEqual(signs, whole)

    def test_wrong_input_is_said(self):
        image = self.write("image.yaml", """
data: {dataset: {kind: gaussian_mixture, dimension: 5, classes: 4, train: 50, test: 20},
       partition: {scheme: iid, clients: 2}}
model: {kind: linear}
clients: {}
server: {}
""")
        other = self.path("other.pt")
        self.succeed("train", image, "--out", other)
        mistakes = (
            (("hessian", self.a, "--top", "5000"), "eigenvalues to show, not 5000"),
            (("hessian", self.a, "--top", "9", "--steps", "3"), "not 3"),
            (("hessian", self.a, "--top", "0", "--probes", "0"), "nothing to measure"),
            (("cka", self.a, other, "--data", "gaussian_mixture"), "different shapes"),
            (("cka", self.a, self.b, "--samples", "1"), "at least 2 sample"),
            (("cka", self.a, self.b, "--spatial", "maps"), "--spatial"),
            (("flatness", self.a, "--sigma", "-1"), "noise strength"),
            (("support", self.a, "--out", self.a), "is a file"),
            (("variance", self.a), "at least two"),
            (("variance", self.a, self.b, "--merged", self.a, "--finish", "repair"), "--merged"),
            (("variance", self.a, self.b, "--align", "nonsense"), "nonsense"),
            (("variance", self.a, self.b, "--align", "matched_averaging(grow=true)"), "grow: false"),
            (("variance", self.a, "missing.pt", "--out", self.a), "is a file"),  # said before any work
            (("instability", self.config, "--step", "61", "--out", self.a), "is a file"),
            (("instability", self.config, "--step", "61"), "60 steps"),
            (("instability", self.config), "--step"),
            (("run", self.config, "analysis.measures=[{flatness: {sigma: [-1]}}]", "--out", self.path("r")),
             "noise strength"))
        done = self.calls([words for words, _ in mistakes], ranks=2)  # and no rank waits for another
        for (words, says), refused in zip(mistakes, done):
            self.assertEqual(refused.returncode, 2, f"{words}: {refused.stderr}")
            self.assertIn(says, refused.stderr)


if __name__ == "__main__":
    unittest.main()
