"""Every shipped configuration is valid, and runs at small scale."""
import glob
import os
import unittest

from support import ROOT, Case

SMALL = ["clients.steps=2", "evaluation.every=1000"]
# In place of CIFAR-10, which no package has.
IMAGES = "data.dataset={kind: gaussian_mixture, dimension: 3072, shape: [3, 32, 32], train: 300, test: 30}"


class Configurations(Case):
    def test_all_are_found(self):
        self.assertGreater(len(self.files()), 8)

    @staticmethod
    def files():
        found = sorted(glob.glob(os.path.join(ROOT, "configs", "**", "*.yaml"), recursive=True))
        return [path for path in found if os.path.basename(os.path.dirname(path)) != "studies"]

    def test_studies_are_valid_in_every_size(self):
        for path in sorted(glob.glob(os.path.join(ROOT, "configs", "studies", "*.yaml"))):
            name = os.path.basename(path).removesuffix(".yaml")
            with self.subTest(name):
                self.succeed("study", name, "--quick", "--show")  # and --smoke is run by test_studies.py
                shown = self.succeed("study", name, "--show").stdout
                self.assertEqual(shown, self.succeed("study", name, "--config", path, "--show").stdout)

    def test_each_is_valid(self):
        done = self.calls([["validate", path, "--no-data"] for path in self.files()])
        for path, validated in zip(self.files(), done):
            self.assertEqual(validated.returncode, 0, f"{path}: {validated.stderr}")

    def test_each_runs(self):
        for path in self.files():
            with self.subTest(os.path.relpath(path, ROOT)):
                images = [IMAGES] if "cifar10" in path else []
                out = self.path(os.path.relpath(path, ROOT).replace(os.sep, "-"))
                sampler = ["server.sampler={kind: uniform, count: 4}"] if "many-clients" in path else []
                self.succeed("run", path, *SMALL, *images, *sampler, "server.rounds=1", "--out", out)
                self.assertTrue(os.path.exists(os.path.join(out, "final.pt")))

    def test_every_pipeline_of_a_comparison_can_be_run(self):
        for path in [path for path in self.files() if os.path.basename(os.path.dirname(path)) == "compare"]:
            with self.subTest(os.path.relpath(path, ROOT)):
                # Clients with models of their own: the widest must find room in the round's.
                narrow = [] if os.path.basename(path) == "widths.yaml" else ["model.hidden=[16, 16]"]
                result = self.json("compare", path, *SMALL, *narrow, "server.rounds=1", "data.holdout=100",
                                   "--seeds", 1, "--barrier-pairs", 1)
                rows = result["rows"]
                self.assertGreater(len(rows), 5)
                self.assertEqual(len(rows), len(result["pipelines"]))
                for row in rows:
                    self.assertNotIn("error", row, row["pipeline"])
                    self.assertIsNotNone(row["accuracy"], row["pipeline"])


if __name__ == "__main__":
    unittest.main()
