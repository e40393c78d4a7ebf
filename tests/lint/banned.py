#!/usr/bin/python3
"""Functions that have no safe use here, each with what to write instead; some only in the programs."""

import re
import sys

from _source import PROGRAMS, c_files, code, finish

BANNED = {
    r"strcpy|strcat|stpcpy|strncat": "buf_ functions or snprintf",
    r"v?sprintf": "snprintf",
    r"gets": "fgets",
    r"strtok": "strtok_r, or walk the text",
    r"ato[ifl]|atoll": "parse_i64",
    r"alloca": "a bounded array or xmalloc",
    r"gmtime|localtime|asctime|ctime": "format_time_ms",
    r"system|popen|tmpnam|mktemp": "nothing: no shell, no guessable file",
    r"cJSONUtils_\w+|cJSON_Compare|cJSON_Duplicate": "json.h: they recurse, or are quadratic",
    r"cJSON_GetObjectItem|cJSON_HasObjectItem": "cJSON_GetObjectItemCaseSensitive",
}
BANNED_IN_PROGRAMS = {
    r"strto(?:u?ll?|umax|imax)(?=\([^;]*?, *NULL\b)": "parse_i64, or look at where it ended",
    r"malloc|calloc|realloc|strdup|strndup": "xalloc.h: it aborts when there is no memory",
    r"rand|srand|random|srandom": "a seed that is passed in, or RAND_bytes",
}
EXEMPT = ("common/xalloc.c", "common/xalloc.h")  # it is what the others are told to use


def look(path, banned):
    source = code(path)
    for names, instead in banned.items():
        for found in re.finditer(rf"(?<![\w.>])({names})\s*\(", source):
            line = source.count("\n", 0, found.start()) + 1
            yield f"{path}:{line}: {found.group(1)}() is banned: {instead}"


def main():
    problems = [p for path in c_files() for p in look(path, BANNED)]
    problems += [p for path in c_files(*PROGRAMS) if str(path) not in EXEMPT
                 for p in look(path, BANNED_IN_PROGRAMS)]
    return finish(problems)


if __name__ == "__main__":
    sys.exit(main())
