#!/usr/bin/python3
"""Mechanical mutants of worker/core: one small change each, and the share that a test notices.

    tests/mutants/mutate.py [--sample 200] [--seed 1] [--only FILE.c] [--operator KIND] [--list]

A mutant changes one token or drops one call. It is compiled alone, and everything below the tests is
linked into one shared library, so that the test programs stay as they are: the core's unit tests
run, then 60 random schedules, each until the first that is red. What still lives runs the unit tests
with the address sanitizer, which knows leaks.

Not made: changes inside of ASSERT, of core_check and of log calls (the first two abort, the third
only tells). Not counted: mutants that do not compile, those with the object code of the original, and those that
equivalent.txt names with the reason why nobody could notice. All survivors are in
build/mutation/survivors.txt. Exit 0: at least 90 % of those that count were noticed.
"""

import argparse
import atexit
import collections
import concurrent.futures
import os
import pathlib
import queue
import random
import re
import shutil
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
WORK = ROOT / os.environ.get("BUILD", "build") / "mutation"
OWN = WORK / str(os.getpid())  # several may run at a time
CORE = "worker/core"
TARGET = 90  # per cent
CC = os.environ.get("CC", "gcc")
PACKAGES = ["rdkafka", "libcurl", "libcjson", "libconfig", "libevent", "libssl", "libcrypto"]
SCHEDULES = ["--seed", "1", "--runs", "60", "--no-shorten"]


# ---- what is changed ----

TOKEN = re.compile(r"""
    (?P<blank>\s+|//[^\n]*|/\*.*?\*/|^[ ]*\#(?:[^\n\\]|\\.)*(?:\n|$))
  | (?P<text>"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*')
  | (?P<number>\d[\w.]*)
  | (?P<name>[A-Za-z_]\w*)
  | (?P<op><<=|>>=|->|\+\+|--|<<|>>|<=|>=|==|!=|&&|\|\||[-+*/%&|^]=|\.\.\.|[-+*/%&|^~!<>=?:;,.(){}\[\]])
""", re.X | re.S | re.M)
SWAPS = {
    "relation": {"<": "<=", "<=": "<", ">": ">=", ">=": ">", "==": "!=", "!=": "=="},
    "arithmetic": {"+": "-", "-": "+", "*": "/", "/": "*", "%": "*", "<<": ">>", ">>": "<<", "&": "|", "|": "&",
                   "++": "--", "--": "++", "+=": "-=", "-=": "+=", "|=": "&=", "&=": "|="},
    "logic": {"&&": "||", "||": "&&"},
}
QUIET = re.compile(r"(ASSERT|log_\w+|static_assert|_Static_assert)$")  # changes inside of these are not made
CHECKS = "/* ---- invariants ---- */"  # behind this a file does nothing but assert
Token = collections.namedtuple("Token", "kind text at")
Mutant = collections.namedtuple("Mutant", "file line function kind at end new before after")


def tokens(source):
    at, found = 0, []
    while at < len(source):
        m = TOKEN.match(source, at)
        if not m:
            raise SystemExit(f"cannot read: {source[at:at + 40]!r}")
        if m.lastgroup != "blank":
            found.append(Token(m.lastgroup, m.group(), at))
        at = m.end()
    return found


def partner(found, i):
    """Of the bracket at i, the one that closes it."""
    depth = 0
    for j in range(i, len(found)):
        depth += found[j].text in "([{" and found[j].kind == "op"
        depth -= found[j].text in ")]}" and found[j].kind == "op"
        if depth == 0:
            return j
    return len(found) - 1


def is_spaced(source, token):
    """clang-format puts a space on both sides of a binary operator, and of no unary one."""
    return source[token.at - 1].isspace() and source[token.at + len(token.text)].isspace()


def swaps(source, token, before):
    for kind, table in SWAPS.items():
        new = table.get(token.text)
        unary = token.text in ("+", "-", "*", "&", "<", ">") and not is_spaced(source, token)
        declares = token.text == "*" and before.text in ("=", "(", ",", "return")
        if new and token.kind == "op" and not unary and not declares:
            yield kind, token.at, token.at + len(token.text), new


def constant(token):
    if re.fullmatch(r"\d+u?", token.text):
        digits = token.text.rstrip("u")
        yield "constant", token.at, token.at + len(token.text), str(int(digits) + 1) + token.text[len(digits):]
    elif token.text in ("true", "false"):
        yield "constant", token.at, token.at + len(token.text), "false" if token.text == "true" else "true"


def condition(source, found, i):
    """if (x) and while (x) the other way round; !x without its !"""
    token = found[i]
    if token.text in ("if", "while") and found[i + 1].text == "(":
        end = found[partner(found, i + 1)].at
        start = found[i + 1].at + 1
        yield "condition", start, end, f"!({source[start:end]})"
    elif token.text == "!":
        yield "condition", token.at, token.at + 1, ""


def dropped(source, found, i):
    """A statement that is one call; break; continue; return;"""
    token, before = found[i], found[i - 1]
    if before.text not in (";", "{", "}", ")", "else", ":"):
        return
    if token.text in ("break", "continue", "return") and found[i + 1].text == ";":
        yield "dropped", token.at, found[i + 1].at, ""
    if token.kind != "name" or found[i + 1].text != "(" or token.text in ("if", "while", "for", "switch", "return"):
        return
    end = partner(found, i + 1)
    if found[end + 1].text == ";":
        yield "dropped", token.at, found[end + 1].at, ""


def returned(source, found, i, type_):
    if found[i].text != "return" or found[i + 1].text == ";":
        return
    end = next(j for j in range(i, len(found)) if found[j].text == ";")
    start, stop = found[i + 1].at, found[end].at
    value = source[start:stop]
    new = {"bool": f"!({value})", "pointer": "NULL", "number": f"({value}) + 1"}.get(type_)
    if new and value not in ("true", "false", "NULL"):
        yield "returned", start, stop, new


def function_around(source, at):
    """(name, what it returns). Definitions begin in the first column."""
    heads = list(re.finditer(r"^(?:static )?(?:inline )?(?:MUST_USE )?((?:const )?(?:struct |enum )?\w+ \**)(\w+)\(",
                             source[:at], re.M))
    if not heads:
        return "", None
    type_, name = heads[-1].group(1).strip(), heads[-1].group(2)
    if type_.endswith("*"):
        return name, "pointer"
    plain = ("int", "size_t", "unsigned", "uint64_t", "int64_t", "uint32_t", "int32_t", "double")
    return name, "bool" if type_ == "bool" else "number" if type_ in plain else None


def changes(source):
    """(kind, from, to, new text) of everything that may be changed in it."""
    found, i = tokens(source.partition(CHECKS)[0]), 1
    while i < len(found) - 1:
        token = found[i]
        if token.kind == "name" and QUIET.match(token.text) and found[i + 1].text == "(":
            i = partner(found, i + 1) + 1
            continue
        _, type_ = function_around(source, token.at)
        yield from swaps(source, token, found[i - 1])
        yield from constant(token)
        yield from condition(source, found, i)
        yield from dropped(source, found, i)
        yield from returned(source, found, i, type_)
        i += 1


def one_line(text):
    return " ".join(text.split())


SOURCES = {}  # as they were when the mutants were made, whatever is edited meanwhile


def mutants(path):
    source = SOURCES[path] = (ROOT / path).read_text()
    for kind, at, end, new in changes(source):
        start = source.rfind("\n", 0, at) + 1
        stop = source.find("\n", end)
        before, after = source[start:stop], source[start:at] + new + source[end:stop]
        new += "\n" * source.count("\n", at, end)  # line numbers stay
        shown = f"without {one_line(source[at:end])}" if kind == "dropped" else one_line(after)
        yield Mutant(path, source.count("\n", 0, at) + 1, function_around(source, at)[0], kind, at, end, new,
                     one_line(before), shown)


# ---- building ----

def run(argv, folder, limit, **environment):
    """(code, output); a code of None: it took too long."""
    with subprocess.Popen([str(a) for a in argv], cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, start_new_session=True,
                          env={**os.environ, **environment}) as child:
        try:
            output, _ = child.communicate(timeout=limit)
            return child.returncode, output.decode(errors="replace")
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, 9)
            child.communicate()
            return None, ""


def must(argv, folder, limit=120):
    code, output = run(argv, folder, limit)
    if code != 0:
        raise SystemExit(f"{' '.join(map(str, argv))}\n{output[-4000:]}")
    return output


class Build:
    """All objects of one flavour; and for a mutant the library with one of them replaced."""

    def __init__(self, name, flags):
        self.folder = OWN / name
        packages = must(["pkg-config", "--cflags", "--libs", *PACKAGES], ROOT).split()
        self.flags = ["-std=gnu11", "-I.", "-D_GNU_SOURCE", "-fno-common", "-fPIC", "-pthread", "-w", *flags,
                      *[f for f in packages if not f.startswith("-l")]]
        self.link = [*flags, "-pthread", *[f for f in packages if f.startswith("-l")], "-lm"]
        self.objects, self.programs, self.limits, self.sim = {}, {}, {}, []

    def compile(self, source, out, folder=ROOT, limit=120):
        out.parent.mkdir(parents=True, exist_ok=True)
        return run([CC, *self.flags, "-c", "-o", out, source], folder, limit)

    def library(self, out, replaced=None):
        objects = {**self.objects, **(replaced or {})}
        return run([CC, "-shared", "-o", out, *objects.values(), *self.link], ROOT, 120)

    def make(self, with_explorer):
        layers = [p for d in ("common", "worker/provider", CORE) for p in sorted((ROOT / d).glob("*.c"))]
        helpers = [p for p in (ROOT / "tests/unit/core").glob("*.c") if not p.name.startswith("test_")]
        tests = sorted((ROOT / "tests/unit/core").glob("test_*.c"))
        sim = [p for g in ("model*.c", "world*.c", "explore*.c") for p in sorted((ROOT / "tests/sim").glob(g))]
        sources = [p.relative_to(ROOT) for p in (*layers, *helpers, *tests, *(sim if with_explorer else []))]
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            done = pool.map(lambda s: (s, self.compile(s, self.folder / s.with_suffix(".o"))), sources)
            for source, (code, output) in done:
                if code != 0:
                    raise SystemExit(output)
        at = {s: self.folder / s.with_suffix(".o") for s in sources}
        self.objects = {str(p.relative_to(ROOT)): at[p.relative_to(ROOT)] for p in layers}
        self.sim = [at[p.relative_to(ROOT)] for p in sim] if with_explorer else []
        code, output = self.library(self.folder / "libunder.so")
        if code != 0:
            raise SystemExit(output)
        for test in tests:
            self.program(test.stem, [at[p.relative_to(ROOT)] for p in (test, *helpers)], ["-lcmocka"])
        if with_explorer:
            code, output = self.explorer(self.folder / "explore")
            if code != 0:
                raise SystemExit(output)
            self.programs["explore"] = ["explore", *SCHEDULES]

    def program(self, name, objects, more):
        out = self.folder / name
        must([CC, "-o", out, *objects, f"-L{self.folder}", "-lunder", *more, *self.link], ROOT)
        self.programs[name] = [out]

    def explorer(self, out, replaced=None):
        """With the allocator of its own, which only reaches objects that are linked into it."""
        objects = {**self.objects, **(replaced or {})}
        wrapped = re.search(r"^WRAPPED *:= *(.*)$", (ROOT / "Makefile").read_text(), re.M)
        wraps = [f"-Wl,--wrap={name}" for name in (wrapped.group(1).split() if wrapped else [])]
        return run([CC, "-o", out, *wraps, "-Wl,--as-needed", *self.sim, *objects.values(), *self.link], ROOT, 120)

    def run(self, name, folder, limit):
        argv = [folder / part if part == "explore" else part for part in self.programs[name]]
        return run(argv, ROOT, limit, LD_LIBRARY_PATH=str(folder))

    def first(self):
        """Everything must be well without any mutant; how long each takes."""
        for name in self.programs:
            began = time.monotonic()
            code, output = self.run(name, self.folder, 600)
            if code != 0:
                raise SystemExit(f"{name} is red without any mutant:\n{output[-3000:]}")
            self.limits[name] = 10 + 8 * (time.monotonic() - began)


# ---- judging ----

class Judge:
    def __init__(self, plain, asan):
        self.plain, self.asan = plain, asan
        self.kills = collections.defaultdict(collections.Counter)  # file -> program -> how many
        self.slots = queue.Queue()
        for i in range(2):
            slot = OWN / f"slot{i}"
            for folder in ("common", "worker"):
                shutil.copytree(ROOT / folder, slot / folder)
            self.slots.put(slot)

    def order(self, build, file):
        """Those first that have noticed most mutants of the file; the schedules last."""
        return sorted(build.programs, key=lambda n: (n == "explore", -self.kills[file][n]))

    def notices(self, build, slot, mutant):
        """The program that is red; None: none is."""
        for name in self.order(build, mutant.file):
            if name == "explore" and build.explorer(slot / name, {mutant.file: slot / "mutant.o"})[0] != 0:
                return None
            code, _ = build.run(name, slot, build.limits[name])
            if code != 0:
                self.kills[mutant.file][name] += 1
                return name
        return None

    def build_one(self, build, slot, mutant):
        obj = slot / "mutant.o"
        code, _ = build.compile(mutant.file, obj, slot)
        if code != 0:
            return "uncompilable"
        if build is self.plain and obj.read_bytes() == build.objects[mutant.file].read_bytes():
            return "same code"
        code, _ = build.library(slot / "libunder.so", {mutant.file: obj})
        return None if code == 0 else "uncompilable"

    def verdict(self, slot, mutant):
        for build in (self.plain, self.asan):
            why = self.build_one(build, slot, mutant)
            if why:
                return why
            name = self.notices(build, slot, mutant)
            if name:
                return f"noticed by {name}" + (" (asan)" if build is self.asan else "")
        return "survived"

    def judge(self, mutant):
        slot = self.slots.get()
        source = SOURCES[mutant.file]
        place = slot / mutant.file
        try:
            place.write_text(source[:mutant.at] + mutant.new + source[mutant.end:])
            return mutant, self.verdict(slot, mutant)
        finally:
            place.write_text(source)
            self.slots.put(slot)


def known_equivalents():
    """('file function', changed line) -> reason. Lines of equivalent.txt: 'file function: changed line  ## reason'."""
    known = {}
    path = HERE / "equivalent.txt"
    for line in path.read_text().splitlines() if path.exists() else []:
        if line.strip() and not line.startswith("#"):
            mutant, _, reason = line.partition("  ## ")
            place, _, changed = mutant.partition(": ")
            known[place, one_line(changed)] = reason
    return known


def describe(mutant):
    return f"{mutant.file}:{mutant.line} {mutant.kind}: {mutant.before}   =>   {mutant.after}"


def judge_all(chosen, judge, known):
    tally, survivors, began = collections.Counter(), [], time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        for done, (mutant, verdict) in enumerate(pool.map(judge.judge, chosen), 1):
            if verdict == "survived" and (f"{mutant.file} {mutant.function}", mutant.after) in known:
                verdict = "equivalent"
            word = "noticed" if verdict.startswith("noticed") else verdict
            tally[word] += 1
            if word == "survived":
                survivors.append(mutant)
                print(f"lives: {describe(mutant)}", flush=True)
            if done % 50 == 0:
                print(f"  {done} of {len(chosen)}, {time.monotonic() - began:.0f} s: "
                      + ", ".join(f"{n} {w}" for w, n in tally.most_common()), flush=True)
    return tally, survivors


def report(tally, survivors, chosen, every):
    counted = tally["noticed"] + tally["survived"]
    share = 100 * tally["noticed"] / counted if counted else 0
    (WORK / "survivors.txt").write_text("".join(describe(m) + "\n" for m in survivors))
    by_kind = collections.Counter(m.kind for m in survivors)
    if survivors:
        print("survivors by kind: " + ", ".join(f"{n} {kind}" for kind, n in by_kind.most_common()))
    print(f"{len(chosen)} of {every} mutants: {tally['noticed']} noticed, {tally['survived']} survived, "
          f"{tally['equivalent'] + tally['same code']} equivalent ({tally['same code']} by their object code), "
          f"{tally['uncompilable']} do not compile")
    print(f"{share:.1f} % of {counted} noticed; {TARGET} % are wanted", flush=True)
    return share >= TARGET


def main():
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--sample", type=int, default=200, help="how many; 0: all of them")
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--only", help="a file of worker/core, or a part of its name")
    options.add_argument("--operator", help="relation, arithmetic, logic, constant, condition, dropped, returned")
    options.add_argument("--list", action="store_true", help="show them only")
    args = options.parse_args()
    files = [str(p.relative_to(ROOT)) for p in sorted((ROOT / CORE).glob("*.c")) if (args.only or "") in p.name]
    every = [m for f in files for m in mutants(f) if args.operator in (None, m.kind)]
    chosen = every if args.sample == 0 else random.Random(args.seed).sample(every, min(args.sample, len(every)))
    if args.list:
        print("\n".join(map(describe, chosen)))
        return 0
    OWN.mkdir(parents=True)
    atexit.register(shutil.rmtree, OWN, ignore_errors=True)
    plain, asan = Build("plain", ["-O2"]), Build("asan", ["-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"])
    plain.make(with_explorer=True)
    asan.make(with_explorer=False)
    for build in (plain, asan):
        build.first()
    tally, survivors = judge_all(chosen, Judge(plain, asan), known_equivalents())
    return 0 if report(tally, survivors, chosen, len(every)) else 1


if __name__ == "__main__":
    sys.exit(main())
