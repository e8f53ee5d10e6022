"""Bad input of every sort: one clear paragraph on stderr, exit code 1 or 2, soon, alone and on three ranks."""
import gzip
import os
import shutil
import time
import unittest

from support import TINY, Case

FASHION = "/usr/share/datasets/fashion-mnist"


class BadInput(Case):
    slowest = (0.0, "")

    @classmethod
    def tearDownClass(cls):
        print(f"slowest rejection: {cls.slowest[0]:.1f} s, {cls.slowest[1]}", flush=True)

    def setUp(self):
        super().setUp()
        self.config = self.write("tiny.yaml", TINY)

    def reject(self, *words, says, code=(1, 2)):
        """The call fails as it should, alone and on three ranks, and its message holds every one of `says`."""
        for ranks in (1, 3):
            start = time.monotonic()
            done = self.call(*words, ranks=ranks, timeout=30)
            seconds = time.monotonic() - start
            BadInput.slowest = max(BadInput.slowest, (seconds, f"{ranks} ranks: {' '.join(map(str, words))}"))
            text = f"{words} on {ranks}: exit code {done.returncode}, {seconds:.1f} s\n{done.stdout}\n{done.stderr}"
            self.assertIn(done.returncode, code, text)
            self.assertLess(seconds, 20, text)  # far under it in practice; machines under load are slow
            ours = [line for line in done.stderr.splitlines() if line.startswith("thalweg: error:")]
            self.assertEqual(len(ours), 1, text)
            for word in says:
                self.assertIn(word, ours[0], text)
            if ranks == 1:  # mpirun itself may say on stdout that a rank failed, and how on stderr
                self.assertEqual(done.stdout, "", text)
                self.assertTrue(all(line.startswith("thalweg: ") for line in done.stderr.splitlines()), text)
            deadline = time.monotonic() + 10  # Open MPI 5's mpirun may go before the last of its ranks
            while self.left_behind() and time.monotonic() < deadline:
                time.sleep(0.05)
            self.assertEqual(self.left_behind(), [], text)

    def left_behind(self):
        """Processes of this program that still run in the test's folder."""
        found = []
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                if os.readlink(f"/proc/{pid}/cwd") == os.path.realpath(self.folder):
                    with open(f"/proc/{pid}/comm") as file:
                        found += [pid] if file.read().strip() == "thalweg" else []
            except OSError:
                pass  # ended meanwhile, or not ours to look at
        return found

    def test_unknown_key(self):
        self.reject("run", self.config, "clients.epoch=3", says=["clients.epoch", "epochs"], code=(2,))

    def test_unknown_key_in_the_file_has_a_place(self):
        path = self.write("bad.yaml", TINY.replace("  batch_size: 20", "  batchsize: 20"))
        self.reject("run", path, says=["bad.yaml:12:3", "batchsize", "batch_size"], code=(2,))

    def test_wrong_type(self):
        self.reject("run", self.config, "clients.epochs=many", says=["clients.epochs", "integer"], code=(2,))

    def test_impossible_value(self):
        self.reject("run", self.config, "data.partition={scheme: dirichlet, clients: 5, alpha: -1}",
                    says=["data.partition.alpha"], code=(2,))

    def test_unknown_plugin(self):
        self.reject("run", self.config, "server.fusion=[weigth_matching, mean]", says=["weight_matching"], code=(2,))

    def test_more_shards_than_samples(self):
        self.reject("run", self.config, "data.partition={scheme: shards, clients: 5, shards_per_client: 400}",
                    says=["shards"], code=(2,))

    def test_more_clients_than_samples(self):
        self.reject("run", self.config, "data.partition.clients=5000", says=["clients", "5000"], code=(2,))

    def test_stage_that_needs_data_without_any(self):
        self.reject("run", self.config, "data.holdout=0", "server.fusion=[activation_matching, mean]",
                    says=["activation_matching", "data.holdout"], code=(2,))

    def test_pipeline_without_reduction(self):
        self.reject("run", self.config, "server.fusion=[weight_matching]", says=["server.fusion"], code=(2,))

    def test_not_yaml(self):
        self.reject("run", self.write("broken.yaml", "data: [1, 2\nmodel: }{"), says=["broken.yaml"], code=(2,))

    def test_missing_configuration(self):
        self.reject("run", self.path("none.yaml"), says=["none.yaml"], code=(2, 1))

    def test_missing_data(self):
        self.reject("run", self.config, "data.dataset={kind: mnist, path: /nowhere/mnist}", says=["/nowhere/mnist"])

    def test_truncated_data(self):
        if not os.path.isdir(FASHION):
            self.skipTest("Fashion-MNIST is not installed")
        copy = self.path("fashion")
        shutil.copytree(FASHION, copy)
        victim = os.path.join(copy, "train-images-idx3-ubyte.gz")
        with open(victim, "rb") as file:
            content = file.read()
        with open(victim, "wb") as file:
            file.write(content[: len(content) // 2])
        words = ("run", self.config, "data.dataset={kind: fashion_mnist, path: %s}" % copy, "data.partition.clients=2")
        self.reject(*words, says=["train-images-idx3-ubyte"])
        with gzip.open(victim, "wb", compresslevel=1) as file:  # right length, wrong magic
            file.write(b"\0\0\x0d\x03" + gzip.decompress(content)[4:])
        self.reject(*words, says=["train-images-idx3-ubyte"])

    def test_corrupted_model(self):
        self.succeed("train", self.config, "--out", self.path("m.pt"))
        content = bytearray(self.bytes_of("m.pt"))
        middle = len(content) // 2
        content[middle:middle + 64] = bytes(64 * [0xA5])
        with open(self.path("bad.pt"), "wb") as file:
            file.write(content)
        self.reject("eval", self.path("bad.pt"), says=["bad.pt"])
        with open(self.path("short.pt"), "wb") as file:
            file.write(content[:100])
        self.reject("eval", self.path("short.pt"), says=["short.pt"])
        self.reject("eval", self.path("none.pt"), says=["none.pt"])

    def test_mismatched_architectures(self):
        self.succeed("train", self.config, "--out", self.path("a.pt"))
        self.succeed("train", self.config, "model.hidden=[16, 13]", "--out", self.path("b.pt"))
        for words in (("lmc", self.path("a.pt"), self.path("b.pt")), ("signs", self.path("a.pt"), self.path("b.pt")),
                      ("fuse", self.path("a.pt"), self.path("b.pt"), "--out", self.path("f.pt")),
                      ("align", self.path("a.pt"), self.path("b.pt"), "--out", self.path("f.pt"))):
            self.reject(*words, says=["a.pt", "b.pt"])

    def test_nan_in_a_model(self):
        self.succeed("train", self.config, "--out", self.path("a.pt"))
        self.succeed("train", self.config, "clients.algorithm={kind: sgd, lr: 0.01}", "--out", self.path("b.pt"))
        # A NaN in the middle of the first tensor's bytes, CRC made good: through Python's torch when it is here.
        import subprocess
        script = ("import torch,sys; m=torch.load(sys.argv[1]); "
                  "next(iter(m['state_dict'].values())).view(-1)[3]=float('nan'); torch.save(m, sys.argv[2])")
        made = subprocess.run(["/usr/bin/python3", "-c", script, self.path("b.pt"), self.path("nan.pt")],
                              stderr=subprocess.PIPE, text=True)
        if made.returncode:
            self.skipTest("no Python here can import torch (apt install python3-torch)")
        self.reject("fuse", self.path("a.pt"), self.path("nan.pt"), "--out", self.path("f.pt"), says=["nan.pt", "finite"])
        self.reject("eval", self.path("nan.pt"), says=["nan.pt"])

    def test_unwritable_output(self):
        self.reject("train", self.config, "--out", "/nowhere/at/all/m.pt", says=["/nowhere/at/all"])
        with open(self.path("file"), "w"):
            pass
        self.reject("run", self.config, "--out", self.path("file", "run"), says=["file"])

    def test_folder_that_holds_a_run(self):
        self.succeed("run", self.config, "server.rounds=1", "--out", self.path("run"))
        self.reject("run", self.config, "--out", self.path("run"), says=["--resume"], code=(2,))

    def test_resume_with_another_configuration(self):
        self.succeed("run", self.config, "server.rounds=1", "--out", self.path("run"))
        self.reject("run", self.config, "clients.epochs=5", "--resume", "--out", self.path("run"),
                    says=["clients.epochs", "2", "5", "server.rounds"], code=(2,))

    def test_resume_of_nothing(self):
        self.reject("run", self.config, "--resume", "--out", self.path("none"), says=["none"], code=(2,))

    def test_wrong_command_line(self):
        self.reject("run", says=["CONFIG"], code=(2,))
        self.reject("runn", self.config, says=["runn", "did you mean 'run'"], code=(2,))
        self.reject("run", self.config, "--no-such-flag", says=["no-such-flag"], code=(2,))
        self.reject("lmc", "a.pt", "b.pt", "--points", "1", says=["points"], code=(2,))

    def test_pipelines_on_the_command_line(self):
        self.succeed("train", self.config, "--out", self.path("a.pt"))
        models = (self.path("a.pt"), self.path("a.pt"), "--out", self.path("f.pt"))
        self.reject("fuse", *models, "--pipeline", "mean+weight_matching", says=["weight_matching"], code=(2,))
        self.reject("fuse", *models, "--pipeline", "mean(wieghts=uniform)", says=["weights"], code=(2,))
        self.reject("fuse", *models, "--weights", "1,2,3", says=["--weights"], code=(2,))
        self.reject("fuse", *models, "--pipeline", "mean+repair(statistics=clients)", says=["clients"], code=(2,))

    def test_data_that_does_not_fit_the_model(self):
        self.succeed("train", self.config, "--out", self.path("a.pt"))
        self.reject("eval", self.path("a.pt"), "--data", "fashion_mnist", says=["fashion_mnist", "a.pt"])

    def test_kernel_larger_than_the_image(self):
        self.reject("run", self.config, "data.dataset=fashion_mnist",
                    "model={kind: cnn, layers: [{conv: 4, kernel: 40}]}", says=["conv1"], code=(2,))

    def test_diverging_client_names_itself(self):
        self.reject("run", self.config, "clients.algorithm={kind: sgd, lr: 1.0e+30}", says=["client", "round 1", "step"], code=(1,))


if __name__ == "__main__":
    unittest.main()
