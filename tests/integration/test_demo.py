"""`make demo` and `make dev`, as whoever tries them sees them."""

import contextlib
import os
import pathlib
import pty
import re
import select
import shlex
import signal
import socket
import subprocess
import sys
import time
import unittest

from harness import LOGS, OUT, PATIENCE, ROOT, http, until

ADDRESS = re.compile(r"127\.0\.0\.1:(\d+)")
LINE = re.compile(r"  (demo-\d\d)  (\w+) +(\w+) +([\d.]+) s(?:  (.*))?$")
FAILURES = {"demo-05": "server_exited", "demo-11": "snapshot_not_found", "demo-16": "server_timeout"}


def listens(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", int(port))) == 0


def read_terminal(terminal, until_text, limit):
    """What is written there until the text comes, or until the other end is closed."""
    said, end = b"", time.monotonic() + limit * PATIENCE
    while until_text is None or until_text.encode() not in said:
        if not select.select([terminal], [], [], max(0, end - time.monotonic()))[0]:
            raise AssertionError(f"waited {limit * PATIENCE} s; it said {said.decode()}")
        try:
            said += os.read(terminal, 65536)
        except OSError:
            break
    return said.decode()


def plain_environment():
    """Without what a make above us has told its children."""
    return {n: v for n, v in os.environ.items() if not n.startswith(("MAKE", "MFLAGS"))}


def end_session(leader):
    with contextlib.suppress(ProcessLookupError):
        os.kill(leader, signal.SIGKILL)  # and the terminal hangs up on the rest


class Demo(unittest.TestCase):
    seconds = 18

    def setUp(self):
        self.folder = LOGS / self.id()
        self.folder.mkdir(parents=True, exist_ok=True)
        self.log = self.folder / "demo.log"

    def begin(self, *options):
        argv = [sys.executable, ROOT / "tests/demo/demo.py", "--free-ports", "--folder", self.folder, *options]
        with open(self.log, "wb") as log:
            self.demo = subprocess.Popen(argv, stdout=log, stderr=subprocess.STDOUT, cwd=ROOT)
        self.addCleanup(self.demo.wait)
        self.addCleanup(self.demo.kill)

    def begin_dev_by_make(self):
        """As people do, on whatever ports are free."""
        argv = ["make", "-s", "dev", f"BUILD={OUT.parent}", f"FLAVOUR={OUT.name}"]
        with open(self.log, "wb") as log:
            self.demo = subprocess.Popen(argv, stdout=log, stderr=subprocess.STDOUT, cwd=ROOT,
                                         env=plain_environment())
        self.addCleanup(self.demo.wait)
        self.addCleanup(self.demo.kill)
        self.until_said("Ctrl-C ends it all.", 60)

    def listening(self):
        ports = set(ADDRESS.findall(self.said()))
        self.assertGreaterEqual(len(ports), 4, self.said())
        return [p for p in ports if listens(p)]

    def said(self):
        return self.log.read_text()

    def until_said(self, text, limit=30):
        until(lambda: text in self.said() or self.demo.poll() is not None, limit, self.said)
        self.assertIn(text, self.said())

    def ended(self, limit=60):
        """Its exit code; by then everything that it started has ended."""
        code = self.demo.wait(limit * PATIENCE)
        self.assertEqual(self.listening(), [], "something still listens")
        return code

    def test_demo(self):
        self.begin()
        self.assertEqual(self.ended(), 0, self.said())
        said = self.said()
        self.assertIn("in-memory", said)
        self.assertIn("at-least-once", said)
        lines = [m.groups() for m in map(LINE.match, said.splitlines()) if m]
        last = {session: (step, note) for session, _, step, _, note in lines}
        self.assertEqual(sorted(last), [f"demo-{i:02}" for i in range(1, 21)])
        self.assertEqual({kind for _, kind, *_ in lines}, {"v0", "v1", "custom"})
        for session, (end, note) in last.items():
            if session != "demo-11":  # which fails so fast that its result may overtake its progress
                self.assertIn((session, "create"), {(s, step) for s, _, step, *_ in lines}, "no progress was told")
            if session in FAILURES:
                self.assertEqual((end, note.split()[0]), ("failed", FAILURES[session]))
            else:
                self.assertEqual((end, note[:7]), ("ready", "http://"))
        self.assertIn("\n17 ready, 3 failed\n", said)
        for session, code in FAILURES.items():
            self.assertRegex(said, rf"\n  {session}  {code} at \w+: .+\n")
        self.assertRegex(said, r"\nfrom job to ready +p50 \d+\.\d s, p99 \d+\.\d s\n")
        self.assertGreater(float(re.search(r"\nrequests per session +([\d.]+)\n", said)[1]), 7)
        self.assertIn("17 = 17 announced\n", said)

    def test_demo_that_goes_wrong(self):
        self.begin()
        self.until_said("  demo-01  ")
        children = pathlib.Path(f"/proc/{self.demo.pid}/task/{self.demo.pid}/children").read_text().split()
        names = {pathlib.Path(f"/proc/{pid}/comm").read_text().strip(): int(pid) for pid in children}
        os.kill(names["daytona-sim"], signal.SIGKILL)
        self.assertEqual(self.ended(), 1, self.said())
        self.assertRegex(self.said(), r"\nwrong: no result of .*ended: simulator\n")

    def test_dev(self):
        self.begin("--keep")
        self.until_said("Ctrl-C ends it all.")
        commands = re.findall(r"^  (\S*sessionctl (?:start|delete) .*--wait)$", self.said(), re.M)
        outcomes = []
        for command in commands:
            run = subprocess.run(shlex.split(command), cwd=ROOT, timeout=30 * PATIENCE, text=True,
                                 stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
            outcomes.append((run.returncode, *re.findall(r"READY|server_exited|DELETED", run.stdout)))
        self.assertEqual(outcomes, [(0, "READY"), (1, "server_exited"), (0, "DELETED")])
        pages = re.findall(r"http://127\.0\.0\.1:\d+/(?:sessions|_sim/ledger)", self.said())
        self.assertEqual([http("GET", page)[0] for page in pages], [200, 200])
        self.demo.send_signal(signal.SIGINT)
        self.assertEqual(self.ended(), 0, self.said())

    def test_a_demo_that_is_interrupted(self):
        self.begin()
        self.until_said("  demo-01  ")
        self.demo.send_signal(signal.SIGINT)
        self.assertEqual(self.ended(), 130, self.said())
        self.assertRegex(self.said(), r"\nInterrupted; everything has been stopped\.\n$")
        self.assertNotIn("wrong", self.said())

    def test_it_ends_with_make(self):
        """However that ends. And what dev prints is not what a demo beside it overwrites."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            with self.subTest(number):
                self.begin_dev_by_make()
                self.assertIn(f"-c {os.path.relpath(OUT / 'dev/worker-1.cfg', ROOT)} ", self.said())
                self.assertEqual(len(self.listening()), 4)
                self.demo.send_signal(number)
                self.demo.wait(30 * PATIENCE)
                until(lambda: not self.listening(), 30, lambda: f"{self.listening()} are still listened on")

    def test_ctrl_c_is_no_error_of_make(self):
        """As typed on a terminal: `make dev`, Ctrl-C, and make has nothing to complain about."""
        makefile = self.folder / "Makefile"
        argv = shlex.join(map(str, [sys.executable, ROOT / "tests/demo/demo.py", "--keep", "--free-ports",
                                    "--folder", self.folder]))
        makefile.write_text(f"dev:\n\t@{argv}\n")
        pid, terminal = pty.fork()
        if pid == 0:
            os.execvpe("make", ["make", "-s", "-f", str(makefile)],
                       plain_environment())
        self.addCleanup(end_session, pid)
        said = read_terminal(terminal, "Ctrl-C ends it all.", 30)
        os.write(terminal, b"\x03")
        said += read_terminal(terminal, None, 30)
        self.assertEqual(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), 0, said)
        self.assertRegex(said, r"\nStopping …\r?\nEverything has been stopped\.\s*$")


if __name__ == "__main__":
    unittest.main()
