"""Every study at its smallest size: it runs, says what it found, keeps what it computed, and is the same on two ranks."""
import csv
import os
import re
import resource
import unittest

from support import ROOT, Case

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
# Of user and system together, so that a busy machine does not count: about ten times what the slowest takes.
SMOKE_PROCESSOR_SECONDS = 40


def processor_seconds():
    """What the programs called so far have used."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


class TestStudies(Case):
    def conduct(self, name, folder, ranks=1):
        return self.json("study", name, "--smoke", "--out", self.path(folder), ranks=ranks)

    def times_of_models(self, folder):
        """When each model was written, those of federations included."""
        files = [os.path.join(place, file) for part in ("models", "runs")
                 for place, _, names in os.walk(self.path(folder, part)) for file in names]
        self.assertTrue(files)
        return {file: os.stat(file).st_mtime_ns for file in files}

    def test_all_are_found(self):
        shipped = os.listdir(os.path.join(ROOT, "configs", "studies"))
        self.assertEqual(STUDIES, sorted(name.removesuffix(".yaml") for name in shipped))

    def test_smoke(self):
        for name in STUDIES:
            with self.subTest(study=name):
                before = processor_seconds()
                done = self.conduct(name, name)
                self.assertLess(processor_seconds() - before, SMOKE_PROCESSOR_SECONDS)
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

    def test_a_diverged_federation_leaves_a_gap(self):
        changes = ["objectives=[none, {kind: fedprox, mu: 1e30}]"]
        done = self.json("study", "sign-alignment-federated", "--smoke", "--out", self.path("signs"), *changes)
        proximal = [finding["ours"] for finding in done["findings"] if finding["claim"].startswith("fedprox")]
        self.assertTrue(proximal)
        for ours in proximal:
            self.assertIn("4 of 4 federations diverged, 0 of FedAvg", ours)
        # the others have their numbers
        self.assertTrue([f for f in done["findings"] if f["claim"].startswith("server signs") and "over 2 seeds" in f["ours"]])

    def test_points_of_categories_name_their_own(self):
        """What stands side by side in the drawing is at one place in the numbers."""
        self.conduct("sign-alignment-federated", "signs")
        with open(self.path("signs", "figures", "accuracy-gain.csv"), encoding="utf-8") as file:
            rows = list(csv.DictReader(line for line in file if not line.startswith("#")))
        cells = ["α = 0.5, 1 epoch", "α = 0.5, 2 epochs"]
        self.assertEqual([(row["x"], row["category"]) for row in rows],
                         [(str(i), cell) for i, cell in enumerate(cells)] * (len(rows) // 2))
        self.assertGreaterEqual(len(rows), 4)

    def test_mistakes_are_refused_before_training(self):
        """And leave no folder, which would be taken for that of another study."""
        mistakes = (
            ("sign-consistency-vs-merge", "initialisations=[shred]", "independent"),
            ("sign-consistency-vs-merge", "alignments=[]", "alignments"),
            ("valley-symmetry", "batch_norm_initialisations=[one]", "symmetric"),
            ("valley-symmetry", "ratios=[]", "ratios"),
            ("toroid", "matching=weigth_matching", "weight_matching"),
            ("toroid", "sigmas=[]", "sigmas"),
            ("toroid", "architectures[1].model.activation=tanh", "architectures[1].model"),
            ("toroid", "trainings[0].name='-'", "trainings[0].name"),
            ("toroid", "trainings[0].set=[clients.epocs=1]", "experiment.clients.epocs"),
            ("toroid", "trainings[0].set=[nonsense]", "trainings[0].set[0]"),
            ("transport-width", "trainings[1].set=[clients.algorithm.lr=-1]", "experiment.clients.algorithm.lr"),
            ("toroid", "experiment.clients.epocs=1", "experiment.clients.epocs"),
            ("toroid", "experiment.data.holdout=100", "experiment.data.holdout"),
            ("instability", "experiment.analysis.measures=[ladder]", "experiment.analysis.measures"),
            ("repair-depth-width-norm", "matchings=[weigth_matching]", "matchings[0]"),
            ("repair-depth-width-norm", "matchings=[weight_matching, weight_matching]", "matchings[1]"),
            ("repair-depth-width-norm", "points=4", "odd"),
            ("initialisation", "methods=[weigth_matching]", "methods[0]"),
            ("initialisation", "learning_rates=[]", "learning_rates"),
            ("initialisation", "learning_rates=[0.1, 0.05]", "learning_rates[1]"),
            ("initialisation", "architectures[0].name=α", "architectures[0].name"),
            ("initialisation", "architectures[0].epochs=2", "architectures[0].epochs"),
            ("initialisation", "experiment.clients={algorithm: sgd, epochs: 1}", "experiment.clients"),
            ("transport-width", "methods=[weight_matching, covariance_matchin]", "methods[1]"),
            ("transport-width", "widths=[16, 8]", "widths[1]"),
            ("transport-width", "trainings[1].name=''", "trainings[1].name"),
            ("instability", "forks=[0.5, 0]", "forks[1]"),
            ("rounds-to-one-valley", "pipelines=[mean, weigth_matching+mean]", "pipelines[1]"),
            ("rounds-to-one-valley", "pipelines=[mean, toroid+mean] experiment.model.norm=batch", "pipelines[1]"),
            ("rounds-to-one-valley", "experiment.server={}", "server.rounds"),
            ("sign-alignment-federated", "experiment.clients.steps=5", "experiment.clients.steps"),
            ("sign-consistency-vs-merge", "alignments=[weigth_matching]", "alignments[0]"),
            ("sign-consistency-vs-merge", "experiment.clients.steps=5", "experiment.clients.steps"))
        commands = [["study", name, "--smoke", "--out", self.path(f"refused-{i}"),
                     *re.split(r" (?=experiment\.)", changes)]  # a blank before a key parts two changes
                    for i, (name, changes, _) in enumerate(mistakes)]
        for (name, changes, says), command, refused in zip(mistakes, commands, self.calls(commands)):
            with self.subTest(study=name, changes=changes):
                self.assertEqual(refused.returncode, 2, refused.stderr)
                self.assertIn(says, refused.stderr)
                self.assertNotIn("internal error", refused.stderr)
                self.assertFalse(os.path.exists(command[4]))

    def test_a_corrected_command_takes_the_same_folder(self):
        command = ["study", "sign-consistency-vs-merge", "--smoke", "--out", self.path("signs")]
        for ranks in (1, 2):
            refused = self.call(*command, "alignments=[weigth_matching]", ranks=ranks)
            self.assertEqual(refused.returncode, 2, refused.stderr)
        self.succeed(*command, "alignments=[weight_matching]")

    def test_what_is_wrong_with_a_configuration_is_said_with_its_place(self):
        shown = self.succeed("study", "toroid", "--smoke", "--show").stdout
        for text, size, says in (
                ("quick: 3\n" + shown, ["--quick"], "own.yaml:1:1: quick: "),
                (shown, ["--quick"], "own.yaml:1:1: the study's configuration has no section 'quick'"),
                ("- toroid\n", [], "own.yaml:1:1: a study's configuration is a map"),
                ("study: toroid\n", [], "own.yaml:1:1: ")):
            with self.subTest(says=says):
                own = self.write("own.yaml", text)
                refused = self.call("study", "toroid", "--config", own, *size, "--show")
                self.assertEqual(refused.returncode, 2, refused.stderr)
                self.assertIn(says, refused.stderr)

    def test_a_training_whose_changes_do_not_fit_is_said_with_its_place(self):
        shown = self.succeed("study", "toroid", "--smoke", "--show").stdout
        line = next(i for i, text in enumerate(shown.splitlines(), 1) if "clients.batch_size=16" in text)
        for change, says in (("clients.batch_size=0", "experiment.clients.batch_size: "),
                             ("model.widht=2", "experiment.model.widht: "),
                             ("nonsense", "trainings[0].set[0]: 'nonsense': "),
                             ("record.serve=127.0.0.1:0", "experiment.record.serve: what a study trains has no live page")):
            with self.subTest(change=change):
                own = self.write("own.yaml", shown.replace("clients.batch_size=16", change))
                refused = self.call("study", "toroid", "--config", own, "--out", self.path("out"))
                self.assertEqual(refused.returncode, 2, refused.stderr)
                self.assertRegex(refused.stderr, re.escape("own.yaml") + f":{line}:[0-9]+: " + re.escape(says))
                self.assertFalse(os.path.exists(self.path("out")))

    def test_a_study_has_no_live_page(self):
        """A token would stand in its folder and its report."""
        for change, says in (("experiment.record.token=0123456789abcdef", "experiment.record.token"),
                             ("experiment.record.serve=127.0.0.1:0", "experiment.record.serve"),
                             ("trainings=[{name: own, set: [record.token=0123456789abcdef]}]", "record.token")):
            with self.subTest(change=change):
                out = self.path("served")
                refused = self.call("study", "toroid", "--smoke", "--out", out, change)
                self.assertEqual(refused.returncode, 2, refused.stderr)
                self.assertIn(says + ": what a study trains has no live page", refused.stderr)
                self.assertNotIn("0123456789abcdef", refused.stdout + refused.stderr)
                self.assertFalse(os.path.exists(out))

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
