#!/usr/bin/python3
"""Runs the commands of README.md as a reader would: every ```sh block, in order, in one shell.

A block that cannot be run here (it needs an account, a container engine, another machine) stands
behind a comment that says why:  <!-- not run: needs a Daytona key -->
"""

import contextlib
import os
import pathlib
import re
import signal
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
BLOCK = re.compile(r"(?:<!-- not run: (?P<why>[^>]*?) -->\s*\n)?^```sh\n(?P<text>.*?)^```", re.S | re.M)
LINK = re.compile(r"\]\((?!https?:)([^)#]+)\)")
LIMIT = 600  # seconds for all of them


def main():
    text = (ROOT / "README.md").read_text()
    missing = [path for path in LINK.findall(text) if not (ROOT / path).exists()]
    if missing:
        print(f"README.md points at what is not there: {', '.join(missing)}")
        return 1
    blocks = list(BLOCK.finditer(text))
    script = ["set -euo pipefail"]
    for block in blocks:
        if block["why"]:
            print(f"not run: {block['why']}")
            continue
        for line in block["text"].splitlines():
            script.append(line.removeprefix("$ "))
    if len(script) == 1:
        print("README.md has no commands to run")
        return 1
    shell = subprocess.Popen(["bash", "-c", "\n".join(script)], cwd=ROOT, stdin=subprocess.DEVNULL,
                             start_new_session=True)
    try:
        return shell.wait(LIMIT)
    finally:  # what it left running, too
        with contextlib.suppress(ProcessLookupError):
            os.killpg(shell.pid, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main())
