#!/usr/bin/python3
"""clang-format decides. One version of it (both Debian 12 and 13 have 19), because they differ.

With --fix the files are rewritten instead of judged.
"""

import subprocess
import sys

from _source import ROOT, c_files, finish


def main():
    files = [str(path) for path in c_files()]
    if "--fix" in sys.argv[1:]:
        return subprocess.run(["clang-format-19", "-i", *files], cwd=ROOT, timeout=120).returncode
    judge = subprocess.run(["clang-format-19", "--dry-run", *files], cwd=ROOT, timeout=120, check=True,
                           capture_output=True, text=True)
    wrong = {line.split(":")[0] for line in judge.stderr.splitlines() if "clang-formatted" in line}
    return finish(f"{path}: not as clang-format has it (make format)" for path in sorted(wrong))


if __name__ == "__main__":
    sys.exit(main())
