#!/usr/bin/python3
"""Breaks the core on purpose: every *.patch here is a one-line mistake, and a test must notice it.

Works on a copy of the tree in build/mutants, with the objects already built, so that a mutant costs
the compilation of one file. A patch that does not apply, or does not compile, is a failure too: it
proves nothing.
"""

import os
import pathlib
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
EXPLORE = "explore:" in (ROOT / "Makefile").read_text()


def run(*argv, limit=600):
    child = subprocess.run([str(a) for a in argv], cwd=TREE, text=True, errors="replace", timeout=limit,
                           stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                           env={**os.environ, "MAKEFLAGS": "", "BUILD": "build"})
    return child.returncode, child.stdout


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


def judge(patch):
    """(noticed, how)"""
    code, output = run("patch", "-p1", "--forward", "--no-backup-if-mismatch", "-i", patch)
    if code != 0:
        return False, f"does not apply:\n{output}"
    try:
        code, output = run(*MAKE, "unit-programs")
        if code != 0:
            return False, f"does not compile:\n{output[-2000:]}"
        code, output = run("tests/run.py", "unit", "core/")
        if code == 0 and EXPLORE:
            code, output = run(*MAKE, "explore")
    finally:
        run("patch", "-p1", "--reverse", "--no-backup-if-mismatch", "-i", patch)
    lines = [line.strip(" |") for line in output.splitlines()]
    red = [line for line in lines if line.startswith("not ok") or "violated" in line]
    return code != 0, "; ".join(red[:2]) or "the test program died"


def main():
    patches = sorted(HERE.glob("*.patch"))
    copy_tree()
    code, output = run(*MAKE, "unit-programs")
    if code == 0:
        code, output = run("tests/run.py", "unit", "core/")
    if code != 0:
        print(f"the core's tests are red without any mutant:\n{output[-3000:]}")
        return 1
    survived = 0
    for patch in patches:
        began = time.monotonic()
        noticed, how = judge(patch)
        survived += not noticed
        print(f"{'ok  ' if noticed else 'FAIL'} mutant {patch.stem}  {time.monotonic() - began:.1f} s: "
              f"{how if noticed or 'not ' in how else 'no test noticed it'}", flush=True)
    print(f"{len(patches) - survived} passed, {survived} failed, 0 skipped")
    return 1 if survived or not patches else 0


if __name__ == "__main__":
    sys.exit(main())
