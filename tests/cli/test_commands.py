"""Every command once, on tiny data: exit codes, files, and the JSON fields other programs rely on."""
import json
import os
import shutil
import subprocess
import sys
import unittest

from support import PROGRAM, SPEECHES, TEXT, TINY, Case


class Run(Case):
    def test_ends_with_the_ladder_and_the_folder(self):
        config = self.write("tiny.yaml", TINY)
        done = self.succeed("run", config, "--out", self.path("run"))
        for word in ("client 0 alone", "merge_many+sign_alignment+mean+repair", "ensemble", self.path("run")):
            self.assertIn(word, done.stdout)
        for name in ("config.yaml", "manifest.json", "rounds.jsonl", "final.pt"):
            self.assertTrue(os.path.exists(self.path("run", name)), name)

    def test_rounds_have_the_promised_fields(self):
        config = self.write("tiny.yaml", TINY)
        self.succeed("run", config, "--out", self.path("run"))
        with open(self.path("run", "rounds.jsonl")) as file:
            lines = [json.loads(line) for line in file]
        self.assertEqual([line["round"] for line in lines], [1, 2])
        for line in lines:
            self.assertEqual(line["cohort"], [0, 1, 2, 3, 4])
            self.assertGreater(line["train"]["loss"], 0)
            self.assertTrue(0 <= line["test"]["accuracy"] <= 1)
            names = [stage["name"] for stage in line["fusion"]["stages"]]
            self.assertEqual(names, ["merge_many", "sign_alignment", "mean", "repair"])
            self.assertEqual(set(line["seconds"]), {"clients", "fusion", "evaluation", "total", "ranks"})
            self.assertEqual(len(line["seconds"]["ranks"]), 1)
            self.assertGreater(line["bytes"]["up"], 0)
            for stage in line["fusion"]["stages"]:
                self.assertEqual(stage["bytes"], 0)  # one process sends nothing
            self.assertTrue(0 < line["sign_consistency"]["client_global"] <= 1)
            self.assertLessEqual(line["barrier"]["after"]["loss"], 10)
            self.assertEqual(len(line["variance_ratio"]["after"]), 2)
        self.assertEqual(lines[0]["bytes"]["down"], 0)  # nobody is sent a model they start without
        self.assertGreater(lines[1]["bytes"]["down"], 0)

    def test_json_is_one_document(self):
        config = self.write("tiny.yaml", TINY)
        result = self.json("run", config, "--out", self.path("run"), "server.rounds=1")
        self.assertEqual(len(result["rounds"]), 1)

    def test_takes_the_first_free_folder(self):
        config = self.write("tiny.yaml", TINY)
        self.succeed("run", config, "server.rounds=1")
        self.succeed("run", config, "server.rounds=1")
        self.assertTrue(os.path.exists(self.path("runs", "tiny", "final.pt")))
        self.assertTrue(os.path.exists(self.path("runs", "tiny-2", "final.pt")))

    def test_diverged_clients_fail_the_round(self):
        config = self.write("tiny.yaml", TINY)
        words = ["clients.algorithm={kind: sgd, lr: 1.0e+30}", "server.fusion=[mean]", "analysis.measures=[]",
                 "server.rounds=1"]
        failed = self.call("run", config, "--out", self.path("a"), *words)
        self.assertEqual(failed.returncode, 1)
        self.assertRegex(failed.stderr, r"client \d+ .*round 1.*step \d+")
        gone_on = self.call("run", config, "--out", self.path("b"), "clients.on_failure=continue", *words)
        self.assertEqual(gone_on.returncode, 1)
        self.assertIn("every client", gone_on.stderr)

    def test_run_goes_on_without_a_diverged_client(self):
        config = self.write("tiny.yaml", TINY)
        # One batch a client and a rate that only the second step does not survive: clients of one batch stay.
        result = self.json("run", config, "--out", self.path("run"), "clients.algorithm={kind: sgd, lr: 1.0e+30}",
                           "data.partition={scheme: quantity, clients: 5, sigma: 1.5}", "clients.batch_size=60",
                           "clients.epochs=1", "clients.on_failure=continue", "server.fusion=[mean]",
                           "analysis.measures=[]", "server.rounds=1")
        line = result["rounds"][0]
        self.assertGreater(len(line["failures"]), 0)
        self.assertEqual(len(line["failures"]) + len(line["cohort"]), 5)
        self.assertTrue(os.path.exists(self.path("run", "final.pt")))
        last_step = self.call("run", config, "--out", self.path("b"), "clients.algorithm={kind: sgd, lr: 1.0e+39}",
                              "clients.steps=1", "server.fusion=[mean]", "analysis.measures=[]")
        self.assertEqual(last_step.returncode, 1)
        self.assertRegex(last_step.stderr, r"client \d+ diverged in round 1 at step 1 of 1")


class Models(Case):
    def setUp(self):
        super().setUp()
        self.config = self.write("tiny.yaml", TINY)
        for seed, name in ((1, "a.pt"), (2, "b.pt")):
            # One data set, two initialisations.
            self.succeed("train", self.config, f"seed={seed}", "data.dataset.seed=3", "clients.epochs=4", "--out", self.path(name))

    def test_eval(self):
        result = self.json("eval", self.path("a.pt"))
        self.assertEqual(result["samples"], 200)
        self.assertGreater(result["accuracy"], 0.5)
        both = self.json("eval", self.path("a.pt"), "--split", "both")
        self.assertEqual(both["test"], result)
        self.assertEqual(both["train"]["samples"], 600)

    def test_align_keeps_the_function_and_gets_closer(self):
        for method in ("weight_matching", "activation_matching"):
            result = self.json("align", self.path("a.pt"), self.path("b.pt"), "--method", method, "--out",
                               self.path("b2.pt"))
            self.assertEqual(result["method"], method)
            self.assertEqual([group["size"] for group in result["groups"]], [16, 12])
            before = self.json("eval", self.path("b.pt"))
            after = self.json("eval", self.path("b2.pt"))
            self.assertAlmostEqual(before["loss"], after["loss"], places=5)
            if method == "weight_matching":
                self.assertLess(result["distance_after"], result["distance_before"])

    def test_lmc(self):
        result = self.json("lmc", self.path("a.pt"), self.path("b.pt"), "--points", "5", "--align", "weight_matching",
                           "--finish", "repair")
        self.assertEqual(result["lambdas"], [0, 0.25, 0.5, 0.75, 1])
        for split in ("train", "test"):
            self.assertEqual(len(result[split]["loss"]), 5)
            self.assertGreaterEqual(result["barrier"][split]["loss"], 0)
        self.assertEqual(len(result["variance_ratio"]), 2)
        self.assertIn("accuracy", result["midpoint"])
        end = self.json("eval", self.path("a.pt"))
        self.assertAlmostEqual(result["endpoints"]["a"]["loss"], end["loss"], places=9)
        self.assertIn("barrier", self.succeed("lmc", self.path("a.pt"), self.path("b.pt")).stdout)

    def test_signs(self):
        same = self.json("signs", self.path("a.pt"), self.path("a.pt"))
        self.assertEqual(same["overall"], 1)
        other = self.json("signs", self.path("a.pt"), self.path("b.pt"))
        self.assertTrue(0.3 < other["overall"] < 0.7)
        self.assertEqual(len(other["tensors"]), 6)

    def test_fuse(self):
        result = self.json("fuse", self.path("a.pt"), self.path("b.pt"), "--pipeline",
                           "weight_matching(anchor=first)+mean(weights=samples)+repair", "--weights", "3,1", "--out",
                           self.path("f.pt"))
        self.assertEqual(len(result["inputs"]), 2)
        self.assertEqual([stage["name"] for stage in result["stages"]], ["weight_matching", "mean", "repair"])
        again = self.json("eval", self.path("f.pt"))
        self.assertAlmostEqual(again["accuracy"], result["fused"]["accuracy"])

    def test_commands_on_three_ranks_say_the_same(self):
        for words in (("eval", self.path("a.pt")),
                      ("lmc", self.path("a.pt"), self.path("b.pt"), "--points", "5", "--finish", "repair"),
                      ("signs", self.path("a.pt"), self.path("b.pt"))):
            self.assertEqual(self.json(*words), self.json(*words, ranks=3), words)
        one = self.json("fuse", self.path("a.pt"), self.path("b.pt"), "--pipeline", "merge_many+mean+repair", "--out",
                        self.path("f1.pt"))
        three = self.json("fuse", self.path("a.pt"), self.path("b.pt"), "--pipeline", "merge_many+mean+repair",
                          "--out", self.path("f3.pt"), ranks=3)
        self.assertEqual(one["fused"], three["fused"])
        self.assertEqual(self.bytes_of("f1.pt"), self.bytes_of("f3.pt"))

    def test_agrees_with_python(self):
        python = next((name for name in (sys.executable, "/usr/bin/python3", "python3")
                       if shutil.which(name) and subprocess.run([name, "-c", "import torch"], stderr=subprocess.DEVNULL,
                                                                timeout=120).returncode == 0), None)
        if python is None:
            self.skipTest("no Python here can import torch (apt install python3-torch)")
        # Accuracy and loss on Fashion-MNIST by an independent reader of the data and forward pass.
        self.succeed("train", self.config, "data.dataset=fashion_mnist", "data.partition.clients=1", "clients.steps=150",
                     "clients.batch_size=64", "model={kind: mlp, hidden: [32], norm: batch}", "--out",
                     self.path("fashion.pt"))
        ours = self.json("eval", self.path("fashion.pt"))
        script = os.path.join(os.path.dirname(__file__), "forward_in_python.py")
        theirs = json.loads(subprocess.check_output([python, script, self.path("fashion.pt")], text=True))
        self.assertAlmostEqual(ours["accuracy"], theirs["accuracy"], places=9)
        self.assertAlmostEqual(ours["loss"], theirs["loss"], places=5)


class Others(Case):
    def test_validate_prints_what_it_would_run(self):
        config = self.write("tiny.yaml", TINY)
        resolved = self.succeed("validate", config, "clients.epochs=7").stdout
        self.assertIn("epochs: 7", resolved)
        again = self.succeed("validate", self.write("resolved.yaml", resolved)).stdout
        self.assertEqual(resolved, again)
        self.assertEqual(self.json("validate", config)["clients"]["algorithm"]["lr"], 0.01)

    def test_partition(self):
        config = self.write("tiny.yaml", TINY)
        result = self.json("partition", config)
        self.assertEqual(len(result["clients"]), 5)
        self.assertEqual(sum(client["samples"] for client in result["clients"]), 540)
        for client in result["clients"]:
            self.assertEqual(sum(client["labels"]), client["samples"])
        self.assertIn("5 clients, 540 samples", self.succeed("partition", config, "--clients", "2").stdout)

    def test_partition_by_speaker(self):
        self.write("play.txt", SPEECHES)
        config = self.write("text.yaml", TEXT)
        result = self.json("partition", config)
        self.assertEqual([client["name"] for client in result["clients"]], ["ANNA", "BERT", "CARL"])
        self.assertGreater(result["classes"], 65)
        self.assertEqual(len(result["clients"][0]["labels"]), result["classes"])
        self.assertGreater(result["clients"][0]["samples"], 1.8 * result["clients"][1]["samples"])
        shown = self.succeed("partition", config).stdout
        self.assertRegex(shown, r"(?m)^client +name +samples +labels +most frequent$")
        self.assertRegex(shown, r"(?m)^ +0 +ANNA +\d+ +\d+ +'.{1,2}' \d+%, '.{1,2}' \d+%")
        self.assertLess(max(map(len, shown.splitlines())), 100)
        blocks = self.json("partition", config, "data.dataset.clients_by=block", "data.partition.clients=9")
        self.assertEqual(len(blocks["clients"]), 9)
        self.assertNotIn("name", blocks["clients"][0])
        sizes = [client["samples"] for client in blocks["clients"]]
        self.assertLess(max(sizes) / min(sizes), 1.5)
        failed = self.call("partition", config, "data.partition.clients=4")
        self.assertEqual(failed.returncode, 2)
        self.assertIn("4 clients are more than the 3 speakers", failed.stderr)

    def test_list(self):
        everything = self.succeed("list").stdout
        for word in ("weight_matching", "dirichlet", "fedprox", "fashion_mnist", "mlp"):
            self.assertIn(word, everything)
        self.assertIn("default", self.succeed("list", "stage", "repair").stdout)
        self.assertTrue(all(plugin["help"] for plugin in self.json("list")))

    def test_help_shows_an_example(self):
        for command in "run validate list partition train eval align fuse lmc signs symmetry".split():
            done = self.succeed(command, "--help")
            self.assertIn("Example", done.stdout, command)
        self.assertEqual(self.call().returncode, 2)

    def test_python_reads_exports(self):
        config = self.write("tiny.yaml", TINY)
        self.succeed("partition", config, "--export", self.path("plan.pt"))
        self.assertGreater(os.path.getsize(self.path("plan.pt")), 1000)


if __name__ == "__main__":
    unittest.main()
