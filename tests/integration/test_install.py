"""`make install`, the systemd unit, and what the worker tells its service manager."""

import os
import re
import shutil
import signal
import socket
import subprocess
import time
import unittest

from harness import LOGS, OUT, PATIENCE, ROOT, Case, Worker, free_port, start, until

EXPOSURE = 15  # of 100, by `systemd-analyze security`


def run(*argv):
    env = {n: v for n, v in os.environ.items() if not n.startswith(("MAKE", "MFLAGS"))}
    done = subprocess.run([*map(str, argv)], cwd=ROOT, env=env, timeout=60 * PATIENCE, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    return done.returncode, done.stdout


class Install(unittest.TestCase):
    seconds = 5

    def setUp(self):
        self.stage = LOGS / self.id() / "stage"
        shutil.rmtree(self.stage, ignore_errors=True)
        self.stage.mkdir(parents=True)

    def install(self, *settings):
        code, said = run("make", "-s", "install", f"BUILD={OUT.parent}", f"FLAVOUR={OUT.name}", *settings)
        self.assertEqual(code, 0, said)

    def test_files(self):
        self.install(f"DESTDIR={self.stage}", "PREFIX=/usr")
        found = {str(p.relative_to(self.stage)): oct(p.stat().st_mode & 0o777)
                 for p in self.stage.rglob("*") if p.is_file()}
        wanted = {"usr/bin/session-worker": "0o755", "usr/bin/sessionctl": "0o755",
                  "usr/lib/systemd/system/session-worker.service": "0o644",
                  "etc/session-worker/worker.cfg": "0o644",
                  "usr/share/session-worker/worker.cfg": "0o644",
                  "usr/share/session-worker/alerts.yml": "0o644",
                  "usr/share/session-worker/dashboard.json": "0o644",
                  "usr/share/doc/session-worker/README.md": "0o644",
                  **{f"usr/share/session-worker/schema/{p.name}": "0o644"
                     for p in (ROOT / "config/schema").iterdir()}}
        self.assertEqual(found, wanted)
        self.assertEqual(run(self.stage / "usr/bin/sessionctl", "--help")[0], 0)

    def test_symbols(self):
        """They stay behind, unless they are asked for."""
        for settings, kept in ((), False), (("STRIP=",), True):
            with self.subTest(settings):
                self.install(f"DESTDIR={self.stage}", "PREFIX=/usr", *settings)
                for program in "session-worker", "sessionctl":
                    code, said = run("readelf", "-S", "-W", self.stage / "usr/bin" / program)
                    self.assertEqual(code, 0, said)
                    self.assertEqual((".debug_info" in said, ".symtab" in said), (kept, kept))

    def test_a_configuration_is_never_overwritten(self):
        mine = self.stage / "etc/session-worker/worker.cfg"
        mine.parent.mkdir(parents=True)
        mine.write_text("# mine\n")
        self.install(f"DESTDIR={self.stage}", "PREFIX=/usr")
        self.assertEqual(mine.read_text(), "# mine\n")

    def test_unit(self):
        """Where it is installed as it stands, systemd finds nothing wrong with it, and little open."""
        self.install(f"PREFIX={self.stage}/usr", f"SYSCONFDIR={self.stage}/etc")
        unit = self.stage / "usr/lib/systemd/system/session-worker.service"
        self.assertNotIn("@", re.sub(r"@system-service|@privileged|@resources", "", unit.read_text()))
        self.assertEqual(run("systemd-analyze", "verify", unit), (0, ""))
        code, said = run("systemd-analyze", "security", "--offline=true", f"--threshold={EXPOSURE}", unit)
        self.assertEqual(code, 0, said)

    def test_times(self):
        """The manager waits longer than the worker drains."""
        unit = (ROOT / "config/systemd/session-worker.service").read_text()
        drain = re.search(r"drain = \{.*?timeout_seconds = (\d+);", (ROOT / "config/worker.cfg").read_text(), re.S)
        self.assertGreaterEqual(int(re.search(r"^TimeoutStopSec=(\d+)$", unit, re.M)[1]), int(drain[1]) + 15)


class Manager:
    """Plays systemd: the datagrams in the order they came, each with its time and its lines."""

    def __init__(self):
        name = f"session-worker-test-manager-{os.getpid()}"
        self.address = f"@{name}"  # as NOTIFY_SOCKET has it
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(f"\0{name}")
        self.socket.setblocking(False)
        self.heard = []

    def listen(self):
        while True:
            try:
                lines = self.socket.recv(4096).decode().splitlines()
            except BlockingIOError:
                return self.heard
            self.heard.append((time.monotonic(), dict(line.split("=", 1) for line in lines)))

    def all_of(self, name):
        return [(when, lines[name]) for when, lines in self.listen() if name in lines]


class Notify(Case):
    seconds = 12
    partitions = 2

    def managed(self, **settings):
        """A worker below a manager of its own; not waited for."""
        manager = Manager()
        self.addCleanup(manager.socket.close)
        worker = Worker(self, "managed", {k.replace("__", "."): v for k, v in settings.items()})
        worker.env = {**worker.env, "NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": "4000000"}
        self.workers.append(worker)
        worker.start(ready=False)
        self.addCleanup(self.drained, worker)
        return worker, manager

    def test_ready_status_stopping(self):
        worker, manager = self.managed()
        until(lambda: manager.all_of("READY"), 20, "no READY=1", pause=0.01)
        self.assertEqual(worker.page("/readyz")[0], 200)
        self.produce(start("S1", "sim-slow"))
        until(lambda: any("1 jobs in hand" in text for _, text in manager.all_of("STATUS")), 10,
              lambda: manager.heard)
        until(lambda: any(text == "ready; 0 jobs in hand, 0 parked, 2 partitions"
                          for _, text in manager.all_of("STATUS")[-1:]), 20, lambda: manager.heard)
        self.results.wait(lambda events: len(events) == 1, 5, lambda events: events)
        worker.send(signal.SIGTERM)
        until(lambda: manager.all_of("STOPPING"), 5, "no STOPPING=1", pause=0.01)
        self.assertEqual(worker.process.wait(20 * PATIENCE), 0)
        self.assertEqual(len(manager.all_of("READY")), 1)
        self.assertEqual(len(manager.all_of("STOPPING")), 1)
        self.assertIn("draining", manager.all_of("STATUS")[-1][1])
        self.assert_not_chatty(manager)

    def assert_not_chatty(self, manager):
        """At most a status a second, but for readiness and the end; a watchdog that is fed in time."""
        calm = [when for when, lines in manager.heard
                if "STATUS" in lines and not {"READY", "STOPPING"} & set(lines)]
        self.assertTrue(all(b - a > 0.9 for a, b in zip(calm, calm[1:])), manager.heard)
        fed = [when for when, _ in manager.all_of("WATCHDOG")]
        self.assertTrue(len(fed) > 2 and all(b - a < 4 for a, b in zip(fed, fed[1:])), manager.heard)

    def test_a_second_signal_ends_it_at_once(self):
        worker, _ = self.managed()
        self.produce(start("S1", "sim-slow"))
        until(lambda: worker.metric("jobs_in_flight") == 1, 20, worker.tail)
        worker.send(signal.SIGTERM)
        until(lambda: "draining" in worker.tail(), 5, worker.tail)
        worker.send(signal.SIGTERM)
        self.assertEqual(worker.process.wait(5 * PATIENCE), 1)
        self.assertIn("ended by a second signal", worker.tail(1))
        worker.killed = True  # and has not drained

    def test_not_ready_without_a_broker(self):
        worker, manager = self.managed(kafka__brokers=f"127.0.0.1:{free_port()}")
        until(lambda: manager.all_of("STATUS"), 10, "no STATUS")
        time.sleep(1.5)
        self.assertEqual(manager.all_of("READY"), [])
        self.assertRegex(manager.all_of("STATUS")[-1][1], "^not ready: ")


if __name__ == "__main__":
    unittest.main()
