"""report.html of runs, comparisons and several runs; figures; TensorBoard's event files, read by an independent reader."""
import glob
import html.parser
import importlib.util
import json
import os
import shutil
import struct
import sys
import unittest

from support import Case, TINY

sys.path.append("/usr/lib/python3/dist-packages")  # Debian's selenium and protobuf, whichever Python runs the tests

EVERYTHING = TINY.replace("measures: [ladder, sign_consistency, barrier, variance_ratio]",
                          "measures: [ladder, {sign_consistency: {layers: true}}, barrier, variance_ratio, "
                          "{surface: {points: 5, samples: 100}}]")


def installed(module):
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


class Page(html.parser.HTMLParser):
    """What a page loads and names, and whether its elements close in order."""

    VOID = {"meta", "link", "br", "img", "input", "hr"}

    def __init__(self, text):
        super().__init__()
        self.open, self.loaded, self.links, self.data, self.problems = [], [], [], None, []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        if tag not in self.VOID:
            self.open.append((tag, given.get("id")))
        self.loaded += [value for key, value in attributes if key in ("src", "srcset", "data", "poster")]
        if tag == "link":
            self.loaded.append(given.get("href"))
        if tag == "a":
            self.links.append(given.get("href"))

    def handle_endtag(self, tag):
        if not self.open or self.open[-1][0] != tag:
            self.problems.append(f"</{tag}> closes {self.open[-1:]}")
        else:
            self.open.pop()

    def handle_data(self, data):
        if self.open and self.open[-1] == ("script", "data"):
            self.data = (self.data or "") + data


class Reports(Case):
    def report(self, *names):
        with open(self.path(*names), encoding="utf-8") as file:
            text = file.read()
        page = Page(text)
        self.assertEqual(page.problems, [])
        self.assertEqual(page.open, [])
        self.assertEqual([url for url in page.loaded if url != "data:,"], [], "the page loads something")
        self.assertNotIn("@import", text)
        self.assertNotIn("url(http", text)
        return json.loads(page.data)

    def rounds(self):
        with open(self.path("run", "rounds.jsonl"), encoding="utf-8") as file:
            return [json.loads(line) for line in file]

    def read_json(self, *names):
        with open(self.path(*names), encoding="utf-8") as file:
            return json.load(file)

    def figures(self, document):
        return {figure["name"]: figure for section in document["sections"] for figure in section.get("figures", [])}

    def test_run_leaves_a_report(self):
        config = self.write("evil.yaml", EVERYTHING.replace("name: tiny", "name: '</script><img src=x>'".replace("/", "")))
        self.succeed("run", config, "--out", "run")
        document = self.report("run", "report.html")
        rounds = self.rounds()
        figures = self.figures(document)
        self.assertEqual(document["title"], "<script><img src=x>")
        curve = figures["accuracy"]["series"][0]
        self.assertEqual(curve["x"], [1, 2])
        for value, line in zip(curve["y"], rounds):
            self.assertAlmostEqual(value, 100 * line["test"]["accuracy"])
        self.assertLessEqual({"accuracy", "loss", "ladder", "partition", "times", "barrier-error", "signs", "signs-by-client",
                              "variance-ratio", "surface-loss"}, set(figures))
        held = self.read_json("run", "partition.json")
        grid = figures["partition"]["grid"]["values"]
        self.assertEqual(grid, [client["labels"] for client in held["clients"]])
        self.assertEqual([sum(row) for row in grid], [client["samples"] for client in held["clients"]])
        for name in figures:
            for extension in ("csv", "gp") + (("svg",) if shutil.which("gnuplot") else ()):
                self.assertTrue(os.path.getsize(self.path("run", "figures", f"{name}.{extension}")) > 0)
        os.remove(self.path("run", "report.html"))
        shutil.rmtree(self.path("run", "figures"))
        self.succeed("report", "run")
        self.assertEqual(self.report("run", "report.html"), document)

    def test_side_by_side(self):
        config = self.write("tiny.yaml", TINY)
        self.succeed("run", config, "--out", "a")
        self.succeed("run", config, "name=other", "seed=4", "--out", "b")
        self.succeed("report", "a", "b", "--out", "both")
        document = self.report("both", "report.html")
        self.assertEqual([series["name"] for series in self.figures(document)["accuracy"]["series"]], ["tiny", "other"])
        self.assertIn("settings, counts or standard errors", json.dumps(document["sections"]))
        differences = next(table for section in document["sections"] for table in section.get("tables", [])
                           if table["name"] == "differences")
        self.assertLessEqual({"barrier-sent", "barrier-aligned", "signs-clients", "ensemble", "variance-ratio-after-layers-0"},
                             set(self.figures(document)))
        self.assertEqual(differences["rows"], [["name", "tiny", "other"], ["seed", "3", "4"]])
        done = self.call("report", "a", "b")
        self.assertEqual(done.returncode, 2)
        self.assertIn("--out", done.stderr)
        # a run's own report is nobody else's to write
        for words in (["report", "a", "b", "--out", "a"], ["report", "both", "--out", "a"],
                      ["lmc", "a/final.pt", "b/final.pt", "--out", "a"]):
            done = self.call(*words)
            self.assertEqual(done.returncode, 2, words)
            self.assertIn("holds a run", done.stderr)
        self.assertEqual(self.report("a", "report.html")["kind"], "run")

    def test_compare(self):
        config = self.write("tiny.yaml", TINY)
        self.succeed("compare", config, "--pipelines", "mean; weight_matching+mean", "--seeds", "2", "--out", "c")
        document = self.report("c", "report.html")
        self.assertEqual(document["kind"], "compare")
        self.assertEqual(self.figures(document)["accuracy"]["categories"], ["mean", "weight_matching+mean"])
        self.succeed("report", "c", "--out", "again")
        self.assertEqual(self.report("again", "report.html"), document)
        self.succeed("run", config, "--out", "a")
        self.succeed("run", config, "seed=4", "--out", "b")
        for words in (["a", "b"], ["a"]):
            done = self.call("report", *words, "--out", "c")
            self.assertEqual(done.returncode, 2, done.stderr)
            self.assertIn("another command", done.stderr)
        self.assertEqual(self.report("c", "report.html"), document)

    def test_measures_under_names_of_their_own(self):
        config = self.write("tiny.yaml", TINY)
        words = ["data.holdout=60", "analysis.measures=[valley, {valley: {as: whole, points: 5}}, {hessian: {as: sharp, "
                 "probes: 1}}, {ladder: {as: steps}}]"]
        self.succeed("run", config, *words, "--out", "run")
        figures = self.figures(self.report("run", "report.html"))
        self.assertLessEqual({"valley-loss", "valley-loss-whole", "hessian-sharp", "ladder"}, set(figures))
        self.assertEqual(figures["valley-loss-whole"]["y"]["label"], "loss (nats)")
        self.assertEqual(len(figures["valley-loss-whole"]["series"][0]["x"]), 5)
        for name in ("Valley", "valley-a", "x" * 41, "../x"):
            done = self.call("run", config, "analysis.measures=[{valley: {as: '" + name + "'}}]", "--out", "none")
            self.assertEqual(done.returncode, 2, done.stderr)
            self.assertIn("analysis.measures[0].as", done.stderr)
            self.assertIn("lower-case letters", done.stderr)

    def test_damaged_folders(self):
        os.makedirs(self.path("empty"))
        os.makedirs(self.path("damaged"))
        self.write("damaged/config.yaml", TINY)
        self.write("damaged/rounds.jsonl", '{"round": 1}\nnonsense\n')
        self.write("file", "")
        for folder, code, words in (("none", 2, "no such folder"), ("empty", 2, "neither a run"),
                                    ("damaged", 1, "rounds.jsonl:2"), ("file", 2, "no such folder")):
            done = self.call("report", folder)
            self.assertEqual(done.returncode, code, done.stderr)
            self.assertIn(words, done.stderr)

    def test_a_report_that_fails_does_not_lose_the_run(self):
        os.makedirs(self.path("run", "figures", "accuracy.csv"))  # a folder where a figure should be
        done = self.succeed("run", self.write("tiny.yaml", TINY), "--out", "run")
        self.assertIn("could not be drawn", done.stderr)
        self.assertTrue(os.path.exists(self.path("run", "final.pt")))

    @unittest.skipUnless(installed("google.protobuf"), "python3-protobuf is not installed")
    def test_tensorboard(self):
        self.succeed("run", self.write("tiny.yaml", TINY), "record.tensorboard=true", "--out", "run")
        [path] = glob.glob(self.path("run", "events.out.tfevents.*"))
        events = read_events(path)
        self.assertEqual(events[0].file_version, "brain.Event:2")
        seen = {(event.step, value.tag): value.simple_value for event in events[1:] for value in event.summary.value}
        for line in self.rounds():
            for tag, number in (("test/accuracy", line["test"]["accuracy"]), ("test/loss", line["test"]["loss"]),
                                ("train/loss", line["train"]["loss"]), ("seconds/total", line["seconds"]["total"]),
                                ("sign_consistency/client_global", line["sign_consistency"]["client_global"])):
                self.assertAlmostEqual(seen[line["round"], tag], number, delta=1e-6 * max(1, abs(number)))

    @unittest.skipUnless(installed("google.protobuf"), "python3-protobuf is not installed")
    def test_tensorboard_of_a_run_that_goes_on(self):
        config = self.write("tiny.yaml", TINY)
        words = ["record.tensorboard=true", "record.keep_checkpoints=0", "--out", "run"]
        self.succeed("run", config, *words)
        # As if it had been killed after round 1.
        os.remove(self.path("run", "checkpoints", "round-00002.pt"))
        os.remove(self.path("run", "final.pt"))
        self.succeed("run", config, *words, "--resume")
        paths = glob.glob(self.path("run", "events.out.tfevents.*"))
        steps = sorted(sorted({event.step for event in read_events(path)[1:]}) for path in paths)
        self.assertEqual(steps, [[1, 2], [2]])

    def taps(self, driver, wait):
        """What a finger reads: of a surface, and of curves."""
        driver.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": True})
        for name, read in (("surface-accuracy", "document.querySelector('#figure-surface-accuracy .readout').textContent"),
                           ("accuracy", "Chart.getChart(document.querySelector('#figure-accuracy canvas')).tooltip.opacity")):
            middle = driver.execute_script("""
                const canvas = document.querySelector('#figure-' + arguments[0] + ' canvas');
                canvas.scrollIntoView({block: 'center'});
                const box = canvas.getBoundingClientRect();
                return {x: Math.round(box.left + box.width / 2), y: Math.round(box.top + box.height / 2)};""", name)
            self.assertFalse(driver.execute_script("return " + read))
            driver.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": [middle]})
            driver.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
            wait(lambda: driver.execute_script("return " + read), "an answer to a tap on " + name)
        driver.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": False})

    @unittest.skipUnless(installed("selenium") and shutil.which("chromium") and shutil.which("chromedriver"),
                         "chromium, chromium-driver or python3-selenium is not installed")
    def test_in_a_browser(self):
        self.succeed("run", self.write("tiny.yaml", EVERYTHING), "--out", "run")
        from selenium import webdriver
        from selenium.webdriver.chrome.service import Service
        from selenium.webdriver.support.ui import WebDriverWait
        options = webdriver.ChromeOptions()
        for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
                         "--user-data-dir=" + self.path("profile")):
            options.add_argument(argument)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
        self.addCleanup(driver.quit)
        driver.get("file://" + self.path("run", "report.html"))

        def wait(condition, what):
            WebDriverWait(driver, 60, 0.05).until(lambda _: condition(), what)

        wait(lambda: driver.execute_script("return document.documentElement.dataset.ready") == "true", "a page")
        colours = """
            return [...document.querySelectorAll('canvas')].map((canvas) => {
              const pixels = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
              return new Set(new Uint32Array(pixels.buffer)).size;
            });"""
        self.assertGreater(len(driver.execute_script(colours)), 5)
        wait(lambda: min(driver.execute_script(colours)) > 5, "a canvas is empty")
        self.assertGreater(len(driver.find_elements("css selector", "table.heat td")), 10)
        readout = driver.execute_script("""
            const figure = document.getElementById('figure-surface-loss'), canvas = figure.querySelector('canvas');
            const box = canvas.getBoundingClientRect();
            canvas.dispatchEvent(new PointerEvent('pointermove', {clientX: box.left + box.width / 2, clientY: box.top + box.height / 2}));
            return figure.querySelector('.readout').textContent;""")
        self.assertIn("first direction (filter norms): 0; second direction (filter norms): 0; loss (nats): ", readout)
        self.taps(driver, wait)
        # the theme's button by keyboard, and the ground that follows
        grounds = set()
        for _ in range(2):
            driver.find_element("id", "theme").send_keys("\n")
            grounds.add(driver.execute_script("return getComputedStyle(document.body).backgroundColor"))
        self.assertEqual(len(grounds), 2)
        # a column sorts both ways
        head = driver.find_element("css selector", "#table-clients th:nth-child(3) button")
        column = "return [...document.querySelectorAll('#table-clients tbody td:nth-child(3)')].map((cell) => parseFloat(cell.textContent))"
        for down in (False, True):
            head.click()
            values = driver.execute_script(column)
            self.assertEqual(values, sorted(values, reverse=down))
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride",
                               {"width": 360, "height": 800, "deviceScaleFactor": 2, "mobile": True})
        wait(lambda: driver.execute_script("return document.documentElement.scrollWidth") == 360, "a narrow page")
        # but for the advice against reading pixels again and again, which only this test does
        log = [entry for entry in driver.get_log("browser") if "getImageData" not in entry["message"]]
        self.assertEqual(log, [])


def read_events(path):
    """TFRecord and protobuf as TensorFlow defines them, with a CRC table of its own."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
    file = descriptor_pb2.FileDescriptorProto(name="event.proto", package="t", syntax="proto3")

    def message(name, *fields):
        described = file.message_type.add(name=name)
        for number, field, kind, label, of in fields:
            described.field.add(name=field, number=number, type=kind, label=label, type_name=of)

    message("Value", (1, "tag", 9, 1, None), (2, "simple_value", 2, 1, None))
    message("Summary", (1, "value", 11, 3, ".t.Value"))
    message("Event", (1, "wall_time", 1, 1, None), (2, "step", 3, 1, None), (3, "file_version", 9, 1, None),
            (5, "summary", 11, 1, ".t.Summary"))
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    descriptor = pool.FindMessageTypeByName("t.Event")
    get_class = getattr(message_factory, "GetMessageClass", None)
    event_class = get_class(descriptor) if get_class else message_factory.MessageFactory(pool).GetPrototype(descriptor)

    table = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
        table.append(byte)

    def masked(data):
        crc = 0xFFFFFFFF
        for byte in data:
            crc = crc >> 8 ^ table[(crc ^ byte) & 255]
        crc ^= 0xFFFFFFFF
        return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF

    events = []
    with open(path, "rb") as stream:
        while head := stream.read(12):
            length, crc = struct.unpack("<QI", head)
            assert crc == masked(head[:8]), "the length's checksum"
            data = stream.read(length)
            assert struct.unpack("<I", stream.read(4))[0] == masked(data), "the record's checksum"
            events.append(event_class.FromString(data))
    return events


if __name__ == "__main__":
    unittest.main()
