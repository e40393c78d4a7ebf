#!/usr/bin/python3
"""What session-worker does, to look at: `make demo`, and `make dev` to go on from there.

Starts the embedded broker, the simulator of Daytona and two workers, all on loopback. The demo puts
twenty start-session jobs in, of which three must fail, shows each session on a line of its own (or,
where the output is no terminal, a line for each thing that happens), and then compares what the
events say with what the simulator knows. Exit 0: everything was as it must be.

With --keep it only starts the stack, says how to use it, and waits for Ctrl-C. Everything that was
started ends with this script, however that ends, and this script with whoever started it.
"""

import argparse
import contextlib
import json
import math
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import time

import confluent_kafka

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "integration"))

from harness import API_KEY, OUT, PATIENCE, Process, configuration, free_port, http, spawn, until  # noqa: E402

JOBS, RESULTS, PROGRESS, DEAD = "session-jobs", "session-results", "session-progress", "session-jobs-dlq"
PARTITIONS = 8
BOOT_MS, SERVER_MS = 600, 900
SOON = ["fetch.wait.max.ms=5"]  # the embedded broker answers a fetch only when this is over
# When two join it at once it may turn one away, and then the group waits for the session time-out.
QUICK_GROUP = ["session.timeout.ms=3000", "heartbeat.interval.ms=300"]
LIMIT = 60  # seconds for the twenty sessions
PARENT = os.getppid()
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

SERVERS = {
    "v0": {"kind": "v0", "plugins": ["agent_skills", "jupyter"]},
    "v1": {"kind": "v1"},
    "custom": {"kind": "custom", "port": 8080, "command": ["my-server", "--port", "8080"],
               "health": {"path": "/health", "json": {"status": "ok"}}},
}
# Number of the session -> its snapshot, more of its job, and the error code it must end in.
FAILING = {
    5: ("sim-dead-server", {}, "server_exited"),
    11: ("missing-snapshot", {}, "snapshot_not_found"),
    16: ("sim-never-listens", {"timeouts": {"launch": 2}}, "server_timeout"),
}
SESSIONS = 20


def say(text=""):
    print(text, flush=True)


# ---- the stack ----

class Child(Process):
    """In a process group of its own, so that a Ctrl-C is ours alone and we end it in order."""

    def launch(self):
        with open(self.log, "wb") as log:
            self.process = spawn(self.argv, stdout=log, stderr=log, process_group=0,
                                 env={**os.environ, **(self.env or {})})

    def wait_for(self, what, limit=20):
        def holds():
            if not self.running:
                raise AssertionError(f"{self.name} ended with {self.process.returncode}")
            return what()

        until(holds, limit, f"{self.name} does not get ready")

    def wait_listening(self):
        self.wait_for(lambda: "listening on" in self.log.read_text(errors="replace"))


class Stack:
    def __init__(self, folder, usual_ports):
        def port(usual):
            return usual if usual_ports and is_free(usual) else free_port()

        self.folder = folder
        self.broker_address = f"127.0.0.1:{port(19092)}"
        self.sim_address = f"127.0.0.1:{port(3986)}"
        self.admin = [f"127.0.0.1:{port(9464)}", f"127.0.0.1:{port(9465)}"]
        self.broker = Child("broker", [OUT / "demo-broker", "--listen", self.broker_address,
                                       "--partitions", PARTITIONS, JOBS, RESULTS, PROGRESS, DEAD], folder)
        self.sim = Child("simulator", [OUT / "daytona-sim", "--listen", self.sim_address,
                                       "--profile", "cloud", "--boot-ms", BOOT_MS,
                                       "--server-ms", SERVER_MS, "--seed", "7"], folder)
        self.workers = [self._worker(f"worker-{i + 1}", admin) for i, admin in enumerate(self.admin)]
        self.children = [self.broker, self.sim, *self.workers]

    def _worker(self, name, admin):
        config = self.folder / f"{name}.cfg"
        config.write_text(configuration({
            "kafka.brokers": self.broker_address, "kafka.delivery": "at_least_once",
            "kafka.instance": name, "kafka.properties": SOON + QUICK_GROUP,
            "topics.jobs": JOBS, "topics.results": RESULTS, "topics.progress": PROGRESS,
            "topics.dead_letters": DEAD,
            "providers": [{"name": "daytona", "type": "daytona", "api_url": f"http://{self.sim_address}/api",
                           "targets": ["us"], "creates_per_minute": 6000}],
            "admin.listen": admin, "drain.timeout_seconds": 3, "log.format": "logfmt"}))
        return Child(name, [OUT / "session-worker", "-c", config], self.folder, {"DAYTONA_API_KEY": API_KEY})

    def start(self):
        for child in (self.broker, self.sim):
            child.launch()
        for child in (self.broker, self.sim):
            child.wait_listening()
        for worker in self.workers:
            worker.launch()

    def wait_ready(self):
        for worker, admin in zip(self.workers, self.admin):
            worker.wait_for(lambda: answers(f"http://{admin}/readyz"))

    def ledger(self):
        """id -> sandbox, of those that are there now."""
        _, answer = http("GET", f"http://{self.sim_address}/_sim/ledger", limit=5)
        return {box["id"]: box for box in answer["sandboxes"] if box["destroyed_at"] is None}

    def end(self):
        """Workers first, both at a time; a sentence for each that does not end well. One TERM only:
        a second would end a worker at once."""
        for together in (self.workers, [self.sim, self.broker]):
            for child in [c for c in together if c.running]:
                child.process.terminate()
            for child in [c for c in together if c.process]:
                try:
                    code = child.process.wait(10 * PATIENCE)
                except subprocess.TimeoutExpired:
                    child.kill()
                    code = "SIGKILL, after a long wait"
                if code != 0:
                    yield f"{child.name} ended with {code}"

    def dead(self):
        return [child for child in self.children if not child.running]

    def lives(self):
        if os.getppid() != PARENT:
            raise KeyboardInterrupt  # make was killed: nobody is there to end us
        return not self.dead()


def is_free(port):
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
            return True
        except OSError:
            return False


def answers(url):
    try:
        return http("GET", url, limit=2)[0] == 200
    except OSError:
        return False


# ---- the sessions, each on its line ----

class Session:
    def __init__(self, number):
        self.id = f"demo-{number:02}"
        self.kind = list(SERVERS)[number % len(SERVERS)]
        snapshot, more, self.must = FAILING.get(number, (f"oh-{self.kind}", {}, "ready"))
        self.job = {"type": "start-session", "session_id": self.id, "tenant": "demo",
                    "sandbox": {"snapshot": snapshot}, "server": SERVERS[self.kind], **more}
        self.step = "queue"
        self.sent = self.ended = self.event = None

    @property
    def seconds(self):
        return (self.ended or time.monotonic()) - self.sent

    @property
    def outcome(self):
        """"ready", or the code of its error; None while it is under way."""
        if not self.event:
            return None
        return "ready" if self.event["type"] == "session-ready" else self.event["error"]["code"]

    def take(self, event):
        """True when that changes its line. A result may come twice, progress after it."""
        if self.event:
            return False
        if event["type"] == "session-progress":
            self.step = event["step"]
        else:
            self.event, self.ended = event, time.monotonic()
            self.step = "ready" if self.outcome == "ready" else "failed"
        return True

    def note(self):
        if not self.event:
            return ""
        return self.event["server"]["url"] if self.outcome == "ready" else self.why()

    def why(self):
        error = self.event["error"]
        tail = (error["log_tail"] or "").strip().splitlines()
        parts = [f"{error['code']} at {error['step']}: {error['message']}", error["provider_message"],
                 f"its log ends: {tail[-1]}" if tail else None]
        return "; ".join(p for p in parts if p)

    def line(self):
        return f"{self.id}  {self.kind:<6}  {self.step:<6}  {self.seconds:5.1f} s  {self.note()}".rstrip()


class Board:
    """On a terminal that has the room, all lines at once and redrawn; else a line for each change."""

    COLOURS = {"ready": "\033[32m", "failed": "\033[31m"}

    def __init__(self, sessions):
        self.sessions = sessions
        size = shutil.get_terminal_size()
        self.width = size.columns - 1
        self.live = (sys.stdout.isatty() and size.lines > len(sessions) + 1
                     and os.environ.get("TERM", "dumb") != "dumb")
        self.drawn = False

    def changed(self, session):
        if not self.live:
            say("  " + session.line())

    def draw(self):
        if not self.live:
            return
        up = f"\033[{len(self.sessions)}A" if self.drawn else ""
        self.drawn = True
        rows = [self._painted(s, f"  {s.line()}"[:self.width]) for s in self.sessions]
        sys.stdout.write(up + "".join(f"{row}\033[K\n" for row in rows))
        sys.stdout.flush()

    def _painted(self, session, text):
        colour = "" if "NO_COLOR" in os.environ else self.COLOURS.get(session.step, "")
        return f"{colour}{text}\033[0m" if colour else text


def submit(stack, sessions):
    producer = confluent_kafka.Producer({"bootstrap.servers": stack.broker_address,
                                         "partitioner": "murmur2_random", "linger.ms": 0})
    for session in sessions:
        session.sent = time.monotonic()
        producer.produce(JOBS, json.dumps(session.job).encode(), session.id)
    if producer.flush(10):
        raise AssertionError("the broker does not take the jobs")


def events(stack):
    """What results and progress topic bring; None when for a moment there is nothing."""
    consumer = confluent_kafka.Consumer({
        "bootstrap.servers": stack.broker_address, "group.id": "demo", "enable.auto.commit": False,
        **dict(p.split("=") for p in SOON)})
    consumer.assign([confluent_kafka.TopicPartition(topic, p, 0)
                     for topic in (RESULTS, PROGRESS) for p in range(PARTITIONS)])
    try:
        while True:
            message = consumer.poll(0.1)
            yield json.loads(message.value()) if message and not message.error() else None
    finally:
        consumer.close()


def follow(stack, sessions):
    """Until every session has its result."""
    board = Board(sessions)
    by_id = {s.id: s for s in sessions}
    drawn, end = 0, time.monotonic() + LIMIT * PATIENCE
    for event in events(stack):
        if event and by_id[event["session_id"]].take(event):
            board.changed(by_id[event["session_id"]])
        done = all(s.event for s in sessions)
        if done or time.monotonic() - drawn > 0.1:
            board.draw()
            drawn = time.monotonic()
        if done:
            return
        if not stack.lives() or time.monotonic() > end:
            missing = ", ".join(s.id for s in sessions if not s.event)
            dead = ", ".join(c.name for c in stack.dead()) or "none"
            raise AssertionError(f"no result of {missing}; of the programs have ended: {dead}")


# ---- the summary ----

def percentile(values, p):
    values = sorted(values)
    return values[max(0, math.ceil(len(values) * p / 100) - 1)]


def announced(sessions):
    """Ids of the sandboxes that the events say are there."""
    return {s.event["sandbox"]["id"] for s in sessions
            if s.outcome == "ready" or (s.event["sandbox"] or {}).get("cleanup") == "kept"}


def settled(stack, sessions):
    """Sandboxes of failures are destroyed after their events: waits until there are no more than
    announced, a few seconds at most; then those that are left."""
    end = time.monotonic() + 10 * PATIENCE
    while (left := set(stack.ledger())) != announced(sessions) and time.monotonic() < end:
        time.sleep(0.05)
    return left


def summarize(sessions, left):
    """Says what came out; the list of what is not as it must be."""
    ready = [s for s in sessions if s.outcome == "ready"]
    failed = [s for s in sessions if s.outcome != "ready"]
    named = announced(sessions)
    say(f"\n{len(ready)} ready, {len(failed)} failed")
    for s in failed:
        say(f"  {s.id}  {s.why()}")
    if ready:
        times = [s.seconds for s in ready]
        requests = sum(s.event["requests"] for s in ready) / len(ready)
        say(f"from job to ready     p50 {percentile(times, 50):.1f} s, p99 {percentile(times, 99):.1f} s")
        say(f"requests per session  {requests:.1f}")
    say(f"sandboxes left        {len(left)} = {len(named)} announced" if left == named else
        f"sandboxes left        {len(left)}, but {len(named)} announced: {sorted(left ^ named)}")
    wrong = [f"{s.id} is {s.outcome}, not {s.must}" for s in sessions if s.outcome != s.must]
    return wrong + ([] if left == named else ["ledger and events differ"])


# ---- the two uses ----

def demo(stack):
    sessions = [Session(number) for number in range(1, SESSIONS + 1)]
    stack.wait_ready()
    say(f"Both workers are ready. {SESSIONS} start-session jobs go in; {len(FAILING)} of them must fail.\n")
    submit(stack, sessions)
    follow(stack, sessions)
    return summarize(sessions, settled(stack, sessions))


def dev(stack):
    stack.wait_ready()
    tool = shown(OUT / "sessionctl")
    config = f"-c {shown(stack.folder / 'worker-1.cfg')}"
    say(f"""Both workers are ready. In another terminal:

submit it a job
  {tool} start S1 {config} --snapshot oh-v0 --wait
  {tool} start S2 {config} --snapshot sim-dead-server --wait
  {tool} start --count 50 {config} --rate 10/s --snapshot oh-v1 --server v1
  {tool} delete S1 {config} --wait
watch it
  {tool} watch {config}
  tail -f {shown(stack.folder)}/worker-*.log
look at its pages
  http://{stack.admin[0]}/sessions  /metrics  /readyz  /healthz   and those of http://{stack.admin[1]}
  http://{stack.sim_address}/_sim/ledger  /_sim/stats   what the simulator has seen

Snapshots that begin with sim- fail in ways of their own: tests/sim/README.md lists them.
Ctrl-C ends it all.""")
    while stack.lives():
        time.sleep(0.2)
    return [f"{child.name} ended with {child.process.returncode}" for child in stack.dead()]


def shown(path):
    """As one types it from the folder one is in."""
    return os.path.relpath(path)


def banner(stack):
    say(f"""broker     {stack.broker_address}, embedded: in-memory (all is lost when it ends) and at-least-once
           (a result may be seen twice after a crash). Exactly-once needs a real Kafka.
simulator  http://{stack.sim_address}/api, as Daytona: boots in about {BOOT_MS / 1000} s, servers in {SERVER_MS / 1000} s
workers    two, with pages at http://{stack.admin[0]} and http://{stack.admin[1]}
""")


@contextlib.contextmanager
def alone_with_the_terminal():
    """Ctrl-C reaches this script only, and not the make above it, which would call it an error. (Ctrl-Z
    does nothing meanwhile: nobody would notice that we stand still.)"""
    terminal = 0
    ours = os.isatty(terminal) and os.tcgetpgrp(terminal) == os.getpgrp()
    if not ours or os.getpgrp() == os.getpid():  # in the background, or nobody above us
        yield
        return
    before = os.tcgetpgrp(terminal)
    signal.signal(signal.SIGTTOU, signal.SIG_IGN)
    signal.signal(signal.SIGTSTP, signal.SIG_IGN)
    os.setpgid(0, 0)
    os.tcsetpgrp(terminal, os.getpgrp())
    try:
        yield
    finally:
        os.tcsetpgrp(terminal, before)


def run(stack, keep):
    """The list of what went wrong, and whether it was interrupted."""
    interrupted = False
    try:
        stack.start()
        banner(stack)
        wrong = (dev if keep else demo)(stack)
    except KeyboardInterrupt:
        wrong, interrupted = [], True
        say("\nStopping …")
    except (AssertionError, OSError, confluent_kafka.KafkaException) as trouble:
        wrong = [str(trouble)]
    finally:
        for number in ENDING:  # it takes a second or two, and then it is over
            signal.signal(number, signal.SIG_IGN)
        ended_badly = list(stack.end())
    return wrong + ended_badly, interrupted


def main():
    args = argparse.ArgumentParser(description="session-worker on an embedded broker and a simulated Daytona")
    args.add_argument("--keep", action="store_true", help="start the stack and wait for Ctrl-C")
    args.add_argument("--free-ports", action="store_true", help="not 19092, 3986, 9464 and 9465")
    args.add_argument("--folder", type=pathlib.Path, help="for configuration and logs")
    args = args.parse_args()
    folder = args.folder or OUT / ("dev" if args.keep else "demo")  # both may run at a time
    began = time.monotonic()
    for number in ENDING:
        if signal.getsignal(number) != signal.SIG_IGN:  # as under nohup
            signal.signal(number, signal.default_int_handler)
    folder.mkdir(parents=True, exist_ok=True)
    stack = Stack(folder, usual_ports=not args.free_ports)
    with alone_with_the_terminal():
        wrong, interrupted = run(stack, args.keep)
    for problem in wrong:
        say(f"wrong: {problem}")
    if wrong:
        say(f"The logs are in {shown(folder)}/.")
        return 1
    if interrupted and not args.keep:
        say("Interrupted; everything has been stopped.")
        return 130
    say("Everything has been stopped." if args.keep else
        f"All as it must be; everything has been stopped. {time.monotonic() - began:.1f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
