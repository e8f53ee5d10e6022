"""`thalweg symmetry`: what it says of configurations, model files and modules from Python, and that its proofs are run."""
import os
import re
import unittest

from support import ROOT, TINY, Case

MODULES = os.path.join(ROOT, "tests", "golden", "torchscript")
REST = """
data: {dataset: {kind: gaussian_mixture, dimension: 12}, partition: {scheme: iid, clients: 1}}
clients: {algorithm: {kind: sgd, lr: 0.1}}
server: {rounds: 1}
"""


class Symmetry(Case):
    def of_model(self, model, *words):
        return self.json("symmetry", self.write("config.yaml", f"model: {model}{REST}"), *words)

    def check(self, found, covered=None):
        for kind in ("permutations", "signs", "scales"):
            self.assertLess(found["verified"][kind]["max_error"], 1e-9, kind)
        self.assertGreater(found["verified"]["permutations"]["control"], 1e-6)
        self.assertTrue(found["planted"]["recovered"])
        self.assertEqual(found["covered_channels"], found["hidden_channels"] if covered is None else covered)

    def test_shows_groups_fixed_axes_and_what_may_be_multiplied(self):
        found = self.json("symmetry", self.write("tiny.yaml", TINY))
        self.assertEqual([(group["name"], group["size"]) for group in found["groups"]],
                         [("layers.0", 16), ("layers.2", 12)])
        self.assertEqual(found["groups"][0]["tensors"], [{"name": "layers.0.weight", "axis": 0},
                                                        {"name": "layers.0.bias", "axis": 0},
                                                        {"name": "layers.2.weight", "axis": 1}])
        self.assertIn({"tensor": "layers.0.weight", "axis": 1, "reason": "input"}, found["frozen"])
        self.assertEqual(found["signs"]["channels"], 0)
        self.assertIn({"name": "layers.0", "size": 16, "reason": "relu"}, found["signs"]["fixed"])
        self.assertEqual(found["scales"]["groups"], [{"name": "layers.0", "size": 16}, {"name": "layers.2", "size": 12}])
        self.assertIsNone(found["verified"])
        text = self.succeed("symmetry", self.path("tiny.yaml"), "--verify").stdout
        self.assertIn("28 of 28 hidden channels can be permuted", text)
        self.assertIn("no channel may be flipped in sign\n  not because of relu: layers.0 16, layers.2 12", text)
        self.assertRegex(text, r"permutations +largest error \d\.\de-\d\d; with one tensor left out on purpose at least")
        self.assertRegex(text, r"a planted element was recovered exactly, at start \d+ of weight matching")

    def test_proves_builders_of_every_kind(self):
        for model, covered in (("{kind: vgg, width: 0.125}", None),
                               ("{kind: resnet, width: 0.5}", None),
                               ("{kind: resnet, width: 0.5, shortcut: pad, norm: group}", 184),
                               ("{kind: vit, depth: 2, heads: 3, dim: 24, mlp_dim: 48}", None)):
            with self.subTest(model):
                self.check(self.of_model(model, "--input", "3,32,32", "--verify", "--draws", "2"), covered)

    def test_a_group_that_cannot_move_says_why(self):
        found = self.of_model("{kind: resnet, width: 0.5, shortcut: pad, norm: group}", "--input", "3,32,32")
        self.assertIn("it is cut into blocks in two ways", {axis["reason"] for axis in found["frozen"]})

    def test_modules_from_python(self):
        for name, shape in (("residual", "1,6,6"), ("written_attention", "5,6"), ("padded_shortcut", "3,6,6")):
            with self.subTest(name):
                file = os.path.join(MODULES, name + ".script.pt")
                self.check(self.of_model(f"{{kind: torchscript, file: '{file}'}}", "--input", shape, "--classes",
                                         {"residual": "4", "padded_shortcut": "4"}.get(name, "3"), "--verify"))

    def test_model_files_and_ranks(self):
        self.succeed("train", self.write("tiny.yaml", TINY), "--out", self.path("a.pt"))
        alone = self.json("symmetry", self.path("a.pt"), "--verify")
        self.check(alone)
        self.assertEqual(alone, self.json("symmetry", self.path("a.pt"), "--verify", ranks=2))

    def test_refuses_what_it_cannot_build(self):
        config = self.write("config.yaml", f"model: {{kind: vgg}}{REST}")
        for words, needle in ((("--input", "3,8,8"), "max_pool_4.*larger than the image"),
                              (("--input", "3,0,8"), "--input"), (("--input", "12"), "vgg")):
            done = self.call("symmetry", config, *words)
            self.assertEqual(done.returncode, 2, done.stderr)
            self.assertTrue(re.search(needle, done.stderr), done.stderr)
            self.assertEqual(done.stdout, "")


if __name__ == "__main__":
    unittest.main()
