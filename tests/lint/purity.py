#!/usr/bin/python3
"""core, provider and the simulator's model are PURE: no clock, no chance, no input or output.

Looks twice: at what the sources include, and at what their object code calls, which no macro hides.
"""

import os
import re
import subprocess
import sys

from _source import ROOT, c_files, code, finish

PURE = ["worker/core", "worker/provider", "tests/sim/model"]
OBJECTS = ["core.a", "provider.a", "sim.a"]

# The standard headers that may be named; of stdio.h and stdlib.h the calls tell what is used.
HEADERS = {"assert.h", "cjson/cJSON.h", "cJSON.h", "ctype.h", "errno.h", "inttypes.h", "limits.h",
           "math.h", "stdarg.h", "stdbool.h", "stddef.h", "stdint.h", "stdio.h", "stdlib.h",
           "string.h", "strings.h", "uthash.h", "utlist.h", "utarray.h", "utstring.h"}
INCLUDE = re.compile(r"^\s*#\s*include\s+<([^>]+)>", re.M)

# What pure code may take from outside this project; all else that a library defines is refused.
CALLS = re.compile(r"^(_?_?(mem|str|isoc|ctype|stack_chk|errno_location|explicit_bzero|bcmp)\w*|cJSON_\w+"
                   r"|abort|exit|__assert_fail|abs|labs|free|malloc|calloc|realloc|qsort(_r)?|bsearch"
                   r"|tolower|toupper|__\w+[sdt]i[234]"
                   r"|v?snprintf|__v?snprintf_chk|__mem\w+_chk|__str\w+_chk"
                   r"|ceil|floor|round|lround|llround|fmin|fmax|fmod|pow|sqrt|exp|log|log2|sin|cos|isfinite"
                   r"|_GLOBAL_OFFSET_TABLE_|__asan\w*|__ubsan\w*|__gcov\w*|__sanitizer\w*|__tls\w*)$")
IMPURE = re.compile(r"^(strftime|strptime|strerror.*|strfmon)$")


def nm(archive, *flags):
    run = subprocess.run(["nm", "--format=posix", *flags, archive], check=True, timeout=60,
                         capture_output=True, text=True)
    return [line.split()[0] for line in run.stdout.splitlines() if len(line.split()) >= 2]


def main():
    problems = []
    for path in c_files("worker", "tests/sim"):
        if not any(re.match(re.escape(p) + r"[/._]", str(path)) for p in PURE):
            continue
        for name in INCLUDE.findall(code(path)):
            if name not in HEADERS:
                problems.append(f"{path}: pure code must not include <{name}>")

    build = ROOT / os.environ.get("BUILD", "build") / os.environ.get("FLAVOUR", "release")
    ours = {s for archive in build.glob("*.a") for s in nm(archive, "--defined-only", "-g")}
    for name in OBJECTS:
        if not (build / name).exists():
            problems.append(f"{build / name} is not built")
            continue
        for symbol in sorted(set(nm(build / name, "--undefined-only")) - ours):
            if not CALLS.match(symbol) or IMPURE.match(symbol):
                problems.append(f"{name}: pure code must not call {symbol}()")
    return finish(problems)


if __name__ == "__main__":
    sys.exit(main())
