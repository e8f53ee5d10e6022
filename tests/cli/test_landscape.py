"""The landscape between and around models: `lmc` on every path, `valley`, `surface`, and their measures in rounds."""
import json
import os
import subprocess
import sys
import tempfile
import unittest

from support import ENVIRONMENT, ROOT, TINY, Case, command_line

FASHION = "/usr/share/datasets/fashion-mnist"
# One sample of the 10,000 may stand on the edge between two classes and fall to either side of it.
ONE_SAMPLE = 1.01e-4


def mean(values):
    values = list(values)
    return sum(values) / len(values)


def sides(valley):
    """Mean error at λ < 0 and at λ > 0, in points."""
    pairs = list(zip(valley["lambdas"], valley["accuracy"]))
    return [100 * mean(1 - accuracy for at, accuracy in pairs if at * side > 0) for side in (-1, 1)]


class Fashion(Case):
    """Two small MLPs on Fashion-MNIST, trained once."""

    @classmethod
    def setUpClass(cls):
        if not os.path.isdir(FASHION):
            raise unittest.SkipTest("the package dataset-fashion-mnist is not installed")
        holder = tempfile.TemporaryDirectory(prefix="thalweg-landscape-")
        cls.addClassCleanup(holder.cleanup)
        cls.a, cls.b = (os.path.join(holder.name, name) for name in ("a.pt", "b.pt"))
        config = os.path.join(ROOT, "configs", "reproduce", "merge-mlp-128.yaml")
        for seed, path in ((1, cls.a), (2, cls.b)):
            done = subprocess.run(command_line("train", config, f"seed={seed}", "clients.epochs=2", "--out", path),
                                  env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            if done.returncode != 0:
                raise RuntimeError(done.stderr)

    def recomputed(self, points):
        python = next((name for name in (sys.executable, "/usr/bin/python3")
                       if subprocess.run([name, "-c", "import numpy, torch"], stdout=subprocess.DEVNULL,
                                         stderr=subprocess.DEVNULL, timeout=120).returncode == 0), None)
        if python is None:
            self.skipTest("no Python here can import torch (apt install python3-torch)")
        script = os.path.join(os.path.dirname(__file__), "barriers_in_python.py")
        return json.loads(subprocess.check_output([python, script, self.a, self.b, str(points)], text=True))

    def test_barriers_are_those_of_an_independent_program(self):
        ours = self.json("lmc", self.a, self.b, "--points", "7", "--split", "test", "--layers")
        theirs = self.recomputed(7)
        self.assertEqual(ours["path"], "line")
        self.assertGreater(theirs["barrier"][0], 0.1)  # there is something to measure
        for mine, other in zip(ours["test"]["loss"], theirs["loss"]):
            self.assertAlmostEqual(mine, other, delta=1e-5)
        for mine, other in zip(ours["test"]["accuracy"], theirs["error"]):
            self.assertAlmostEqual(1 - mine, other, delta=ONE_SAMPLE)
        self.assertAlmostEqual(ours["barrier"]["test"]["loss"], theirs["barrier"][0], delta=1e-5)
        self.assertAlmostEqual(ours["barrier"]["test"]["error"], theirs["barrier"][1], delta=2 * ONE_SAMPLE)
        self.assertEqual([layer["name"] for layer in ours["layers"]], sorted(theirs["layers"]))
        for layer in ours["layers"]:
            loss, error = theirs["layers"][layer["name"]]
            self.assertAlmostEqual(layer["loss"], loss, delta=1e-5)
            self.assertAlmostEqual(layer["error"], error, delta=2 * ONE_SAMPLE)
            loss, error = theirs["middle"][layer["name"]]
            self.assertAlmostEqual(layer["midpoint"]["loss"], loss, delta=1e-5)
            self.assertAlmostEqual(layer["midpoint"]["error"], error, delta=2 * ONE_SAMPLE)

    def test_noise_against_the_models_signs_and_with_them(self):
        against = self.json("valley", self.a, "--sign-ratio", "0")
        below, above = sides(against)
        self.assertGreater(above - below, 5)  # λ < 0, where every magnitude grows, is the flatter side
        self.assertAlmostEqual(100 * against["asymmetry"], below - above, places=6)
        self.assertLess(against["asymmetry_interval"][1], 0)
        with_them = self.json("valley", self.a, "--sign-ratio", "1")
        below, above = sides(with_them)
        self.assertGreater(below - above, 5)
        self.assertGreater(with_them["asymmetry_interval"][0], 0)
        self.assertEqual(with_them["sign_ratio"], 1)
        for one, other in zip(against["loss"], reversed(with_them["loss"])):
            self.assertEqual(one, other)  # the same noise, mirrored
        free = self.json("valley", self.a, "--points", "5", "--repeats", "2", "--samples", "500")
        self.assertIsNone(free["sign_ratio"])
        self.assertEqual(free["lambdas"], [-1, -0.5, 0, 0.5, 1])
        self.assertEqual(len(free["errors_by_repeat"]), 2)

    def test_bent_paths_avoid_the_barrier_and_alignment_lowers_it(self):
        line = self.json("lmc", self.a, self.b, "--points", "7", "--split", "test")
        for key in ("barrier_before", "relative_reduction", "barrier_unmended", "reduction_by_finish"):
            self.assertIsNone(line[key])
        before = line["barrier"]["test"]
        for path in ("bezier", "polygon"):
            bent = self.json("lmc", self.a, self.b, "--points", "7", "--split", "test", "--path", path, "--bend-epochs", "1")
            self.assertEqual(bent["path"], path)
            self.assertLess(bent["barrier"]["test"]["loss"], 0.2 * before["loss"])
            self.assertEqual(bent["barrier_before"]["test"], before)
            self.assertGreater(bent["relative_reduction"]["test"]["loss"], 0.8)
            self.assertEqual(bent["endpoints"], line["endpoints"])
        aligned = self.json("lmc", self.a, self.b, "--points", "7", "--split", "test", "--align", "weight_matching")
        self.assertEqual(aligned["barrier_before"]["test"], before)
        self.assertAlmostEqual(aligned["relative_reduction"]["test"]["loss"],
                               1 - aligned["barrier"]["test"]["loss"] / before["loss"], places=12)
        self.assertGreater(aligned["relative_reduction"]["test"]["loss"], 0.5)
        self.assertIsNone(aligned["relative_reduction"]["train"])
        self.assertIsNone(aligned["reduction_by_finish"])
        geodesic = self.json("lmc", self.a, self.b, "--points", "7", "--split", "test", "--path", "geodesic", "--align",
                             "weight_matching(kernel=cosine, order=forward)")
        # The ends decide as the models do; between them the geodesic mean of the same stages lies in the middle.
        for end in ("a", "b"):
            self.assertAlmostEqual(geodesic["endpoints"][end]["accuracy"], line["endpoints"][end]["accuracy"],
                                   delta=2 * ONE_SAMPLE)
        # Logits divided by a number make another loss, and the same decisions.
        self.assertIsNone(geodesic["relative_reduction"]["test"]["loss"])
        self.assertGreater(geodesic["relative_reduction"]["test"]["error"], 0.3)
        fused = self.json("fuse", self.a, self.b, "--out", self.path("f.pt"), "--pipeline",
                          "toroid+weight_matching(anchor=first, kernel=cosine, order=forward)+geodesic_mean")["fused"]
        self.assertAlmostEqual(geodesic["midpoint"]["loss"], fused["loss"], places=3)


class Landscape(Case):
    def setUp(self):
        super().setUp()
        self.config = self.write("tiny.yaml", TINY)
        self.models = [self.path(name) for name in ("a.pt", "b.pt", "c.pt")]
        for seed, path in enumerate(self.models):
            self.succeed("train", self.config, f"seed={seed}", "data.dataset.seed=3", "model.norm=batch", "--out", path)

    def test_surface_through_three_models_and_about_one(self):
        plane = self.json("surface", *self.models, "--points", "5", "--reset-batch-norm")
        self.assertEqual([model["name"] for model in plane["models"]], ["A", "B", "C"])
        for model in plane["models"]:
            evaluated = self.json("eval", model["path"])
            self.assertEqual((model["loss"], model["accuracy"]), (evaluated["loss"], evaluated["accuracy"]))
        self.assertEqual((len(plane["x"]), len(plane["y"])), (5, 5))
        for row in plane["loss"] + plane["accuracy"]:
            self.assertEqual(len(row), 5)
        about = self.json("surface", self.models[0], "--points", "5", "--range", "0.5")
        self.assertEqual(about["x"], [-0.5, -0.25, 0, 0.25, 0.5])
        self.assertEqual(about["loss"][2][2], about["models"][0]["loss"])

    def test_the_same_on_any_number_of_ranks(self):
        for words in (("valley", self.models[0], "--reset-batch-norm", "--points", "5"),
                      ("surface", *self.models, "--points", "4"),
                      ("lmc", *self.models[:2], "--points", "3", "--path", "bezier", "--layers", "--finish", "reset_batch_norm")):
            with self.subTest(words[0]):
                alone = self.json(*words)
                self.assertEqual(self.json(*words, ranks=3), alone)
        for words in (("lmc", *self.models[:2], "--points", "3", "--path", "geodesic", "--align", "weight_matching"),
                      ("lmc", *self.models[:2], "--points", "4", "--path", "polygon", "--bend-epochs", "1")):
            with self.subTest(words[-1]):
                self.assertEqual(self.json(*words, ranks=2), self.json(*words))

    def test_what_a_finish_does_is_told_from_what_an_alignment_does(self):
        words = ("lmc", *self.models[:2], "--points", "3", "--split", "test")
        given, aligned = self.json(*words), self.json(*words, "--align", "weight_matching")
        mended = self.json(*words, "--finish", "reset_batch_norm", "--layers")
        for key in ("barrier_before", "barrier_unmended"):
            self.assertEqual(mended[key]["test"], given["barrier"]["test"])
        self.assertEqual(mended["relative_reduction"], mended["reduction_by_finish"])
        self.assertNotEqual(mended["layers"], self.json(*words, "--layers")["layers"])
        both = self.json(*words, "--align", "weight_matching", "--finish", "repair")
        self.assertEqual(both["barrier_before"]["test"], given["barrier"]["test"])
        self.assertEqual(both["barrier_unmended"]["test"], aligned["barrier"]["test"])
        for unit in ("loss", "error"):
            for reduction, before in (("relative_reduction", given), ("reduction_by_finish", aligned)):
                share = both[reduction]["test"][unit]
                if before["barrier"]["test"][unit] == 0:
                    self.assertIsNone(share)
                else:
                    self.assertAlmostEqual(share, 1 - both["barrier"]["test"][unit] / before["barrier"]["test"][unit])
        text = self.succeed(*words, "--align", "weight_matching", "--finish", "repair").stdout
        self.assertIn("without the finish, on the same path: test loss", text)

    def test_a_folder_of_results(self):
        for words, figures in ((("valley", self.models[0], "--points", "3"), ("valley-loss", "valley-accuracy")),
                               (("surface", *self.models, "--points", "3"), ("surface-loss", "surface-accuracy")),
                               (("lmc", *self.models[:2], "--points", "3", "--layers"), ("lmc-loss", "lmc-error", "lmc-layers"))):
            folder = self.path("out-" + words[0])
            self.assertIn("report.html", self.succeed(*words, "--out", folder).stdout)
            for name in ["report.html", "result.json", *(f"figures/{figure}.csv" for figure in figures)]:
                self.assertTrue(os.path.exists(os.path.join(folder, name)), name)
            with open(os.path.join(folder, "result.json")) as file:
                self.assertEqual(json.load(file)["kind"], words[0])

    def test_a_geodesic_speaks_of_normalised_models(self):
        words = ("lmc", *self.models[:2], "--points", "3", "--split", "test", "--layers")
        line, geodesic = self.json(*words), self.json(*words, "--path", "geodesic")
        for one, other in zip(line["layers"], geodesic["layers"]):
            self.assertEqual(one["name"], other["name"])
        self.assertNotEqual(line["layers"], geodesic["layers"])
        self.assertNotEqual(line["sign_consistency"], geodesic["sign_consistency"])
        text = self.succeed(*words, "--path", "geodesic", "--align", "weight_matching").stdout
        self.assertIn("sign consistency of the normalised models", text)
        self.assertIn("models as given: test error", text)  # and no loss

    def test_batch_norms_on_a_bent_path_want_their_statistics(self):
        words = ("lmc", *self.models[:2], "--points", "3", "--path", "bezier", "--bend-epochs", "1", "--out", self.path("bent"))
        self.assertIn("--finish reset_batch_norm", self.succeed(*words).stderr)
        with open(self.path("bent", "result.json")) as file:
            self.assertIn("--finish reset_batch_norm", file.read())
        self.assertNotIn("--finish reset_batch_norm", self.succeed(*words, "--finish", "reset_batch_norm").stderr)

    def test_noises_are_listed(self):
        names = [plugin["name"] for plugin in self.json("list", "noise")]
        self.assertEqual(names, sorted(names))
        for name in names:
            found = self.json("valley", self.models[0], "--noise", name, "--points", "3", "--repeats", "1", "--part", "features")
            self.assertEqual(len(found["loss"]), 3)
            self.assertEqual(found["asymmetry_interval"], [None, None])
        sparse = self.json("valley", self.models[0], "--noise", "{kind: sparse, fraction: 0.5}", "--points", "3")
        self.assertEqual(len(sparse["asymmetries"]), 5)

    def test_measures_of_rounds(self):
        measures = ("analysis.measures=[{valley: {points: 5, sign_ratio: 0, samples: 50}}, {layer_barriers: {points: 3}}, "
                    "{surface: {points: 3, samples: 50}}, {barrier: {points: 3}}, "
                    "{valley: {points: 3, samples: 50, reset_batch_norm: true, as: valley_fresh}}, "
                    "{surface: {points: 3, samples: 50, reset_batch_norm: true, as: surface_fresh}}, "
                    "{layer_barriers: {points: 3, reset_batch_norm: true, as: layers_fresh}}, "
                    "{barrier: {points: 3, finish: reset_batch_norm, as: barrier_fresh}}]")
        lines = []
        for ranks in (1, 3):
            out = self.path(f"run-{ranks}")
            self.succeed("run", self.config, "--out", out, "server.rounds=1", "model.norm=batch",
                         "server.fusion=[merge_many, mean]", measures, ranks=ranks)
            with open(os.path.join(out, "analysis.jsonl")) as file:
                lines.append([json.loads(line) for line in file])
        self.assertEqual(*lines)
        line = lines[0][0]
        self.assertEqual(len(line["valley"]["lambdas"]), 5)
        self.assertEqual(line["valley"]["sign_ratio"], 0)
        self.assertIn("layers.0", line["layer_barriers"]["before"])
        self.assertGreaterEqual(line["layer_barriers"]["after"]["layers.0"]["loss"], 0)
        self.assertEqual(line["surface"]["x"], [-1, 0, 1])
        for plain, fresh in (("layer_barriers", "layers_fresh"), ("barrier", "barrier_fresh")):
            self.assertNotEqual(line[plain]["before"], line[fresh]["before"])
        self.assertNotEqual(line["surface"]["loss"], line["surface_fresh"]["loss"])
        self.assertNotEqual(line["valley"]["loss"][0], line["valley_fresh"]["loss"][0])
        with open(self.path("run-1", "rounds.jsonl")) as file:
            self.assertNotIn("valley", json.loads(file.readline()))

    def test_measures_that_do_not_fit_are_refused_before_anybody_trains(self):
        valley, fresh = "{valley: {part: batch_norm, norm: filter}}", "{barrier: {finish: reset_batch_norm}}"
        for words, says in ((("model.norm=batch", f"analysis.measures=[ladder, {valley}]"), "no filters"),
                            (("analysis.measures=[ladder, {valley: {part: tail}}]",), "tail"),
                            (("data.holdout=0", f"analysis.measures=[ladder, {fresh}]"), "data.holdout"),
                            (("model.norm=batch", "server.rounds=1", "server.fusion=[toroid, mean]",
                              f"analysis.measures=[ladder, {fresh}]"), "folds")):
            done = self.call("validate", self.config, *words)
            self.assertEqual(done.returncode, 2, done.stderr)
            for word in ("analysis.measures[1]", says):
                self.assertIn(word, done.stderr)

    def test_refuses_what_it_cannot_measure(self):
        a, b, c = self.models
        mistakes = (
            (("valley", a, "--noise", "gausian"), ["gausian", "gaussian", "sparse"]),
            (("valley", a, "--noise", "{kind: sparse, fraction: 2}"), ["fraction"]),
            (("valley", a, "--part", "tail"), ["tail", "classifier", "layers.0"]),
            (("valley", a, "--part", "layers.0.bias", "--norm", "filter"), ["no filters", "global"]),
            (("valley", a, "--sign-ratio", "1.5"), ["--sign-ratio"]),
            (("surface", a, b), ["three models", "2 were given"]),
            (("surface", a, b, b), ["on one line"]),
            (("lmc", a, b, "--out", c), ["is a file"]),
            (("lmc", a, b, "--points", "2"), ["--points"]),  # nothing between the ends
            (("lmc", a, b, "--path", "arc"), ["--path", "geodesic"]),
            (("lmc", a, b, "--path", "geodesic", "--finish", "repair"), ["folds batch norms"]))
        for ranks in (1, 2):
            for (words, says), refused in zip(mistakes, self.calls([words for words, _ in mistakes], ranks=ranks)):
                self.assertEqual(refused.returncode, 1 if words == ("surface", a, b, b) else 2, f"{words}: {refused.stderr}")
                for word in says:
                    self.assertIn(word, refused.stderr)
        other = self.path("other.pt")
        self.succeed("train", self.config, "model.hidden=[9, 9]", "data.dataset.seed=3", "--out", other)
        for command in (("lmc", a, other, "--path", "bezier"), ("surface", a, b, other)):
            failed = self.call(*command)
            self.assertIn(failed.returncode, (1, 2))
            self.assertIn("other.pt", failed.stderr)


if __name__ == "__main__":
    unittest.main()
