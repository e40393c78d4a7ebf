"""What the checks share: which files there are, and C text without its comments and strings."""

import pathlib
import re

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
PROGRAMS = ["common", "worker", "tests/sim"]  # what is shipped, and what stands in for the world
BLANKED = re.compile(r"//[^\n]*|/\*.*?\*/|\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*'", re.S)


def c_files(*folders):
    """Every .c and .h below the folders (all of ours when none is given), as paths from the root."""
    for folder in folders or ("common", "worker", "tests"):
        for path in sorted((ROOT / folder).rglob("*.[ch]")):
            yield path.relative_to(ROOT)


def text(path):
    return (ROOT / path).read_text(encoding="utf-8")


def code(path, keep_strings=False):
    """The file's text; comments, and unless kept strings, are blanked. Line numbers stay."""
    def blank(match):
        found = match.group(0)
        if keep_strings and found[0] in "\"'":
            return found
        return "\n" * found.count("\n") or found[0] * 2

    return BLANKED.sub(blank, text(path))


def finish(problems):
    """Prints the problems; the exit code of the check."""
    problems = list(problems)
    for problem in problems:
        print(problem)
    return 1 if problems else 0
