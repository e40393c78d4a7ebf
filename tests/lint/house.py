#!/usr/bin/python3
"""The house: what stands at the top level, a README.md in each folder, no program text too long.

The top level belongs to the user, who should see at a glance what there is.
"""

import re
import sys

from _source import PROGRAMS, ROOT, c_files, finish, text

TOP = {"worker", "common", "config", "tests", "docker-compose.yml", "Makefile", "README.md", "LICENSE"}
OUTPUT = {"build"}
FOLDERS = ["worker", "common", "config", "tests"]
LONGEST_FUNCTION = 70
BODY = re.compile(r"^\{\n(.*?)^\}", re.S | re.M)


def functions(source):
    """(line, length) of every function: a brace alone in the first column, to its partner."""
    for body in BODY.finditer(source):
        yield source.count("\n", 0, body.start()) + 1, body.group(1).count("\n")


def main():
    here = {p.name for p in ROOT.iterdir() if not p.name.startswith(".")} - OUTPUT
    problems = [f"{name}: does not belong at the top level" for name in sorted(here - TOP)]
    problems += [f"{name}: is missing at the top level" for name in sorted(TOP - here)]
    problems += [f"{f}/README.md is missing" for f in FOLDERS if not (ROOT / f / "README.md").is_file()]
    for path in c_files():
        if not text(path).startswith("/*"):
            problems.append(f"{path}: does not begin by saying what it is")
    for path in c_files(*PROGRAMS):
        for number, length in functions(text(path)):
            if length > LONGEST_FUNCTION:
                problems.append(f"{path}:{number}: a function of {length} lines, {LONGEST_FUNCTION} are allowed")
    return finish(problems)


if __name__ == "__main__":
    sys.exit(main())
