"""Model files in the safetensors format: every command that takes or writes a model."""
import json
import os
import struct
import unittest

from support import TINY, Case


def header_of(path):
    with open(path, "rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        return json.loads(file.read(length)), length


class Safetensors(Case):
    def setUp(self):
        super().setUp()
        self.config = self.write("tiny.yaml", TINY)
        for seed, name in ((1, "a.safetensors"), (2, "b.safetensors"), (1, "a.pt")):
            self.succeed("train", self.config, f"seed={seed}", "data.dataset.seed=3", "--out", self.path(name))

    def test_eval_needs_nothing_but_the_file(self):
        self.assertEqual(self.json("eval", self.path("a.safetensors")), self.json("eval", self.path("a.pt")))

    def test_the_header_says_what_the_file_is(self):
        header, length = header_of(self.path("a.safetensors"))
        self.assertEqual(length % 8, 0)
        self.assertEqual(header["__metadata__"]["format"], "pt")
        self.assertIn("kind: mlp", header["__metadata__"]["model"])
        self.assertIn("gaussian_mixture", header["__metadata__"]["data"])
        self.assertEqual(header["layers.0.weight"], {"dtype": "F32", "shape": [16, 12], "data_offsets": [0, 768]})

    def test_align_signs_lmc_and_fuse(self):
        a, b = self.path("a.safetensors"), self.path("b.safetensors")
        aligned, fused = self.path("b2.safetensors"), self.path("fused.safetensors")
        done = self.json("align", a, b, "--out", aligned)
        self.assertLess(done["distance_after"], done["distance_before"])
        self.assertAlmostEqual(self.json("eval", b)["loss"], self.json("eval", aligned)["loss"], places=5)
        # The two formats mix, and hold the same model.
        self.assertEqual(self.json("signs", a, aligned)["overall"], self.json("signs", self.path("a.pt"), aligned)["overall"])
        self.assertEqual(len(self.json("lmc", a, b, "--points", "3", "--align", "weight_matching")["lambdas"]), 3)
        result = self.json("fuse", a, b, "--pipeline", "merge_many+mean", "--out", fused)
        self.assertEqual(self.json("eval", fused)["accuracy"], result["fused"]["accuracy"])

    def test_a_foreign_file_needs_its_architecture(self):
        header, length = header_of(self.path("a.safetensors"))
        del header["__metadata__"]
        with open(self.path("a.safetensors"), "rb") as file:
            data = file.read()[8 + length:]
        text = json.dumps(header).encode()
        with open(self.path("foreign.safetensors"), "wb") as file:
            file.write(struct.pack("<Q", len(text)) + text + data)
        refused = self.call("eval", self.path("foreign.safetensors"))
        self.assertEqual(refused.returncode, 1)
        self.assertIn("--model", refused.stderr)
        words = ["--model", "{kind: mlp, hidden: [16, 12], input: [12], classes: 4}", "--data",
                 "{kind: gaussian_mixture, classes: 4, dimension: 12, train: 600, test: 200, separation: 3, seed: 3}"]
        self.assertEqual(self.json("eval", self.path("foreign.safetensors"), *words), self.json("eval", self.path("a.pt")))

    def test_the_name_says_the_format(self):
        os.rename(self.path("a.pt"), self.path("c.safetensors"))
        os.rename(self.path("b.safetensors"), self.path("b.pt"))
        for name, hint in (("c.safetensors", ".pt"), ("b.pt", ".safetensors")):
            refused = self.call("eval", self.path(name))
            self.assertEqual(refused.returncode, 1)
            self.assertIn(name, refused.stderr)
            self.assertIn(hint, refused.stderr)

    def test_exported_batch_orders(self):
        self.succeed("partition", self.config, "--export", self.path("plan.safetensors"))
        header, _ = header_of(self.path("plan.safetensors"))
        self.assertIn("tiny", header["__metadata__"]["config"])
        self.assertEqual(header["client_3"]["dtype"], "I64")


if __name__ == "__main__":
    unittest.main()
