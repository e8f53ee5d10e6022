"""`compare`, server optimizers that remember, and fusing files with a base or of several widths."""
import csv
import json
import os
import signal
import subprocess
import time
import unittest

from support import ENVIRONMENT, TINY, Case, command_line

PIPELINES = "mean; weight_matching+mean; merge_many+mean+repair;"


class Compare(Case):
    def setUp(self):
        super().setUp()
        self.config = self.write("tiny.yaml", TINY)

    def test_table_names_every_pipeline_and_the_marks(self):
        done = self.succeed("compare", self.config, "--pipelines", PIPELINES, "--seeds", 3)
        for word in ("ensemble of logits", "3 seeds"):
            self.assertIn(word, done.stdout)
        lines = {line.split("  ")[0]: line for line in done.stdout.splitlines()}
        for pipeline in ("mean", "weight_matching+mean", "merge_many+mean+repair"):
            self.assertRegex(lines[pipeline], r"\d ± \d")
        self.assertRegex(lines["weight_matching+mean"], r"[+−]\d+\.\d\d \[[+−]\d+\.\d\d, [+−]\d+\.\d\d\]")
        once = self.succeed("compare", self.config, "--pipelines", "mean; median")
        self.assertNotIn("±", once.stdout.split("One seed")[0])

    def test_json_and_csv_hold_the_same_rows_on_any_ranks(self):
        words = ["compare", self.config, "--pipelines", PIPELINES, "--seeds", 2]
        once = self.json(*words, "--csv", self.path("rows.csv"))
        again = self.json(*words, ranks=3)
        self.assertEqual(len(once["rows"]), 2 * 2 * 3)
        for one, other in zip(once["rows"], again["rows"]):
            for key in ("seed", "round", "pipeline", "accuracy", "loss", "barrier", "variance_ratio"):
                self.assertEqual(one[key], other[key])
        with open(self.path("rows.csv"), newline="") as file:
            rows = list(csv.DictReader(file))
        self.assertEqual([float(row["accuracy"]) for row in rows], [row["accuracy"] for row in once["rows"]])
        first = once["pipelines"][0]
        self.assertEqual(first["difference"]["accuracy"], {"mean": 0, "low": 0, "high": 0})
        self.assertEqual([float(row["difference_loss"]) for row in rows],
                         [row["loss"] - once["rows"][i // 3 * 3]["loss"] for i, row in enumerate(once["rows"])])
        last = [row["accuracy"] for row in once["rows"] if row["round"] == 2 and row["pipeline"] == "mean"]
        self.assertAlmostEqual(first["accuracy"]["mean"], sum(last) / len(last))

    def test_what_the_configuration_says_is_the_default(self):
        config = self.write("own.yaml", TINY + "compare: {pipelines: [mean, median], seeds: 2, follow: median}\n")
        result = self.json("compare", config)
        self.assertEqual([item["pipeline"] for item in result["pipelines"]], ["mean", "median"])
        self.assertEqual((result["seeds"], result["follow"]), (2, "median"))
        self.assertEqual(self.json("compare", config, "--follow", "each", "--seeds", 1)["follow"], "each")

    def test_a_list_of_pipelines_replaces_what_the_configuration_follows(self):
        config = self.write("own.yaml", TINY + "compare: {pipelines: [mean, median], follow: median}\n")
        self.assertEqual(self.json("compare", config, "--pipelines", "mean; krum")["follow"], "mean")
        spaced = self.json("compare", config, "--pipelines", "mean; merge_many + mean", "--follow", "merge_many+mean")
        self.assertEqual(spaced["follow"], "merge_many + mean")

    def test_ctrl_c_leaves_the_seeds_that_were_finished(self):
        words = ["compare", self.config, "--pipelines", "mean; median", "--seeds", 9000, "--csv", self.path("rows.csv"),
                 "--out", self.path("c")]
        running = subprocess.Popen(command_line(*words), env=ENVIRONMENT, cwd=self.folder, stdout=subprocess.PIPE,
                                   stderr=subprocess.PIPE, text=True)
        deadline = time.monotonic() + 60
        while not os.path.exists(self.path("rows.csv")) and time.monotonic() < deadline:
            time.sleep(0.05)
        running.send_signal(signal.SIGINT)
        out, err = running.communicate(timeout=60)
        self.assertEqual(running.returncode, 130, err)
        self.assertIn("seeds that were finished", err)
        self.assertIn("median", out)
        # Nothing is drawn while somebody waits for the end, but all is kept that drawing needs.
        self.assertIn("thalweg report " + self.path("c"), err)
        self.assertFalse(os.path.exists(self.path("c", "report.html")))
        self.succeed("report", "c")
        self.assertTrue(os.path.exists(self.path("c", "report.html")))
        with open(self.path("rows.csv"), newline="") as file:
            self.assertGreaterEqual(len(list(csv.DictReader(file))), 4)

    def test_a_report_is_left_where_nobody_said_where(self):
        words = ["compare", self.config, "--pipelines", "mean; median", "server.rounds=1"]
        for name in ("tiny-compare", "tiny-compare-2"):
            self.assertIn(os.path.join("runs", name, "report.html"), self.succeed(*words).stderr)
            self.assertTrue(os.path.exists(self.path("runs", name, "report.html")))
        with open(self.path("file"), "w", encoding="utf-8"):
            pass
        os.rename(self.path("runs"), self.path("elsewhere"))
        os.rename(self.path("file"), self.path("runs"))  # no folder can be made there
        done = self.succeed(*words)
        self.assertIn("median", done.stdout)
        self.assertIn("no report", done.stderr)

    def test_figures_that_cannot_be_written_lose_no_result(self):
        os.makedirs(self.path("c"))
        with open(self.path("c", "figures"), "w", encoding="utf-8"):
            pass  # a file where the folder should be
        done = self.succeed("compare", self.config, "--pipelines", "mean; median", "server.rounds=1", "--out", "c")
        self.assertIn("median", done.stdout)
        self.assertIn("could not be drawn", done.stderr)
        os.remove(self.path("c", "figures"))
        self.succeed("report", "c")
        self.assertTrue(os.path.exists(self.path("c", "report.html")))

    def test_a_pipeline_that_fails_is_said_and_the_others_stay(self):
        words = ["compare", self.config, "model.activation=tanh", "server.rounds=1", "--pipelines"]
        result = self.json(*words, "mean; toroid+geodesic_mean")
        self.assertIn("homogeneous", result["rows"][1]["error"])
        self.assertIsNone(result["pipelines"][1]["accuracy"]["mean"])
        failed = self.call(*words, "toroid+geodesic_mean")
        self.assertEqual(failed.returncode, 1)
        self.assertIn("no pipeline could be run", failed.stderr)

    def test_wrong_use_is_said(self):
        for words, said in (
                (["--pipelines", "mean; meen"], "meen"),
                (["--pipelines", "weight_matching"], "no reduction"),
                ([], "--pipelines"),
                (["--pipelines", "mean", "--follow", "median"], "--follow"),
                (["--pipelines", "ties"], "clients.init: shared"),
                (["--pipelines", "mean; mean"], "twice"),
                (["compare.pipelines=[mean, meen]"], "meen"),
                (["--pipelines", "attack(clients=[99])+mean"], "client 99"),
                (["--pipelines", "mean", "--csv", self.path("no", "rows.csv")], "no folder")):
            failed = self.call("compare", self.config, *words)
            self.assertEqual(failed.returncode, 2, words)
            self.assertIn(said, failed.stderr, words)


class Remember(Case):
    def test_a_server_optimizer_goes_on_to_the_bit(self):
        config = self.write("tiny.yaml", TINY)
        words = ["server.optimizer={kind: fedadam, lr: 0.05}", "server.fusion=[mean]", "analysis.measures=[]",
                 "clients.init=shared", "server.rounds=4"]
        self.succeed("run", config, "--out", self.path("whole"), *words)
        # As if the run had been killed after round 2.
        words_kept = [*words, "record.keep_checkpoints=0"]
        self.succeed("run", config, "--out", self.path("kept"), *words_kept)
        for round in (3, 4):
            for ending in ("pt", "server.pt"):
                os.remove(self.path("kept", "checkpoints", f"round-0000{round}.{ending}"))
        os.remove(self.path("kept", "final.pt"))
        self.succeed("run", config, "--out", self.path("kept"), "--resume", *words_kept, ranks=2)
        self.assertEqual(self.bytes_of("kept", "final.pt"), self.bytes_of("whole", "final.pt"))

    def test_a_checkpoint_without_its_memory_is_not_used(self):
        config = self.write("tiny.yaml", TINY)
        words = ["server.optimizer=fedavgm", "server.fusion=[mean]", "analysis.measures=[]", "clients.init=shared",
                 "server.rounds=3", "record.keep_checkpoints=0"]
        self.succeed("run", config, "--out", self.path("run"), *words)
        whole = self.bytes_of("run", "final.pt")
        os.remove(self.path("run", "final.pt"))
        os.remove(self.path("run", "checkpoints", "round-00003.server.pt"))
        done = self.succeed("run", config, "--out", self.path("run"), "--resume", *words)
        self.assertIn("missing", done.stderr)
        self.assertEqual(self.bytes_of("run", "final.pt"), whole)


    def test_a_memory_that_is_gone_starts_over_as_a_new_run_does(self):
        config = self.write("tiny.yaml", TINY)
        words = ["server.optimizer=fedavgm", "server.fusion=[mean]", "analysis.measures=[]",
                 "clients.init=independent", "server.rounds=2", "record.keep_checkpoints=1"]
        self.succeed("run", config, "--out", self.path("run"), *words)
        whole = self.bytes_of("run", "final.pt")
        os.remove(self.path("run", "final.pt"))
        os.remove(self.path("run", "checkpoints", "round-00002.server.pt"))
        done = self.succeed("run", config, "--out", self.path("run"), "--resume", *words, ranks=2)
        self.assertIn("starting over", done.stderr)
        self.assertEqual(self.bytes_of("run", "final.pt"), whole)


class Fuse(Case):
    def test_weights_that_nothing_reads_are_refused(self):
        config = self.write("tiny.yaml", TINY)
        for name, seed in (("a", 2), ("b", 3), ("c", 4)):
            self.succeed("train", config, f"seed={seed}", "data.dataset.seed=5", "clients.steps=2", "--out", self.path(name + ".pt"))
        words = ["fuse", *(self.path(name + ".pt") for name in "abc"), "--weights", "1,10,100", "--out",
                 self.path("f.pt"), "--pipeline"]
        refused = self.call(*words, "trimmed_mean")
        self.assertEqual(refused.returncode, 2)
        self.assertIn("--weights", refused.stderr)
        self.succeed(*words, "mean")

    def test_task_vectors_need_their_base(self):
        config = self.write("tiny.yaml", TINY)
        for name, seed in (("base", 1), ("a", 2), ("b", 3)):
            self.succeed("train", config, f"seed={seed}", "clients.epochs=1", "--out", self.path(name + ".pt"))
        words = ["fuse", self.path("a.pt"), self.path("b.pt"), "--pipeline", "ties", "--out", self.path("f.pt"),
                 "--data", "gaussian_mixture"]
        failed = self.call(*words)
        self.assertEqual(failed.returncode, 2)
        self.assertIn("--base", failed.stderr)
        data = "{kind: gaussian_mixture, classes: 4, dimension: 12, train: 600, test: 200, separation: 3, seed: 3}"
        words[-1] = data
        fused = self.json(*words, "--base", self.path("base.pt"))
        self.assertGreater(fused["fused"]["accuracy"], 0)

    def test_models_of_several_widths(self):
        config = self.write("tiny.yaml", TINY)
        data = "data.dataset.seed=5"
        for name, hidden in (("wide", "[16, 12]"), ("narrow", "[8, 6]")):
            self.succeed("train", config, data, f"model.hidden={hidden}", "--out", self.path(name + ".pt"))
        files = [self.path("wide.pt"), self.path("narrow.pt")]
        refused = self.call("fuse", *files, "--pipeline", "mean", "--out", self.path("f.pt"))
        self.assertEqual(refused.returncode, 1)
        for pipeline in ("optimal_transport+mean", "matched_averaging+mean"):
            once = self.json("fuse", *files, "--pipeline", pipeline, "--out", self.path("one.pt"))
            self.json("fuse", *files, "--pipeline", pipeline, "--out", self.path("two.pt"), ranks=2)
            self.assertEqual(self.bytes_of("one.pt"), self.bytes_of("two.pt"))
            self.assertGreater(once["fused"]["accuracy"], 0.5, pipeline)
        grown = self.json("fuse", *files, "--pipeline", "matched_averaging(grow=true)+mean", "--out", self.path("g.pt"))
        checked = self.json("eval", self.path("g.pt"))
        self.assertEqual(checked["accuracy"], grown["fused"]["accuracy"])


if __name__ == "__main__":
    unittest.main()
