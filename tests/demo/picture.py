#!/usr/bin/python3
"""Draws tests/demo/demo.svg, the picture in README.md: the demo as it is, on a terminal of its own,
at the moment when half of the sessions are ready, and its summary below.

    tests/demo/picture.py          (after `make demo` has built what it needs)
"""

import fcntl
import html
import os
import pathlib
import pty
import re
import struct
import sys
import termios

HERE = pathlib.Path(__file__).resolve().parent
COLUMNS, ROWS = 104, 40
TOP = "\033[20A"  # the demo goes back to its first line
COLOURS = {"32": "#3fb950", "31": "#f85149", "0": "#c9d1d9"}
CHAR, LINE, MARGIN = 7.8, 17, 16


def record():
    """All that the demo writes to a terminal of that size."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.environ["TERM"] = "xterm"
        os.execv(sys.executable, [sys.executable, str(HERE / "demo.py")])
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    written = b""
    try:
        while part := os.read(terminal, 65536):
            written += part
    except OSError:  # how the other end says that it is closed
        pass
    if os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) != 0:
        sys.exit(written.decode())
    return written.decode().replace("\r", "").replace("\033[K", "")


def choose(text):
    """The lines of the picture: the frame in the middle of the way, and the summary."""
    frames = text.split(TOP)
    board = min(frames[1:-1], key=lambda frame: abs(frame.count(" ready ") - 10))
    summary = frames[-1].split("\n\n", 1)[1]
    return ["$ make demo", "", *board.rstrip("\n").split("\n"), "   ⋮", "", *summary.strip().split("\n")]


def spans(line):
    """(colour, text) pieces of a line, no wider than the terminal."""
    room, colour = COLUMNS, COLOURS["0"]
    for escape, text in re.findall(r"(?:\033\[(\d+)m)?([^\033]*)", line):
        colour = COLOURS[escape] if escape else colour
        if text[:room]:
            yield colour, text[:room]
        room -= len(text[:room])


def draw(lines):
    width, height = round(COLUMNS * CHAR) + 2 * MARGIN, len(lines) * LINE + 2 * MARGIN
    yield (f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
           f'viewBox="0 0 {width} {height}">')
    yield f'<rect width="{width}" height="{height}" rx="8" fill="#0d1117"/>'
    yield '<g font-family="ui-monospace, Menlo, Consolas, \'DejaVu Sans Mono\', monospace" font-size="13" xml:space="preserve">'
    for number, line in enumerate(lines):
        y = MARGIN + LINE * number + 13
        pieces = "".join(f'<tspan fill="{colour}">{html.escape(text)}</tspan>' for colour, text in spans(line))
        yield f'<text x="{MARGIN}" y="{y}">{pieces}</text>'
    yield "</g>\n</svg>"


def main():
    (HERE / "demo.svg").write_text("\n".join(draw(choose(record()))) + "\n")


if __name__ == "__main__":
    main()
