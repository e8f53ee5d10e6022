"""The live page: of a run and of a folder, under clients of every kind, and in a real browser where there is one."""
import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import unittest

from support import ENVIRONMENT, Case, command_line

sys.path.append("/usr/lib/python3/dist-packages")  # Debian's python3-selenium, whichever Python runs the tests
try:
    from selenium import webdriver
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import WebDriverWait
except ImportError:
    webdriver = None
BROWSER, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")

# Some twenty rounds a second, for as long as a test lasts.
CONFIG = """
name: live
seed: 3
data:
  dataset: {kind: gaussian_mixture, classes: 4, dimension: 12, train: 6000, test: 200, separation: 2}
  partition: {scheme: iid, clients: 5}
model: {kind: mlp, hidden: [16, 12]}
clients: {algorithm: {kind: sgd, lr: 0.002}, epochs: 4, batch_size: 20}
server: {rounds: 5000, fusion: [mean]}
record: {serve: "127.0.0.1:0"}
"""
ACTION = {"X-Thalweg": "1"}
# For what takes a second on an idle machine: the suite also runs where it shares few cores with other suites.
PATIENCE = 60


def read(path):
    with open(path, encoding="utf-8") as file:
        return file.read()


class Live(Case):
    def begin(self, *words, ranks=1, environment=()):
        """Starts the program; returns its process and port once the page is there. What it says is in files."""
        number = len(os.listdir(self.folder))
        paths = [self.path(f"{kind}-{number}") for kind in ("out", "err")]
        with open(paths[0], "w") as out, open(paths[1], "w") as err:
            process = subprocess.Popen(command_line(*words, ranks=ranks), env=dict(ENVIRONMENT, **dict(environment)),
                                       cwd=self.folder, stdout=out, stderr=err)
        process.paths = paths
        self.addCleanup(self.end, process)
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until and process.poll() is None:
            for path in paths:
                found = re.search(r"http://[^/]*:(\d+)/", read(path))
                if found:
                    return process, int(found.group(1))
            time.sleep(0.02)
        self.fail(f"no page: {[read(path) for path in paths]}")

    def end(self, process):
        if process.poll() is None:
            process.kill()
        process.wait()

    def ask(self, port, path, method="GET", headers=(), body=None):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
        try:
            connection.request(method, path, body=body, headers=dict(headers))
            response = connection.getresponse()
            return response.status, response.read().decode(errors="replace")
        finally:
            connection.close()

    def state(self, port):
        return json.loads(self.ask(port, "/api/state")[1])

    def until(self, port, condition, what, seconds=PATIENCE):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            state = self.state(port)
            if condition(state):
                return state
            time.sleep(0.03)
        self.fail(f"not within {seconds} s: {what}: {state}")

    def act(self, port, action):
        status, text = self.ask(port, "/api/" + action, "POST", ACTION)
        self.assertEqual(status, 200, text)
        return json.loads(text)

    def checkpoints(self, name="run"):
        return sorted(name for name in os.listdir(self.path(name, "checkpoints")) if name.endswith(".pt"))


class Runs(Live):
    def test_pause_checkpoint_resume_stop_and_go_on(self):
        config = self.write("live.yaml", CONFIG)
        process, port = self.begin("run", config, "record.checkpoint_every=0", "--out", self.path("run"), ranks=3)
        state = self.until(port, lambda s: s["recorded"] >= 3, "three rounds")
        self.assertEqual(state["run"]["name"], "live")
        self.assertEqual(state["run"]["ranks"], 3)
        self.assertIn("gaussian_mixture", state["run"]["config"])
        self.assertEqual(len(state["latest"]["seconds"]["ranks"]), 3)
        self.assertTrue(all(0 < busy <= state["latest"]["seconds"]["total"] for busy in state["latest"]["seconds"]["ranks"]))
        self.assertEqual(state["latest"]["cohort"], [0, 1, 2, 3, 4])

        self.act(port, "pause")
        paused = self.until(port, lambda s: s["progress"]["phase"] == "paused", "a pause")["recorded"]
        time.sleep(0.3)
        self.assertEqual(self.state(port)["recorded"], paused)
        self.assertEqual(self.checkpoints(), [])
        self.act(port, "checkpoint")
        self.until(port, lambda s: not s["control"]["checkpoint"], "a checkpoint")
        self.assertEqual(self.checkpoints(), [f"round-{paused:05}.pt"])
        self.act(port, "resume")
        self.until(port, lambda s: s["recorded"] > paused, "another round")

        self.act(port, "stop")
        self.assertEqual(process.wait(PATIENCE), 0)
        said = read(process.paths[0])
        self.assertIn("--resume --out", said)
        lines = [json.loads(line) for line in read(self.path("run", "rounds.jsonl")).splitlines()]
        self.assertEqual(self.checkpoints()[-1], f"round-{len(lines):05}.pt")
        self.assertFalse(os.path.exists(self.path("run", "final.pt")))

        # Shown or not, it is the same run. Every line is the same as without a page and without a stop.
        done = len(lines)
        self.succeed("run", config, "record.checkpoint_every=0", "record.serve=null", f"server.rounds={done + 2}",
                     "--out", self.path("whole"))
        shutil.copy(self.path("whole", "config.yaml"), self.path("run", "config.yaml"))
        self.succeed("run", config, "record.checkpoint_every=0", f"server.rounds={done + 2}", "--resume", "--out",
                     self.path("run"))
        self.assertEqual(self.bytes_of("run", "final.pt"), self.bytes_of("whole", "final.pt"))

    def test_a_signal_ends_a_paused_run(self):
        process, port = self.begin("run", self.write("live.yaml", CONFIG), "--out", self.path("run"), ranks=2)
        self.until(port, lambda s: s["recorded"] >= 1, "a round")
        self.act(port, "pause")
        self.until(port, lambda s: s["progress"]["phase"] == "paused", "a pause")
        began = time.monotonic()
        process.send_signal(signal.SIGINT)
        process.wait(PATIENCE)
        self.assertLess(time.monotonic() - began, 20)
        self.assertIn("Go on with the same command line and --resume", read(process.paths[1]))

    def test_a_finished_run_says_so_to_its_readers(self):
        process, port = self.begin("run", self.write("live.yaml", CONFIG), "server.rounds=120", "--out", self.path("run"))
        stream = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
        stream.request("GET", "/api/events")
        text = stream.getresponse().read().decode()
        self.assertEqual(process.wait(PATIENCE), 0)
        numbers = [int(n) for n in re.findall(r'event: round\ndata: {"round":(\d+)', text)]
        self.assertEqual(numbers, list(range(1, 121)))
        self.assertIn('"phase":"finished"', text)

    def test_addresses_that_cannot_be(self):
        config = self.write("live.yaml", CONFIG)
        other = socket.socket()
        self.addCleanup(other.close)
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = f"127.0.0.1:{other.getsockname()[1]}"
        for words, code, message in (([f"record.serve={taken}"], 1, "another program has the port"),
                                     (["record.serve=0.0.0.0:0"], 2, "THALWEG_TOKEN"),
                                     (["record.serve=0.0.0.0:0", "record.token=short"], 2, "16 to 256"),
                                     (["record.serve=example.org:80"], 2, "ADDRESS:PORT")):
            for ranks in (1, 3) if code == 1 else (1,):
                done = self.call("run", config, *words, "--out", self.path("none"), ranks=ranks)
                self.assertIn(message, done.stderr)
                self.assertNotEqual(done.returncode, 0)
                if ranks == 1:
                    self.assertEqual(done.returncode, code, done.stderr)
                self.assertFalse(os.path.exists(self.path("none")), "nothing is written before the page is there")

    def test_a_token_opens_the_page_and_is_written_nowhere(self):
        token = "correct-horse-battery"
        process, port = self.begin("run", self.write("live.yaml", CONFIG), "record.serve=0.0.0.0:0",
                                   f"record.token={token}", "--out", self.path("run"))
        self.assertEqual(self.ask(port, "/api/state")[0], 401)
        status, text = self.ask(port, "/api/state", headers={"Authorization": "Bearer " + token})
        self.assertEqual(status, 200)
        self.assertNotIn(token, text)
        self.assertEqual(self.ask(port, "/?token=" + token)[0], 303)
        for name in ("config.yaml", "manifest.json"):
            end = time.monotonic() + PATIENCE
            while not os.path.exists(self.path("run", name)) and time.monotonic() < end:
                time.sleep(0.02)  # the page is there before the run has begun
            self.assertNotIn(token.encode(), self.bytes_of("run", name))
        process.send_signal(signal.SIGINT)
        self.assertEqual(process.wait(PATIENCE), 130)
        for path in process.paths:
            self.assertNotIn(token, read(path))


class Crowds(Live):
    def test_a_thousand_requests_and_a_slow_reader_do_no_harm(self):
        process, port = self.begin("run", self.write("live.yaml", CONFIG), "--out", self.path("run"))
        drip = [socket.create_connection(("127.0.0.1", port)) for _ in range(8)]
        for one in drip:
            one.sendall(b"GET / HTTP/1.1\r\nX-")
            self.addCleanup(one.close)
        answers, lock = [], threading.Lock()

        def many(count):
            for _ in range(count):
                try:
                    status = self.ask(port, "/api/state")[0]
                except OSError as error:
                    status = type(error).__name__
                with lock:
                    answers.append(status)

        threads = [threading.Thread(target=many, args=(20,)) for _ in range(50)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(len(answers), 1000)
        self.assertGreater(answers.count(200), 500, set(answers))
        # Who is refused and takes half a second to ask finds the connection closed; nobody waits in vain.
        closed = {"ConnectionResetError", "BrokenPipeError", "RemoteDisconnected"}
        self.assertLessEqual(set(answers), {200, 503} | closed)
        self.assertLess(sum(answer in closed for answer in answers), 100, answers)

        self.until(port, lambda s: "recorded" in s, "an answer")  # so all who left have been noticed
        crowd = [socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) for _ in range(200)]
        for one in crowd:
            self.addCleanup(one.close)
            try:
                one.sendall(b"GET /api/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
            except OSError:
                pass  # refused already
        heads = []
        for one in crowd:
            try:
                heads.append(one.recv(12))
            except OSError:
                heads.append(b"")
        self.assertGreaterEqual(heads.count(b"HTTP/1.1 200"), 50)
        self.assertLessEqual(heads.count(b"HTTP/1.1 200"), 64)
        self.assertGreaterEqual(heads.count(b"HTTP/1.1 503"), 100)
        for one in crowd + drip:
            one.close()
        # Until the server has noticed who has gone, it may still be full and answer 503.
        recorded = self.until(port, lambda s: "recorded" in s, "an answer")["recorded"]
        self.until(port, lambda s: s["recorded"] > recorded, "training goes on")
        self.assertIsNone(process.poll())

    def test_what_is_malformed_or_too_long_is_refused(self):
        _, port = self.begin("run", self.write("live.yaml", CONFIG), "--out", self.path("run"))
        for text, status in ((b"\x16\x03\x01\x00\xa5\x01\r\n\r\n", b"400"), (b"GET /\r\n\r\n", b"400"),
                             (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b"421"),
                             (b"GET /" + b"a" * 20000 + b" HTTP/1.1\r\n\r\n", b"431"),
                             (b"POST /api/stop HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999\r\n\r\n", b"413")):
            with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as one:
                one.sendall(text)
                self.assertEqual(one.recv(12), b"HTTP/1.1 " + status, text[:40])
        self.assertEqual(self.ask(port, "/api/stop", "POST")[0], 403)
        self.assertEqual(self.ask(port, "/api/stop", "POST", dict(ACTION, Origin="http://evil.example"))[0], 403)
        self.assertEqual(self.state(port)["progress"]["phase"], "running")


class Folders(Live):
    def test_serve_follows_another_process_and_ends_in_order(self):
        config = self.write("live.yaml", CONFIG)
        self.assertEqual(self.call("serve", self.path("none")).returncode, 2)
        os.mkdir(self.path("run"))
        server, port = self.begin("serve", self.path("run"), "--address", "127.0.0.1:0")
        self.assertEqual(self.state(port)["recorded"], 0)
        self.succeed("run", config, "server.rounds=12", "--out", self.path("run"))
        state = self.until(port, lambda s: s["progress"]["phase"] == "finished", "the end")
        self.assertEqual((state["recorded"], state["run"]["name"]), (12, "live"))
        status, text = self.ask(port, "/api/pause", "POST", ACTION)
        self.assertEqual(status, 409)
        self.assertIn("cannot steer", text)
        server.send_signal(signal.SIGINT)
        self.assertEqual(server.wait(PATIENCE), 0)

    def test_a_killed_run_is_no_longer_followed_until_it_goes_on(self):
        config = self.write("live.yaml", CONFIG)
        run, port = self.begin("run", config, "--out", self.path("run"))
        self.until(port, lambda s: s["recorded"] >= 3, "three rounds")
        _, port = self.begin("serve", self.path("run"), "--address", "127.0.0.1:0")
        self.until(port, lambda s: s["progress"]["phase"] == "following" and s["progress"]["seconds_left"], "the run")
        run.kill()
        run.wait()
        progress = self.until(port, lambda s: s["progress"]["phase"] == "stopped", "its end")["progress"]
        lines = read(self.path("run", "rounds.jsonl")).count("\n")
        self.assertIn(f"after round {lines},", progress["what"])
        self.assertIsNone(progress["seconds_left"])
        self.begin("run", config, "--resume", "--out", self.path("run"))
        self.until(port, lambda s: s["progress"]["phase"] == "following", "the run that goes on")


@unittest.skipUnless(webdriver and BROWSER and DRIVER,
                     "no browser to look with: needs chromium, chromium-driver and python3-selenium")
class Browser(Live):
    def open(self, url, width=1200, height=1000):
        from selenium.webdriver.chrome.service import Service
        options = webdriver.ChromeOptions()
        options.binary_location = BROWSER
        for word in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
                     f"--window-size={width},{height}", f"--user-data-dir={self.path('browser')}"):
            options.add_argument(word)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        browser = webdriver.Chrome(service=Service(DRIVER), options=options)
        self.addCleanup(browser.quit)
        browser.get(url)
        return browser

    def wait(self, browser, condition):
        return WebDriverWait(browser, PATIENCE, 0.05).until(condition)

    def log(self, browser):
        """What the page said, but for the advice against reading pixels again and again, which only these tests do."""
        return [entry for entry in browser.get_log("browser") if "getImageData" not in entry["message"]]

    def text(self, browser, name):
        return browser.find_element(By.ID, name).text

    def drawn(self, browser, name):
        """Points of the curve, and whether any pixel of the canvas is painted."""
        return browser.execute_script(
            "const c = document.getElementById(arguments[0]);"
            "const p = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;"
            "return [Chart.getChart(c).data.datasets[0].data.length, p.some(v => v !== 0)];", name)

    def test_page_loads_draws_updates_and_steers(self):
        process, port = self.begin("run", self.write("live.yaml", CONFIG), "--out", self.path("run"), ranks=2)
        browser = self.open(f"http://127.0.0.1:{port}/")
        self.wait(browser, lambda b: self.text(b, "connection-text") == "live")
        self.wait(browser, lambda b: self.text(b, "name") == "live")
        for name in ("accuracy", "loss"):
            self.wait(browser, lambda b: self.drawn(b, name)[0] >= 2 and self.drawn(b, name)[1])
        points = self.drawn(browser, "accuracy")[0]
        self.wait(browser, lambda b: self.drawn(b, "accuracy")[0] > points)
        self.assertEqual(len(browser.find_elements(By.CSS_SELECTOR, "#ranks li")), 2)
        self.assertEqual(len(browser.find_elements(By.CSS_SELECTOR, "#cohort li")), 5)
        self.assertIn("mean", self.text(browser, "stages"))
        self.assertIn("of 5000", self.text(browser, "where"))

        button = browser.find_element(By.ID, "pause")
        button.click()
        self.wait(browser, lambda b: self.text(b, "phase") == "paused" and button.text == "Resume")
        rounds = self.state(port)["recorded"]
        browser.find_element(By.ID, "checkpoint").click()
        self.wait(browser, lambda b: f"round-{rounds:05}.pt" in self.checkpoints())
        self.wait(browser, lambda b: self.text(b, "answer") == "The checkpoint is written at once.")
        button.click()
        self.wait(browser, lambda b: self.text(b, "phase") == "running")

        # Ground, curves and axes follow the browser's light.
        def colours(light):
            browser.execute_cdp_cmd("Emulation.setEmulatedMedia",
                                    {"features": [{"name": "prefers-color-scheme", "value": light}]})
            return lambda: browser.execute_script("""
                const chart = Chart.getChart(document.getElementById('accuracy'));
                return [getComputedStyle(document.body).backgroundColor, chart.data.datasets[0].borderColor,
                        chart.options.scales.x.ticks.color];""")
        light = colours("light")()
        dark = colours("dark")
        self.wait(browser, lambda b: all(one != other for one, other in zip(light, dark())))
        self.wait(browser, lambda b: self.drawn(b, "accuracy")[1])

        # A narrow page does not scroll sideways.
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride",
                                {"width": 360, "height": 740, "deviceScaleFactor": 2, "mobile": True})
        self.wait(browser, lambda b: b.execute_script("return document.documentElement.scrollWidth") <= 360)

        browser.find_element(By.ID, "stop").click()
        self.wait(browser, lambda b: b.find_element(By.ID, "confirm").is_displayed())
        self.assertIsNone(process.poll())
        browser.find_element(By.ID, "confirm-yes").click()
        self.assertEqual(process.wait(PATIENCE), 0)
        self.wait(browser, lambda b: self.text(b, "connection-text") == "the program has ended")
        self.assertEqual(self.text(browser, "phase"), "stopped")
        self.assertEqual(self.log(browser), [])

    def test_a_folder_is_shown_without_buttons_and_the_token_is_asked_for_once(self):
        self.succeed("run", self.write("live.yaml", CONFIG), "record.serve=null", "server.rounds=6", "--out", self.path("run"))
        server, port = self.begin("serve", self.path("run"), "--address", "0.0.0.0:0",
                                  environment={"THALWEG_TOKEN": "0123456789abcdef"})
        browser = self.open(f"http://127.0.0.1:{port}/?token=0123456789abcdef")
        self.wait(browser, lambda b: self.text(b, "phase") == "finished")
        self.wait(browser, lambda b: self.drawn(b, "accuracy")[0] == 6)
        self.assertNotIn("token", browser.current_url)
        self.assertFalse(browser.find_element(By.ID, "actions").is_displayed())
        self.assertEqual(self.log(browser), [])
        server.send_signal(signal.SIGINT)
        self.assertEqual(server.wait(PATIENCE), 0)
        self.wait(browser, lambda b: self.text(b, "connection-text") == "reconnecting…")


if __name__ == "__main__":
    unittest.main()
