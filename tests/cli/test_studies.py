"""Every study at its smallest size: it runs, says what it found, keeps what it computed, and is the same on two ranks."""
import os
import unittest

from support import Case

STUDIES = [
    "initialisation",
    "instability",
    "repair-depth-width-norm",
    "rounds-to-one-valley",
    "sign-alignment-federated",
    "sign-consistency-vs-merge",
    "toroid",
    "transport-width",
    "valley-symmetry",
]
# Those whose results are compared between one rank and two: with snapshots, with federations as jobs, with trained paths.
ON_TWO_RANKS = ["initialisation", "rounds-to-one-valley", "toroid"]


class TestStudies(Case):
    def conduct(self, name, folder, ranks=1):
        return self.json("study", name, "--smoke", "--out", self.path(folder), ranks=ranks)

    def times_of_models(self, folder):
        """When each model was written, those of federations included."""
        files = [os.path.join(place, file) for part in ("models", "runs")
                 for place, _, names in os.walk(self.path(folder, part)) for file in names]
        self.assertTrue(files)
        return {file: os.stat(file).st_mtime_ns for file in files}

    def test_smoke(self):
        for name in STUDIES:
            with self.subTest(study=name):
                done = self.conduct(name, name)
                self.assertEqual(done["study"], name)
                self.assertTrue(done["summary"])
                self.assertTrue(done["findings"])
                for finding in done["findings"]:
                    self.assertIn(finding["seen"], ("yes", "no", "unsettled"))
                    self.assertTrue(finding["claim"] and finding["source"] and finding["ours"], finding)
                self.assertIn("<html", self.bytes_of(name, "report.html").decode().lower())
                figures = os.listdir(self.path(name, "figures"))
                self.assertIn("findings.csv", figures)
                self.assertTrue([file for file in figures if file.endswith(".gp")], figures)

                result, times = self.bytes_of(name, "result.json"), self.times_of_models(name)
                os.remove(self.path(name, "result.json"))
                self.conduct(name, name)
                self.assertEqual(self.bytes_of(name, "result.json"), result)
                self.assertEqual(self.times_of_models(name), times, "the second time, nothing is trained")

    def test_two_ranks_find_the_same(self):
        for name in ON_TWO_RANKS:
            with self.subTest(study=name):
                for ranks in (1, 2):
                    self.conduct(name, f"{name}-{ranks}", ranks)
                self.assertEqual(self.bytes_of(f"{name}-1", "result.json"), self.bytes_of(f"{name}-2", "result.json"))

    def test_another_configuration_is_refused(self):
        out = self.path("valley")
        self.succeed("study", "valley-symmetry", "--smoke", "--out", out)
        refused = self.call("study", "valley-symmetry", "--smoke", "--out", out, "seed=2")
        self.assertNotEqual(refused.returncode, 0)
        self.assertIn("seed", refused.stderr)
        self.assertIn("--out", refused.stderr)


if __name__ == "__main__":
    unittest.main()
