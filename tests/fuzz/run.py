#!/usr/bin/python3
"""Runs the fuzz targets under libFuzzer, two at a time, and says what each has seen.

    tests/fuzz/run.py [--seconds 60] [--keep] [TARGET]...

Each starts from corpus/<target>/ and its dictionary; what it finds on the way stays in
build/fuzz/corpus/<target>/ and is used again. An input that breaks a property ends its target and is
kept in build/fuzz/found/. With --keep the corpora in the tree are made anew: what has a name stays,
and of the smallest set of inputs that reaches as much as everything found so far some are added, up to
MOST. Exit 0: nothing broke.
"""

import argparse
import concurrent.futures
import os
import pathlib
import re
import shutil
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
OUT = ROOT / os.environ.get("BUILD", "build") / "fuzz"
PROGRAMS, FOUND, GROWN = OUT / "tests/fuzz", OUT / "found", OUT / "corpus"
COMMON = {"fuzz", "replay"}
NAMELESS = re.compile("[0-9a-f]{12}")  # how --keep calls what it adds
LONGEST = 8192  # bytes of an input
MOST, MOST_BYTES = 40, 65536  # inputs kept in the tree, of one target


def targets():
    return sorted(p.stem for p in HERE.glob("*.c") if p.stem not in COMMON)


def libfuzzer(target, *arguments, limit):
    argv = [PROGRAMS / target, f"-max_len={LONGEST}", "-timeout=25", "-rss_limit_mb=2048",
            f"-artifact_prefix={FOUND}/{target}-", *arguments]
    try:
        run = subprocess.run([str(a) for a in argv], cwd=ROOT, timeout=limit, text=True, errors="replace",
                             stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        return run.returncode, run.stdout
    except subprocess.TimeoutExpired as late:
        return -1, f"{late.stdout}\nstill running after {limit} s"


def numbers(output):
    """(executions, edges, features) as far as they are known."""
    runs = re.findall(r"stat::number_of_executed_units: *(\d+)", output) or re.findall(r"^#(\d+)\t", output, re.M)
    seen = re.findall(r"cov: (\d+) ft: (\d+)", output)
    return (int(runs[-1]) if runs else 0, *map(int, seen[-1] if seen else (0, 0)))


def explain(target, output):
    """The lines that matter, and how to see it again."""
    lines = [line for line in output.splitlines()
             if re.search(r"runtime error|ERROR: |is false|^    #\d+ .* /.*/(common|worker|tests)/", line)]
    for line in lines[:12]:
        print(f"     | {line.strip()[:160]}")
    for path in re.findall(r"Test unit written to (\S+)", output):
        print(f"     | again: {PROGRAMS / target} {path}")


def fuzz(target, seconds):
    grown, seeds = GROWN / target, HERE / "corpus" / target
    grown.mkdir(parents=True, exist_ok=True)
    words = HERE / f"{target}.dict"
    code, output = libfuzzer(target, f"-max_total_time={seconds}", "-print_final_stats=1",
                             *([f"-dict={words}"] if words.exists() else []), grown, seeds, limit=seconds + 120)
    runs, edges, features = numbers(output)
    print(f"{'ok  ' if code == 0 else 'FAIL'} {target:8} {runs:9} executions, {runs // max(seconds, 1):6} a second, "
          f"{edges:5} edges, {features:6} features", flush=True)
    (OUT / f"{target}.log").write_text(output)
    if code != 0:
        explain(target, output)
    return code == 0


def keep(target):
    """The corpus in the tree from everything that is known. libFuzzer's -merge keeps the smallest
    inputs; of these the ones that reach most on their own come first."""
    seeds, merged = HERE / "corpus" / target, OUT / "merged" / target
    shutil.rmtree(merged, ignore_errors=True)
    merged.mkdir(parents=True)
    code, output = libfuzzer(target, "-merge=1", "-use_value_profile=0", merged, seeds, GROWN / target, limit=600)
    if code != 0:
        print(f"FAIL {target}: cannot be merged\n{output[-2000:]}")
        return False
    for path in seeds.iterdir():
        if NAMELESS.fullmatch(path.name):
            path.unlink()
    kept = [p.stat().st_size for p in seeds.iterdir()]
    for path in sorted(merged.iterdir(), key=lambda p: -weight(target, p)):
        if len(kept) < MOST and sum(kept) + path.stat().st_size <= MOST_BYTES:
            kept.append(path.stat().st_size)
            shutil.copy(path, seeds / path.name[:12])
    print(f"kept {target:8} {len(kept)} inputs, {sum(kept)} bytes, of {len(list(merged.iterdir()))}", flush=True)
    return True


def weight(target, path):
    """Features that one input reaches alone, for its size."""
    _, output = libfuzzer(target, "-runs=1", path, limit=60)
    _, _, features = numbers(output)
    return features / (200 + path.stat().st_size)


def main():
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--seconds", type=int, default=60)
    options.add_argument("--keep", action="store_true", help="make the corpora in the tree anew")
    options.add_argument("targets", nargs="*")
    args = options.parse_args()
    chosen = [t for t in targets() if not args.targets or t in args.targets]
    FOUND.mkdir(parents=True, exist_ok=True)
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        well = list(pool.map(lambda t: keep(t) if args.keep else fuzz(t, args.seconds), chosen))
    print(f"{sum(well)} passed, {len(well) - sum(well)} failed, 0 skipped")
    return 0 if well and all(well) else 1


if __name__ == "__main__":
    sys.exit(main())
