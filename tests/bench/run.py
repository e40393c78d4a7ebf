#!/usr/bin/python3
"""What session-worker costs, beside a bare libcurl loop that sends the same requests in the same minute.

One real Kafka, a fresh simulator for every run. Worker and bare loop take turns, so that whatever
else the machine does meets both; every figure is a median with the smallest and the largest beside
it. Figures of CPU are ratios first: the microseconds belong to this machine.

    tests/bench/run.py [--quick] [--runs 3] [--only footprint,publishing,cost,latency,lag,dead,growth]

Times are taken where a user would: "visible" is the moment a read_committed reader has the event.
The simulator's server listens (or dies) exactly --server-ms after its exec; the event says how long
the steps from there on took.
"""

import argparse
import calendar
import json
import math
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import threading
import time

TESTS = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(TESTS / "integration"))

import confluent_kafka  # noqa: E402
from confluent_kafka.admin import AdminClient, NewTopic  # noqa: E402
import footprint  # noqa: E402
import publishing  # noqa: E402
from harness import API_KEY, OUT, Broker, Simulator, Worker, start  # noqa: E402

PARTITIONS = 8
TICK = os.sysconf("SC_CLK_TCK")
INSTANT = {"boot": 1, "server": 1}
USUAL = {"boot": 300, "server": 500}
BLOCK = 1000


def cpu_seconds(pid):
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def peak_rss_mb(pid):
    for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    return 0.0


class Instructions:
    """User instructions of a process while it is measured, where the machine counts them."""

    possible = None

    def __init__(self, pid):
        self.perf = None
        if self.works():
            self.perf = subprocess.Popen(["perf", "stat", "-x,", "-e", "instructions:u", "-p", str(pid)],
                                         stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
            time.sleep(0.2)

    @classmethod
    def works(cls):
        if cls.possible is None:
            try:
                seen = subprocess.run(["perf", "stat", "-x,", "-e", "instructions:u", "true"],
                                      capture_output=True, text=True, timeout=10).stderr
                cls.possible = seen.split(",")[0].strip().isdigit()
            except OSError:
                cls.possible = False
        return cls.possible

    def stop(self):
        if not self.perf:
            return None
        self.perf.send_signal(2)
        said = self.perf.communicate(timeout=10)[1].split(",")[0].strip()
        return int(said) if said.isdigit() else None


class World:
    """The broker of all runs; each run has topics, a simulator and a worker of its own."""

    def __init__(self, folder):
        self.root = pathlib.Path(folder)
        self.broker = Broker(self.root / "kafka")
        self.broker.format()
        self.broker.start()
        self.runs = 0

    def close(self):
        self.broker.stop()

    def run(self, delays):
        self.runs += 1
        return Run(self, f"b{os.getpid()}-{self.runs}", delays)


class Run:
    properties = ["session.timeout.ms=10000"]

    def __init__(self, world, prefix, delays):
        self.prefix = prefix
        self.address = world.broker.address
        self.folder = world.root / prefix
        self.folder.mkdir()
        self.delays = delays
        self.sim = Simulator(self.folder, options=["--boot-ms", delays["boot"],
                                                   "--server-ms", delays["server"]])
        self.sim.start()
        self.settings = {}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.sim.end()

    # ---- the bare loop ----

    def bare(self, sessions, in_flight):
        shards = math.ceil(in_flight / 64)
        out = subprocess.run(
            [OUT / "tests/bench/bare", "--api", f"{self.sim.url}/api", "--key", API_KEY,
             "--sessions", str(sessions), "--in-flight", str(in_flight), "--shards", str(shards)],
            stdout=subprocess.PIPE, text=True, timeout=900)
        return json.loads(out.stdout)

    # ---- the worker ----

    def start_worker(self, in_flight):
        topics = {what: f"{self.prefix}-{what}" for what in ("jobs", "results", "dlq")}
        admin = AdminClient({"bootstrap.servers": self.address})
        wanted = admin.create_topics([NewTopic(topics["jobs"], PARTITIONS, 1),
                                      NewTopic(topics["results"], 1, 1), NewTopic(topics["dlq"], 1, 1)])
        for future in wanted.values():
            future.result(30)
        self.settings = {
            "kafka.brokers": self.address, "kafka.group": self.prefix,
            "topics.jobs": topics["jobs"], "topics.results": topics["results"],
            "topics.dead_letters": topics["dlq"], "jobs.max_in_flight": in_flight,
            "jobs.timeout_seconds": 600,
            "providers": [{"name": "daytona", "type": "daytona", "api_url": f"{self.sim.url}/api",
                           "targets": ["us"], "creates_per_minute": 1000000}],
            "log.format": "logfmt",
        }
        return Worker(self, "worker", {}).start()

    def produce(self, sessions, snapshot, rate):
        producer = confluent_kafka.Producer({"bootstrap.servers": self.address, "linger.ms": 5,
                                             "partitioner": "murmur2_random",
                                             "queue.buffering.max.messages": 1000000})
        begun = time.monotonic()
        for i in range(sessions):
            session = f"s{i}"
            producer.produce(self.settings["topics.jobs"], json.dumps(start(session, snapshot)), session)
            if rate:
                producer.poll(0)
                time.sleep(max(0.0, begun + (i + 1) / rate - time.monotonic()))
        if producer.flush(60):
            raise RuntimeError("jobs were not delivered")

    def read(self, n, limit, each_block):
        """n events as (wall seconds when seen, bytes)."""
        reader = confluent_kafka.Consumer({
            "bootstrap.servers": self.address, "group.id": f"{self.prefix}-reader",
            "enable.auto.commit": False, "isolation.level": "read_committed",
            "auto.offset.reset": "earliest"})
        reader.assign([confluent_kafka.TopicPartition(self.settings["topics.results"], 0, 0)])
        seen, end = [], time.monotonic() + limit
        while len(seen) < n:
            message = reader.poll(0.5)
            if message is not None and not message.error():
                seen.append((time.time(), message.value()))
                if len(seen) % BLOCK == 0:
                    each_block()
            elif time.monotonic() > end:
                raise RuntimeError(f"only {len(seen)} of {n} events after {limit} s; see {self.folder}")
        reader.close()
        return seen

    def worker(self, sessions, in_flight, snapshot="any", rate=0):
        worker = self.start_worker(in_flight)
        pid = worker.process.pid
        counted = Instructions(pid)
        before, begun = cpu_seconds(pid), time.monotonic()
        blocks = [before]
        putting_in = threading.Thread(target=self.produce, args=(sessions, snapshot, rate))
        putting_in.start()
        events = self.read(sessions, 900, lambda: blocks.append(cpu_seconds(pid)))
        putting_in.join()
        seconds, cpu = time.monotonic() - begun, cpu_seconds(pid) - before
        result = {
            "sessions": sessions, "seconds": seconds, "sessions_per_s": sessions / seconds,
            "cpu_us_per_session": cpu * 1e6 / sessions, "rss_mb": peak_rss_mb(pid),
            "requests_per_session": self.sim.stats()["total"] / sessions,
            "cpu_us_by_1000": [(b - a) * 1e6 / BLOCK for a, b in zip(blocks, blocks[1:])],
        }
        instructions = counted.stop()
        if instructions:
            result["instructions_per_session"] = instructions / sessions
        worker.end()
        parsed = [(at, json.loads(value)) for at, value in events]
        result["failed"] = sum(e["type"] != "session-ready" for _, e in parsed)
        made = {box["id"]: box["created_at"] for box in self.sim.ledger()} if result["failed"] else {}
        result["after_server_ms"] = [self.after_server_ms(at, e, made) for at, e in parsed]
        return result

    def after_server_ms(self, seen, event, made):
        """From the server's first (or last) moment until the event was visible. A ready event says
        how long the steps since its exec took. A failed one does not, so there the clock starts with
        the sandbox, and the two or three requests of the launch are in it."""
        if event["type"] == "session-ready":
            steps = event["timings_ms"]
            exec_at = wall_ms(event["time"]) - steps["probe"] - steps["keep"]
        else:
            exec_at = made[event["sandbox"]["id"]] + self.delays["boot"]
        return seen * 1000 - exec_at - self.delays["server"]


def wall_ms(text):
    return calendar.timegm(time.strptime(text[:19], "%Y-%m-%dT%H:%M:%S")) * 1000 + int(text[20:23])


# ---- what is measured ----

def spread(values):
    return f"{statistics.median(values):10.1f} [{min(values):.1f} .. {max(values):.1f}]"


def quantile(values, q):
    return sorted(values)[min(len(values) - 1, int(q * len(values)))]


def compare(world, report, title, delays, cases, runs):
    print(f"\n{title}: boot {delays['boot']} ms, server {delays['server']} ms; median [min .. max] "
          f"of {runs} runs", flush=True)
    for in_flight, sessions in cases:
        workers, bares = [], []
        for _ in range(runs):
            with world.run(delays) as run:
                bares.append(run.bare(sessions, in_flight))
            with world.run(delays) as run:
                workers.append(run.worker(sessions, in_flight))
        show_case(in_flight, sessions, workers, bares)
        report.append({"case": title, "in_flight": in_flight, "worker": workers, "bare": bares})


def show_case(in_flight, sessions, workers, bares):
    def of(runs, what):
        return [run[what] for run in runs]

    ratios = [w["cpu_us_per_session"] / b["cpu_us_per_session"] for w, b in zip(workers, bares)]
    print(f"  {in_flight} in flight, {sessions} sessions: CPU worker/bare "
          f"{statistics.median(ratios):.2f} [{min(ratios):.2f} .. {max(ratios):.2f}]")
    rows = [("CPU us/session", "cpu_us_per_session"), ("sessions/s", "sessions_per_s"),
            ("requests/session", "requests_per_session"), ("peak RSS MB", "rss_mb")]
    if all("instructions_per_session" in run for run in workers):
        print(f"    {'instructions/session':<18} worker {spread(of(workers, 'instructions_per_session'))}")
    for name, what in rows:
        print(f"    {name:<18} worker {spread(of(workers, what))}   bare {spread(of(bares, what))}")
    failed = sum(of(workers, "failed")) + sum(of(bares, "failed"))
    if failed:
        print(f"    FAILED SESSIONS: {failed}")
    sys.stdout.flush()


def lag(world, report, runs, sessions, snapshot, title):
    """At a rate that does not fill the machine: how long the user waits for what has happened."""
    print(f"\n{title}, 40 jobs a second, {sessions} sessions, {runs} runs (ms)", flush=True)
    results = []
    for _ in range(runs):
        with world.run(USUAL) as run:
            results.append(run.worker(sessions, 1000, snapshot, rate=40)["after_server_ms"])
    for name, q in (("p50", 0.5), ("p99", 0.99)):
        print(f"    {name} {spread([quantile(r, q) for r in results])}", flush=True)
    report.append({"case": title, "ms": results})


def growth(world, report, sessions):
    print(f"\ncost per session as sessions go by: {sessions} sessions, 1000 in flight", flush=True)
    with world.run(INSTANT) as run:
        worker = run.worker(sessions, 1000)
    with world.run(INSTANT) as run:
        bare = run.bare(sessions, 1000)
    for name, result in (("worker", worker), ("bare", bare)):
        blocks = result["cpu_us_by_1000"]
        early, late = statistics.mean(blocks[1:3]), statistics.mean(blocks[-2:])
        print(f"    {name:<7} CPU us/session: {early:.1f} around 2000, {late:.1f} at the end: "
              f"x {late / early:.2f}", flush=True)
    report.append({"case": "growth", "worker": worker, "bare": bare})


def main():
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--quick", action="store_true", help="one short run of each")
    options.add_argument("--runs", type=int, default=3)
    options.add_argument("--only", default="footprint,publishing,cost,latency,lag,dead,growth")
    options.add_argument("--keep", action="store_true", help="leave logs and data where they are")
    args = options.parse_args()
    runs, scale = (1, 4) if args.quick else (args.runs, 1)
    only = args.only.split(",")
    report = []
    scratch = tempfile.mkdtemp(prefix="session-worker-bench-")
    world = World(scratch)
    try:
        if "footprint" in only:
            footprint.run(world, report, runs)
        if "publishing" in only:
            publishing.run(world.broker.address, report, runs, scale)
        if "cost" in only:
            compare(world, report, "no delay", INSTANT,
                    [(64, 4000 // scale), (1000, 8000 // scale), (10000, 20000 // scale)], runs)
        if "latency" in only:
            compare(world, report, "usual delay", USUAL,
                    [(64, 2000 // scale), (1000, 8000 // scale), (10000, 20000 // scale)], runs)
        if "lag" in only:
            lag(world, report, runs, 800 // scale, "any", "server answers -> event visible")
        if "dead" in only:
            lag(world, report, runs, 400 // scale, "sim-dead-server", "server exits -> event visible")
        if "growth" in only:
            growth(world, report, 30000 // scale)
    finally:
        world.close()
        path = OUT / "bench.json"
        path.write_text(json.dumps(report))
        print(f"\nall figures: {path}; logs: {scratch}")


if __name__ == "__main__":
    main()
