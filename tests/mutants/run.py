#!/usr/bin/python3
"""Breaks the worker on purpose: every *.patch here is a small mistake, and the tests must notice it.

Three judges, each on its own: the unit tests of core and provider, the random schedules, and the
exhaustive ones (with one fault; with two when neither found it). The explorer must find every mutant:
so they prove that it bites. One that no explorer can see says so in its head, with the reason, in a
line that begins with "Unit tests only:". A patch that does not apply, or does not compile, is a
failure too: it proves nothing.

Works on a copy of the tree in build/mutants, with the objects already built, so that a mutant costs
the compilation of one file. Arguments: parts of names, to run only those. With QUICK=1 a mutant is
judged until one judge has found it, the fastest one first.
"""

import os
import pathlib
import re
import shutil
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
BUILD = ROOT / os.environ.get("BUILD", "build")
TREE = BUILD / "mutants"
PARTS = ["Makefile", "common", "worker", "config", "tests", "build/release"]
MAKE = ["make", "--no-print-directory", "BUILD=build", "FLAVOUR=release"]
EXPLORE = "build/release/explore"
SEEDS = 1000
LIMIT = 900  # seconds for one judge
ONLY_UNIT = "Unit tests only:"
QUICK = bool(os.environ.get("QUICK"))


def run(*argv, limit=LIMIT):
    """(exit code, output); -1 when the time is up."""
    child = subprocess.Popen([str(a) for a in argv], cwd=TREE, text=True, errors="replace", start_new_session=True,
                             stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                             env={**os.environ, "MAKEFLAGS": "", "BUILD": "build", "FLAVOUR": "release"})
    try:
        output, _ = child.communicate(timeout=limit)
        return child.returncode, output
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, 9)
        return -1, child.communicate()[0]


def copy_tree():
    shutil.rmtree(TREE, ignore_errors=True)
    for part in PARTS:
        source = (BUILD / "release") if part == "build/release" else ROOT / part
        target = TREE / part
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("logs", "kafka"))
        elif source.exists():
            shutil.copy2(source, target)


def build():
    tests = [p for layer in ("core", "provider") for p in sorted((TREE / "tests/unit" / layer).glob("test_*.c"))]
    programs = [f"build/release/{p.relative_to(TREE).with_suffix('')}" for p in tests]
    return run(*MAKE, "-j2", EXPLORE, *programs)


class Verdict:
    """What one judge says: found or not, how long it took, and in which words."""

    def __init__(self, argv, words):
        began = time.monotonic()
        self.code, self.output = run(*argv)
        self.seconds = time.monotonic() - began
        found = re.findall(words, self.output, re.M)
        self.found = self.code not in (0, -1) and "digest is too coarse" not in self.output
        self.words = (found[0] if found else "died").strip() if self.found else ""

    def __str__(self):
        return f"{self.seconds:.1f} s" if self.found else "-"


def unit():
    return Verdict(["tests/run.py", "unit", "core/", "provider/"], r"^\s*\|?\s*not ok \d+ - (.*)$")


def randomly():
    return Verdict([EXPLORE, "--runs", SEEDS, "--no-shorten"], r"^(seed .*)$")


def exhaustively(faults):
    return Verdict([EXPLORE, "--exhaustive", "--faults", faults], r"^(.* faults, \d+ steps: violated: .*)$")


class NotAsked:
    found, words = False, ""

    def __str__(self):
        return "(not asked)"


def verdicts(only_unit):
    """Of the unit tests, the random and the exhaustive schedules."""
    if QUICK and only_unit:
        return [unit(), NotAsked(), NotAsked()]
    by = [NotAsked() if QUICK else unit(), randomly(), NotAsked()]
    if not (QUICK and by[1].found):
        by[2] = exhaustively(1)
    if not only_unit and not by[1].found and not by[2].found:
        by[2] = exhaustively(2)
    return by


def judge(patch):
    """(a row of the table, whether all is well)"""
    code, output = run("patch", "-p1", "--forward", "--no-backup-if-mismatch", "-i", patch)
    if code != 0:
        return [patch.stem, "does not apply", "", "", output[-300:]], False
    try:
        code, output = build()
        if code != 0:
            return [patch.stem, "does not compile", "", "", output[-1000:]], False
        only_unit = ONLY_UNIT in patch.read_text().split("--- a/")[0]
        by = verdicts(only_unit)
    finally:
        run("patch", "-p1", "--reverse", "--no-backup-if-mismatch", "-i", patch)
    words = by[2].words or by[1].words or by[0].words
    ok = by[0].found if only_unit else by[1].found or by[2].found
    return [patch.stem, *map(str, by), words + (" (unit tests only)" if only_unit else "")], ok


def print_table(rows):
    rows = [["mutant", "unit tests", "random", "exhaustive", "found as"], *rows]
    widths = [max(len(r[i]) for r in rows) for i in range(4)]
    for row in rows:
        print("  ".join(cell.ljust(w) for cell, w in zip(row, widths)) + "  " + row[4].replace("\n", " ")[:110])


def healthy():
    """Without any mutant nothing is found."""
    code, output = build()
    for judges in (unit, randomly, lambda: exhaustively(1)) if code == 0 else ():
        verdict = judges()
        code, output = verdict.code, verdict.output
        if code != 0:
            break
    if code != 0:
        print(f"red without any mutant:\n{output[-3000:]}")
    return code == 0


def main():
    patches = [p for p in sorted(HERE.glob("*.patch")) if not sys.argv[1:] or any(a in p.stem for a in sys.argv[1:])]
    copy_tree()
    if not healthy():
        return 1
    rows, failed = [], 0
    for patch in patches:
        row, ok = judge(patch)
        rows.append(row)
        failed += not ok
        print(f"{'ok  ' if ok else 'FAIL'} mutant {'  '.join(row)[:300]}", flush=True)
    print()
    print_table(rows)
    print(f"{len(patches) - failed} passed, {failed} failed, 0 skipped")
    return 1 if failed or not patches else 0


if __name__ == "__main__":
    sys.exit(main())
