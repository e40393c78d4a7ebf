#!/usr/bin/python3
"""Runs lint checks, unit tests, simulations and integration tests, and adds them up into one closing line.

    tests/run.py [lint] [unit] [corpora] [simulation] [integration] [NAME]...

A NAME keeps what contains it. Every integration test runs in a process of its own, a few at a time
(JOBS, default 4: they mostly wait), against one shared broker. FLAVOUR and BUILD choose the
programs, VALGRIND=1 runs workers under valgrind. Exit 0: nothing failed; with NO_SKIPS=1, nothing
was skipped either.
"""

import concurrent.futures
import os
import pathlib
import re
import signal
import subprocess
import sys
import time
import unittest

TESTS = pathlib.Path(__file__).resolve().parent
ROOT = TESTS.parent
OUT = ROOT / os.environ.get("BUILD", "build") / os.environ.get("FLAVOUR", "release")
LOGS = OUT / "logs"
PARTS = ("lint", "unit", "corpora", "simulation", "integration")
LIMIT = {"lint": 120, "unit": 300, "corpora": 60, "simulation": 300, "integration": 300}  # seconds for one item
SLOW = 4 if os.environ.get("VALGRIND") or OUT.name == "asan" or os.environ.get("SOAK") else 1
TAP = re.compile(r"^(ok|not ok) \d+ (-|# SKIP)", re.M)  # cmocka 1.1.5: "not ok 2 # SKIP name"

MODULES = [str(TESTS / "integration"), str(TESTS / "kafka")]
sys.path[:0] = MODULES
REASONS = []  # of what failed: said again at the end


class Tally:
    def __init__(self, passed=0, failed=0, skipped=0):
        self.passed, self.failed, self.skipped = passed, failed, skipped

    def add(self, other):
        self.passed += other.passed
        self.failed += other.failed
        self.skipped += other.skipped

    def __str__(self):
        return f"{self.passed} passed, {self.failed} failed, {self.skipped} skipped"


def run(argv, limit, **env):
    """(exit code, output). Its own process group, ended as a whole when the time is up, or when we
    end (what it starts dies with it in turn)."""
    child = subprocess.Popen(["setpriv", "--pdeathsig", "KILL", *argv], cwd=ROOT, env={**os.environ, **env}, text=True, errors="replace",
                             stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                             stderr=subprocess.STDOUT, start_new_session=True)
    try:
        output, _ = child.communicate(timeout=limit)
        return child.returncode, output
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)
        output, _ = child.communicate()
        return -1, f"{output}\nstill running after {limit} s"


def judge_lint(code, output):
    return Tally(passed=int(code == 0), failed=int(code != 0))


def judge_unit(code, output):
    """Counts TAP lines; a program that died or tested nothing has failed whatever it printed."""
    tally = Tally()
    for verdict, kind in TAP.findall(output):
        tally.add(Tally(skipped=1) if kind != "-" else
                  Tally(passed=1) if verdict == "ok" else Tally(failed=1))
    if (code != 0 and not tally.failed) or not (tally.passed + tally.failed + tally.skipped):
        tally.failed += 1
    return tally


def judge_integration(code, output):
    if code != 0:
        return Tally(failed=1)
    return Tally(skipped=1) if re.search(r"^OK \(skipped=", output, re.M) else Tally(passed=1)


def lint_items():
    for script in sorted((TESTS / "lint").glob("[a-z]*.py")):
        yield script.stem, [sys.executable, str(script)], {}


def unit_items():
    for source in sorted((TESTS / "unit").glob("*/test_*.c")):
        program = OUT / source.relative_to(ROOT).with_suffix("")
        yield f"{source.parent.name}/{source.stem}", [str(program)], {"CMOCKA_MESSAGE_OUTPUT": "TAP"}


def corpora_items():
    for corpus in sorted((TESTS / "fuzz/corpus").iterdir()):
        yield corpus.name, [str(OUT / "tests/fuzz" / corpus.name), str(corpus)], {}


def simulation_items():
    runs = os.environ.get("RUNS", "200")
    for first in (1, 100001): # two stretches, so that both cores have work
        yield f"explore from seed {first}", [str(OUT / "explore"), "--seed", str(first), "--runs", runs], {}
    yield "every schedule of start and delete with one fault", [
        str(OUT / "explore"), "--exhaustive", "--pair", "start/delete", "--faults", "1"], {}


def cases(suite):
    for item in suite:
        if isinstance(item, unittest.TestSuite):
            yield from cases(item)
        else:
            yield item


def seconds(case):
    """About how long it takes, as the test or else its class says."""
    test = getattr(case, case._testMethodName, case)
    return getattr(test, "seconds", getattr(case, "seconds", 10))


def integration_items():
    """Longest first, so that the last one to end is a short one."""
    found = list(cases(unittest.TestLoader().discover(str(TESTS / "integration"))))
    for case in sorted(found, key=lambda c: -seconds(c)):
        yield case.id(), [sys.executable, "-m", "unittest", case.id()], {
            "PYTHONPATH": os.pathsep.join(MODULES)}


ITEMS = {"lint": lint_items, "unit": unit_items, "corpora": corpora_items,
         "simulation": simulation_items, "integration": integration_items}
JUDGE = {"lint": judge_lint, "unit": judge_unit, "corpora": judge_lint,
         "simulation": judge_lint, "integration": judge_integration}


def reason(output):
    """Of a failure, in some lines: what the last exception says, else how the output ends."""
    told = list(re.finditer(r"^(?:\w+\.)*\w*(?:Error|Exception|Exit)\b.*(?:\n.+){0,12}", output, re.M))
    return (told[-1][0] if told else "\n".join(output.strip().splitlines()[-5:]))[:1200]


def run_item(part, name, argv, env):
    began = time.monotonic()
    try:
        code, output = run(argv, LIMIT[part] * SLOW, **env)
    except OSError as why:
        code, output = -1, str(why)
    tally = JUDGE[part](code, output)
    log = LOGS / f"{part}.{name.replace('/', '.')}.txt"
    log.write_text(output)
    word = "FAIL" if tally.failed else "skip" if tally.skipped and not tally.passed else "ok"
    count = f" ({tally})" if part == "unit" else ""
    print(f"{word:4} {part}/{name}{count}  {time.monotonic() - began:.1f} s", flush=True)
    if tally.failed:
        print("     | " + output.strip()[-6000:].replace("\n", "\n     | "), flush=True)
        REASONS.append(f"{part}/{name}: {reason(output)}")
    return tally


def run_part(part, names, jobs):
    items = [i for i in ITEMS[part]() if not names or any(n in i[0] for n in names)]
    total, began = Tally(), time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        for tally in pool.map(lambda item: run_item(part, *item), items):
            total.add(tally)
    print(f"---- {part}: {total}, {time.monotonic() - began:.0f} s", flush=True)
    return total


def run_integration(names):
    import broker
    kafka = broker.Broker(LOGS / "kafka", session_ms=20000)  # nobody kills this one
    kafka.format()
    kafka.start()
    os.environ["TEST_KAFKA"] = kafka.address
    try:
        return run_part("integration", names, int(os.environ.get("JOBS", "4")))
    finally:
        kafka.stop()


def main():
    parts = [a for a in sys.argv[1:] if a in PARTS] or list(PARTS)
    names = [a for a in sys.argv[1:] if a not in PARTS]
    LOGS.mkdir(parents=True, exist_ok=True)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: os._exit(130))
    total = Tally()
    for part in parts:
        total.add(run_integration(names) if part == "integration" else run_part(part, names, 2))
    if not total.passed + total.failed + total.skipped:
        print("no test has run")
        total.failed = 1
    for text in REASONS:
        print("failed: " + text.replace("\n", "\n     | "))
    print(total)
    return 1 if total.failed or (total.skipped and os.environ.get("NO_SKIPS")) else 0


if __name__ == "__main__":
    sys.exit(main())
