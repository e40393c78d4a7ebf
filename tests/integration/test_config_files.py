"""What config/ and docker-compose.yml hold for other programs, against what ours really have."""

import json
import re
import subprocess
import unittest

import yaml

from harness import OUT, ROOT, Case, start

NAMES = re.compile(r"\b(session_worker_[a-z_]+|process_[a-z_]+)")
SERIES = re.compile(r"^([a-z_]+)(?:\{([^}]*)\})? ", re.M)


def alerts():
    for group in yaml.safe_load((ROOT / "config/prometheus/alerts.yml").read_text())["groups"]:
        for rule in group["rules"]:
            yield rule["alert"], rule["expr"]


def expressions():
    yield from alerts()
    for panel in json.loads((ROOT / "config/grafana/dashboards/dashboard.json").read_text())["panels"]:
        for target in panel["targets"]:
            yield panel["title"], target["expr"]


class Observability(Case):
    seconds = 4

    def test_alerts_and_panels_name_series_that_there_are(self):
        worker = self.worker()
        self.one(start("S1"))
        page = worker.page("/metrics")[1]
        names = {name for name, _ in SERIES.findall(page)}
        values = {pair for _, labels in SERIES.findall(page) for pair in re.findall(r'(\w+)="([^"]*)"', labels)}
        found = list(expressions())
        self.assertGreater(len(found), 25)
        for title, text in found:
            self.assertTrue(set(NAMES.findall(text)) <= names, (title, set(NAMES.findall(text)) - names))
            for label, wanted in re.findall(r'(step|code|status|outcome|event)=~?"([^"]*)"', text):
                for value in wanted.split("|"):
                    self.assertIn((label, value), values, title)
            for label, wanted in re.findall(r'(code)!~"([^"]*)"', text):
                for value in wanted.split("|"):
                    self.assertIn((label, value), values, title)


class Readme(unittest.TestCase):
    """Its tables are complete, and hold nothing that is not there."""

    seconds = 1

    def first_column(self, heading):
        """The `words` in the first column of the table below the heading."""
        section = (ROOT / "README.md").read_text().split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]
        rows = re.findall(r"^\| (`[^|]*) \|", section, re.M)
        return [word for cell in rows for word in re.findall(r"`([^`]+)`", cell)]

    def test_codes(self):
        table = (ROOT / "common/wire.c").read_text()
        codes = re.findall(r'\[ERR_(?!NONE)\w+\] = \{"(\w+)"', table)
        self.assertGreater(len(codes), 20)
        self.assertEqual(sorted(self.first_column("When a session fails")), sorted(codes))

    def test_alerts(self):
        self.assertEqual(sorted(self.first_column("Alerts")), sorted({name for name, _ in alerts()}))


    def test_keys(self):
        """Every key and every member of a job that it names is one, and so is every one that sessionctl names."""
        keys, members, groups = set(), set(), []
        defaults = subprocess.run([OUT / "session-worker", "--print-defaults"], capture_output=True, text=True,
                                  check=True).stdout
        for line in defaults.splitlines():
            if opened := re.match(r"\s*(\w+) = (\{|\( \{)$", line):
                groups.append(opened.group(1))
            elif re.match(r"\s*\}", line):
                groups.pop()
            elif key := re.match(r"\s*(\w+) = ", line):
                keys.add(".".join([*groups, key.group(1)]))
        job = json.loads((ROOT / "config/schema/start-session.json").read_text())["properties"]
        for name, field in job.items():
            members |= {f"{name}.{inner}" for inner in field.get("properties", {})}
        self.assertTrue({"jobs.attempts", "steps.launch_seconds", "providers.targets"} <= keys, keys)
        self.assertTrue({"timeouts.launch", "sandbox.snapshot"} <= members, members)
        heads = {name.split(".")[0] for name in keys | members if "." in name}
        named = re.compile(rf"(?<![\w./-])(?:{'|'.join(sorted(heads))})\.[a-z_]+\b(?![./(*-])")
        texts = {"README.md": (ROOT / "README.md").read_text()}
        for path in (ROOT / "worker/ctl").glob("*.c"):
            lines = [line for line in path.read_text().splitlines() if not line.startswith("#include")]
            texts[path.name] = "\n".join(re.findall(r'"((?:[^"\\]|\\.)*)"', "\n".join(lines)))
        found = {(name, word) for name, text in texts.items() for word in named.findall(text)}
        self.assertGreater(len(found), 40)
        self.assertEqual({pair for pair in found if pair[1] not in keys | members}, set())


class Compose(unittest.TestCase):
    seconds = 1

    def setUp(self):
        self.services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]

    def test_scaling(self):
        """Nothing of the worker can be there only once."""
        worker = self.services["worker"]
        self.assertFalse({"container_name", "ports", "hostname", "network_mode"} & set(worker))

    def test_locked_in(self):
        for name in ("worker", "simulator"):
            service = self.services[name]
            self.assertEqual((service["read_only"], service["cap_drop"]), (True, ["ALL"]))
            self.assertEqual(service["security_opt"], ["no-new-privileges:true"])
            self.assertRegex(service["user"], "10001:10001")

    def test_only_loopback_is_published(self):
        for service in self.services.values():
            for port in service.get("ports", []):
                self.assertRegex(port, r"^127\.0\.0\.1:\$\{[A-Z]+_PORT:-\d{4,5}\}:\d+$")

    def test_grace_is_longer_than_the_drain(self):
        drain = self.config()["drain"]
        self.assertGreaterEqual(int(self.services["worker"]["stop_grace_period"].rstrip("s")), drain + 15)

    def config(self):
        """The worker's configuration there, which must be a right one; {"drain": seconds}."""
        argv = [OUT / "session-worker", "-c", ROOT / "config/compose/worker.cfg",
                "-s", f"providers.daytona.api_key_file={ROOT / 'config/compose/simulator.key'}", "--print-config"]
        shown = subprocess.run([*map(str, argv)], check=True, text=True, stdout=subprocess.PIPE, timeout=20).stdout
        self.assertIn("localhost=simulator:3986", shown)
        return {"drain": int(re.search(r"drain = \{.*?timeout_seconds = (\d+);", shown, re.S)[1])}


class Kubernetes(unittest.TestCase):
    seconds = 1

    def test_manifests(self):
        files = {p.name: list(yaml.safe_load_all(p.read_text())) for p in (ROOT / "config/kubernetes").glob("*.yaml")}
        deployment = files["worker.yaml"][0]
        pod = deployment["spec"]["template"]["spec"]
        self.assertGreaterEqual(pod["terminationGracePeriodSeconds"], 25 + 15)
        environment = {e["name"]: e["value"] for e in pod["containers"][0]["env"]}
        environment["DAYTONA_API_KEY_FILE"] = str(ROOT / "config/compose/simulator.key")
        done = subprocess.run([OUT / "session-worker", "--check"], env=environment, timeout=20,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.assertEqual(done.returncode, 0, done.stdout)
        self.assertEqual(files["keda.yaml"][0]["spec"]["scaleTargetRef"]["name"], deployment["metadata"]["name"])


if __name__ == "__main__":
    unittest.main()
