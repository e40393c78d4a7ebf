#!/usr/bin/python3
"""clang-format decides. One version of it (both Debian 12 and 13 have 19), because they differ.

With --fix the files are rewritten instead of judged.
"""

import subprocess
import sys

from _source import ROOT, c_files


def main():
    files = [str(path) for path in c_files()]
    how = ["-i"] if "--fix" in sys.argv[1:] else ["--dry-run", "--Werror"]
    if not files:
        return 0
    return subprocess.run(["clang-format-19", *how, *files], cwd=ROOT, timeout=120).returncode


if __name__ == "__main__":
    sys.exit(main())
