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

    def test_a_diverged_training_leaves_a_gap(self):
        """Half of the ways of training diverge: the study goes on without them, and reads its gaps again."""
        trainings = "trainings=[{name: fine}, {name: diverging, set: [clients.algorithm.lr=1e30]}]"
        architecture = "{name: %s, lr: %s, model: {kind: mlp, hidden: [8], norm: none}}"
        architectures = f"architectures=[{architecture % ('fine', 0.001)}, {architecture % ('diverging', 1e30)}]"
        for name, changes in (("sign-consistency-vs-merge", ["learning_rates=[0.05, 1e30]", "models=3"]),
                              ("toroid", [trainings]),
                              ("valley-symmetry", [architectures])):
            with self.subTest(study=name):
                for again in (False, True):
                    done = self.json("study", name, "--smoke", "--out", self.path(name), *changes)
                    if again:
                        self.assertEqual(self.bytes_of(name, "result.json"), before)
                    before = self.bytes_of(name, "result.json")
                trained = os.listdir(self.path(name, "models"))
                labels = os.listdir(self.path(name, "jobs", "training"))
                self.assertTrue(trained)
                self.assertLess(len(trained), len(labels))
                # what is left has its numbers
                self.assertTrue([f for f in done["findings"] if any(d.isdigit() for d in f["ours"].split(" over ")[0])])

    def test_mistyped_lists_are_refused_before_training(self):
        for name, change, says in (
                ("sign-consistency-vs-merge", "initialisations=[shred]", "independent"),
                ("sign-consistency-vs-merge", "alignments=[]", "alignments"),
                ("valley-symmetry", "batch_norm_initialisations=[one]", "symmetric"),
                ("valley-symmetry", "ratios=[]", "ratios"),
                ("toroid", "matching=weigth_matching", "weight_matching"),
                ("toroid", "sigmas=[]", "sigmas"),
                ("repair-depth-width-norm", "matchings=[weigth_matching]", "weight_matching"),
                ("repair-depth-width-norm", "points=4", "odd")):
            with self.subTest(study=name, change=change):
                out = self.path("refused-" + name + change.split("=")[0])
                refused = self.call("study", name, "--smoke", "--out", out, change)
                self.assertEqual(refused.returncode, 2, refused.stderr)
                self.assertIn(says, refused.stderr)
                self.assertFalse(os.path.isdir(os.path.join(out, "models")) and os.listdir(os.path.join(out, "models")))

    def test_rounds_have_a_default(self):
        """A configuration of one's own without `server.rounds` ends in no error after all federations."""
        shown = self.succeed("study", "sign-alignment-federated", "--smoke", "--show").stdout
        with open(self.path("own.yaml"), "w", encoding="utf-8") as file:
            file.write(shown.replace("server: {rounds: 2}", "server: {}"))
        done = self.json("study", "sign-alignment-federated", "--config", self.path("own.yaml"),
                         "--out", self.path("own"), "epochs=[1]")
        self.assertIn("rounds", done["summary"])

    def test_another_configuration_is_refused(self):
        out = self.path("valley")
        self.succeed("study", "valley-symmetry", "--smoke", "--out", out)
        refused = self.call("study", "valley-symmetry", "--smoke", "--out", out, "seed=2")
        self.assertNotEqual(refused.returncode, 0)
        self.assertIn("seed", refused.stderr)
        self.assertIn("--out", refused.stderr)


if __name__ == "__main__":
    unittest.main()
