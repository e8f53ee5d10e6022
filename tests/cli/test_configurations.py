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
        return sorted(glob.glob(os.path.join(ROOT, "configs", "**", "*.yaml"), recursive=True))

    def test_each_is_valid_and_runs(self):
        for path in self.files():
            with self.subTest(os.path.relpath(path, ROOT)):
                self.succeed("validate", path, "--no-data")
                images = [IMAGES] if "cifar10" in path else []
                out = self.path(os.path.basename(path))
                sampler = ["server.sampler={kind: uniform, count: 4}"] if "many-clients" in path else []
                self.succeed("run", path, *SMALL, *images, *sampler, "server.rounds=1", "--out", out)
                self.assertTrue(os.path.exists(os.path.join(out, "final.pt")))


if __name__ == "__main__":
    unittest.main()
