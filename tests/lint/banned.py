#!/usr/bin/python3
"""Functions that have no safe use here, each with what to write instead."""

import re
import sys

from _source import c_files, code, finish

BANNED = {
    r"strcpy|strcat|stpcpy|strncat": "buf_ functions or snprintf",
    r"v?sprintf": "snprintf",
    r"gets": "fgets",
    r"strtok": "strtok_r, or walk the text",
    r"ato[ifl]|atoll": "parse_i64",
    r"strto(?:u?ll?|umax|imax)(?=\([^;]*?, *NULL\b)": "parse_i64, or look at where it ended",
    r"alloca": "a bounded array or xmalloc",
    r"gmtime|localtime|asctime|ctime": "format_time_ms",
    r"malloc|calloc|realloc|strdup|strndup": "xalloc.h: it aborts when there is no memory",
    r"rand|srand|random|srandom": "a seed that is passed in, or RAND_bytes",
    r"system|popen|tmpnam|mktemp": "nothing: no shell, no guessable file",
    r"cJSONUtils_\w+|cJSON_Compare|cJSON_Duplicate": "json.h: they recurse, or are quadratic",
    r"cJSON_GetObjectItem|cJSON_HasObjectItem": "cJSON_GetObjectItemCaseSensitive",
}
# The one place each that may: it is what the others are told to use.
ALLOWED = {
    "common/xalloc.c": r"malloc|calloc|realloc|strdup|strndup",
    "common/xalloc.h": r"malloc|calloc|realloc|strdup|strndup",
}


def main():
    problems = []
    for path in c_files():
        source = code(path)
        for names, instead in BANNED.items():
            for found in re.finditer(rf"(?<![\w.>])({names})\s*\(", source):
                if re.fullmatch(ALLOWED.get(str(path), ""), found.group(1)):
                    continue
                line = source.count("\n", 0, found.start()) + 1
                problems.append(f"{path}:{line}: {found.group(1)}() is banned: {instead}")
    return finish(problems)


if __name__ == "__main__":
    sys.exit(main())
