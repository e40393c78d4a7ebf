"""What the publisher adds: results a second and delay until a read_committed reader has them, through
the worker's publisher, exactly_once and at_least_once, and through a bare transactional producer.

The three take turns on the same broker with the same messages; ratios are of neighbours.
"""

import json
import statistics
import subprocess

from confluent_kafka.admin import AdminClient, NewTopic

from harness import OUT

TARGET = 1.2  # times the bare producer
CASES = [("all at once", 0, 60000), ("200 a second", 200, 2000), ("2000 a second", 2000, 20000)]
PROGRAMS = {
    "bare": ["bare_producer"],
    "exactly_once": ["publish", "exactly_once"],
    "at_least_once": ["publish", "at_least_once"],
}


class Topics:
    """Fresh ones for every run, so that none waits for what another has left."""

    def __init__(self, address):
        self.address, self.made = address, 0
        self.admin = AdminClient({"bootstrap.servers": address, "log_level": 0})

    def new(self):
        self.made += 1
        names = [f"publish-{what}-{self.made}" for what in ("results", "jobs")]
        for future in self.admin.create_topics([NewTopic(name, 1, 1) for name in names]).values():
            future.result(30)
        return names


def measure(topics, program, rate, total):
    argv = [OUT / "tests/bench" / program[0], *program[1:], topics.address, *topics.new(), str(rate), str(total)]
    out = subprocess.run(argv, stdout=subprocess.PIPE, text=True, timeout=300, check=True).stdout
    return json.loads(out)


def figure(runs, what):
    return statistics.median(run[what] for run in runs)


def ratio(ours, bare, what):
    """How many times dearer than the bare producer; of results a second, how many times fewer."""
    pairs = [(b[what] / o[what]) if what == "per_s" else (o[what] / b[what]) for o, b in zip(ours, bare)]
    return statistics.median(pairs)


def show(title, results, rate):
    print(f"  {title}:", flush=True)
    for name, runs in results.items():
        line = (f"    {name:<14}{figure(runs, 'per_s'):9.0f} results/s   p50 {figure(runs, 'p50_ms'):8.1f} ms"
                f"   p99 {figure(runs, 'p99_ms'):8.1f} ms   {figure(runs, 'batches'):5.0f} batches")
        print(line, flush=True)
    what = ("p50_ms", "p99_ms") if rate else ("per_s",)
    for name in list(results)[1:]:
        ratios = {w: ratio(results[name], results["bare"], w) for w in what}
        said = ", ".join(f"{w.removesuffix('_ms').replace('per_s', 'time per result')} x {r:.2f}"
                         for w, r in ratios.items())
        verdict = "within" if max(ratios.values()) <= TARGET else "OVER"
        print(f"    {name} / bare: {said} ({verdict} {TARGET})", flush=True)


def run(address, report, runs, scale):
    print(f"\npublishing beside a bare transactional producer; medians of {runs} runs", flush=True)
    topics = Topics(address)
    measure(topics, PROGRAMS["bare"], 0, 1000)  # the coordinators wake up
    for title, rate, total in CASES:
        results = {name: [] for name in PROGRAMS}
        for _ in range(runs):
            for name, program in PROGRAMS.items():
                results[name].append(measure(topics, program, rate, total // scale))
        show(title, results, rate)
        report.append({"case": f"publishing {title}", "runs": results})
