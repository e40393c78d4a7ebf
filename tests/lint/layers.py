#!/usr/bin/python3
"""Includes point downward only, and are written from the root.

    main, ctl, io -> core -> provider -> common;  tests/sim knows common alone
"""

import re
import sys

from _source import ROOT, c_files, code, finish

# Folder (the longest that fits) -> the folders whose headers it may include, besides its own.
MAY_INCLUDE = {
    "common": [],
    "worker/provider": ["common"],
    "worker/core": ["worker/provider", "common"],
    "worker/io": ["worker/core", "worker/provider", "common"],
    "worker/ctl": ["worker/io", "common"],
    "worker": ["worker/io", "worker/core", "worker/provider", "common"],  # main.c
    "tests/sim": ["common"],
    "tests/sim/explore": ["tests/sim", "worker/core", "worker/provider", "common"],
    "tests/sim/world": ["tests/sim", "worker/core", "worker/provider", "common"],
    "tests": ["tests", "worker", "common"],
}
INCLUDE = re.compile(r'^\s*#\s*include\s+"([^"]+)"', re.M)
OUTSIDE = re.compile(r'^\s*#\s*include\s+<((?:common|worker|tests)/[^>]+)>', re.M)


def layer(path):
    """tests/sim's explore.c and world.c count as layers of their own: they host the core."""
    name = str(path)
    fits = [f for f in MAY_INCLUDE if name.startswith(f + "/") or name.startswith(f + ".")
            or re.match(re.escape(f) + r"[._]", name)]
    return max(fits, key=len)


def main():
    problems = []
    for path in c_files():
        here = layer(path)
        allowed = [here, *MAY_INCLUDE[here]]
        source = code(path, keep_strings=True)
        for name in INCLUDE.findall(source):
            if not (ROOT / name).is_file():
                problems.append(f'{path}: "{name}" is no file seen from the root')
            elif not any(name.startswith(f + "/") for f in allowed):
                problems.append(f'{path}: {here} must not include "{name}"')
        for name in OUTSIDE.findall(source):
            problems.append(f"{path}: our own <{name}> goes in quotes")
    return finish(problems)


if __name__ == "__main__":
    sys.exit(main())
