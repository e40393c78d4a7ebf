"""What the integration tests are written in: a broker, a simulator, workers, jobs in, events out.

A test is a Case. It has topics and a consumer group of its own on the run's one broker, its own
simulator, and as many workers as it starts; all of them end with it. Their logs and configuration
stay in build/<flavour>/logs/<test>/ and are shown when it fails. Every wait has a limit.
"""

import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time
import unittest
import urllib.error
import urllib.request

import confluent_kafka
from confluent_kafka.admin import AdminClient, NewTopic

TESTS = pathlib.Path(__file__).resolve().parent.parent
ROOT = TESTS.parent
sys.path.insert(0, str(TESTS / "kafka"))

import history  # noqa: E402
from broker import Broker, free_port, spawn  # noqa: E402
from history import Event, Sent  # noqa: E402

FLAVOUR = os.environ.get("FLAVOUR", "release")
OUT = ROOT / os.environ.get("BUILD", "build") / FLAVOUR
LOGS = OUT / "logs"
VALGRIND = ["valgrind", "-q", "--error-exitcode=99", "--leak-check=full",
            "--errors-for-leak-kinds=definite"] if os.environ.get("VALGRIND") else []
SOAK = bool(os.environ.get("SOAK"))  # the long forms, which `make test` has no time for
PATIENCE = 6 if VALGRIND else 3 if FLAVOUR == "asan" else 1  # all limits are this much longer
for name in [n for n in os.environ if n.startswith(("SESSION_WORKER_", "DAYTONA_"))]:
    del os.environ[name]  # what a user's shell has set is not for the programs under test
API_KEY = "dtn_EXAMPLE"
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # all of it is loopback
SNAPSHOTS = {  # beside the simulator's own sim-…
    "half-second": {"boot_ms": 500},
    "slow-server": {"server_ms": 3000},
    "unknown": {"boot": "not_found"},
    "breaks-late": {"boot": "error", "boot_ms": 1500},
}
SESSION_TIMEOUT = 6  # seconds until the group notices that a worker died


# ---- jobs: what a user writes ----

def start(session, snapshot="any", **fields):
    return {"type": "start-session", "session_id": session,
            "sandbox": {"snapshot": snapshot, **fields.pop("sandbox", {})}, **fields}


def stop(session, **fields):
    return {"type": "stop-session", "session_id": session, **fields}


def delete(session, **fields):
    return {"type": "delete-session", "session_id": session, **fields}


def command(*argv, path="/"):
    """A server of one's own: `server=command("sh", "-c", "exit 3")`."""
    return {"kind": "custom", "port": 8080, "command": list(argv), "health": {"path": path}}


def until(what, limit, say, pause=0.05):
    """what() until it is true; its value. After limit seconds the test fails: say."""
    end = time.monotonic() + limit * PATIENCE
    while True:
        value = what()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"{say() if callable(say) else say} (waited {limit * PATIENCE} s)")
        time.sleep(pause)


def http(method, url, body=None, headers=(), limit=40):
    """(status, parsed JSON or text). Names below localhost are loopback, whatever the resolver says."""
    data = None if body is None else json.dumps(body).encode()
    host = re.match(r"http://([^/:]+\.localhost(:\d+)?)(?=/|$)", url)
    if host:
        url = url.replace(host[1], "127.0.0.1" + (host[2] or ""), 1)
        headers = {**dict(headers), "Host": host[1]}
    head = {**dict(headers), **({"Content-Type": "application/json"} if data else {})}
    request = urllib.request.Request(url, data=data, method=method, headers=head)
    try:
        with DIRECT.open(request, timeout=limit) as answer:
            status, raw = answer.status, answer.read()
    except urllib.error.HTTPError as refused:
        status, raw = refused.code, refused.read()
    try:
        return status, json.loads(raw)
    except ValueError:
        return status, raw.decode(errors="replace")


class Process:
    """A program with its log; ended by pid."""

    def __init__(self, name, argv, folder, env=None):
        self.name = name
        self.log = folder / f"{name}.log"
        self.argv = argv
        self.env = env
        self.process = None
        self.killed = False

    def launch(self):
        self.killed = False
        with open(self.log, "ab") as log:
            self.process = spawn(self.argv, stdout=log, stderr=log, env={**os.environ, **(self.env or {})})

    @property
    def stopped(self):
        """By SIGSTOP, its own or ours."""
        stat = pathlib.Path(f"/proc/{self.process.pid}/stat").read_text()
        return stat.rsplit(")", 1)[1].split()[0] == "T"

    @property
    def running(self):
        return self.process is not None and self.process.poll() is None

    def send(self, number):
        self.process.send_signal(number)

    def kill(self):
        """SIGKILL: as when the machine goes dark."""
        self.killed = True
        if self.running:
            self.process.kill()
        self.process.wait()

    def freeze(self):
        self.send(signal.SIGSTOP)

    def thaw(self):
        self.send(signal.SIGCONT)

    def end(self, limit=30):
        """SIGTERM; the exit code (a frozen one is woken first, a deaf one is killed: None)."""
        if self.running:
            self.thaw()
            self.process.terminate()
        try:
            return self.process.wait(limit * PATIENCE)
        except subprocess.TimeoutExpired:
            self.kill()
            return None

    def tail(self, lines=40):
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        return "\n".join(text.splitlines()[-lines:])


class Simulator(Process):
    """daytona-sim, with its control paths."""

    def __init__(self, folder, options=()):
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        scenario = folder / "scenario.json"
        scenario.write_text(json.dumps({"snapshots": SNAPSHOTS}))
        argv = [OUT / "daytona-sim", "--listen", f"127.0.0.1:{self.port}", "--profile", "fast",
                "--seed", "7", "--scenario", scenario, *options]
        super().__init__("simulator", argv, folder)

    def start(self):
        self.launch()

        def answers():
            if not self.running:
                raise AssertionError(f"the simulator ended:\n{self.tail()}")
            try:
                return http("GET", f"{self.url}/_sim/stats", limit=2)[0] == 200
            except OSError:
                return False

        until(answers, 10, "the simulator does not answer")
        return self

    def control(self, method, path, body=None):
        status, answer = http(method, f"{self.url}/_sim/{path}", body)
        if status >= 300:
            raise AssertionError(f"{method} /_sim/{path}: {status} {answer}")
        return answer

    def ledger(self):
        """Every sandbox ever made."""
        return self.control("GET", "ledger")["sandboxes"]

    def live(self):
        """id -> sandbox, of those whose name is not free again."""
        return {box["id"]: box for box in self.ledger() if box["destroyed_at"] is None}

    def stats(self):
        return self.control("GET", "stats")

    def requests(self, pattern):
        """How many requests there were whose kind ("POST /sandbox/{x}/stop") matches."""
        return sum(sum(by_status.values()) for kind, by_status in self.stats()["requests"].items()
                   if re.search(pattern, kind))

    def fault(self, do, path_contains, method=None, nth=1, times=1, **more):
        """do: lose_answer, lose_request, status (status=n) or delay_ms (delay_ms=n); with the nth
        request that matches it begins."""
        match = {"path_contains": path_contains, "nth": nth, **({"method": method} if method else {})}
        self.control("POST", "faults", {"match": match, "do": do, "times": times, **more})

    def no_faults(self):
        return self.control("DELETE", "faults")

    def advance(self, seconds):
        return self.control("POST", "clock", {"advance_seconds": seconds})

    def api(self, method, path, body=None):
        """The API as another of its clients sees it."""
        return http(method, f"{self.url}/api{path}", body, {"Authorization": f"Bearer {API_KEY}"})


class Worker(Process):
    """session-worker. settings: "section.key" -> value, written to its worker.cfg. breaks: where it
    dies, stops or aborts (tests/breaking/break.c), until it is mended."""

    def __init__(self, case, name, settings, properties=(), breaks=None):
        folder = case.folder
        self.admin = f"127.0.0.1:{free_port()}"
        values = {**case.settings, **settings, "kafka.instance": f"{case.prefix}-{name}",
                  "admin.listen": self.admin}
        values["kafka.properties"] = [*case.properties, *properties]
        path = folder / f"{name}.cfg"
        path.write_text(configuration(values))
        program = OUT / ("tests/breaking/session-worker" if breaks else "session-worker")
        super().__init__(name, [*VALGRIND, program, "-c", path], folder, {"DAYTONA_API_KEY": API_KEY})
        if breaks:
            self.env["SESSION_WORKER_BREAK"] = breaks

    def mend(self):
        """From its next launch on it does not break any more."""
        del self.env["SESSION_WORKER_BREAK"]

    def start(self, ready=True):
        self.launch()
        return self.wait_ready() if ready else self

    def page(self, path):
        """(status, text or JSON) of its admin port; (0, "") when nobody answers."""
        try:
            return http("GET", f"http://{self.admin}{path}", limit=5)
        except OSError:
            return 0, ""

    def wait_ready(self, limit=20):
        def is_ready():
            if not self.running:
                raise AssertionError(f"{self.name} ended with {self.process.returncode}:\n{self.tail()}")
            return self.page("/readyz")[0] == 200

        until(is_ready, limit, lambda: f"{self.name} is not ready: {self.page('/readyz')}")
        return self

    def metric(self, name, **labels):
        """Sum of the series of session_worker_<name> that carry the labels."""
        total = 0.0
        for line in str(self.page("/metrics")[1]).splitlines():
            match = re.match(rf"session_worker_{name}(?:\{{(.*)\}})? (\S+)$", line)
            if match and all(f'{k}="{v}"' in (match.group(1) or "") for k, v in labels.items()):
                total += float(match.group(2))
        return total


def configuration(settings):
    """libconfig text of {"kafka.brokers": "…", "providers": [{…}], …}."""
    groups = {}
    for key, value in settings.items():
        group, _, name = key.rpartition(".")
        groups.setdefault(group, {})[name] = value

    def show(value):
        if isinstance(value, bool):
            return str(value).lower()
        if isinstance(value, (int, float)):
            return str(value)
        if isinstance(value, dict):
            return "{ " + " ".join(f"{k} = {show(v)};" for k, v in value.items()) + " }"
        if isinstance(value, (list, tuple)):
            left, right = "()" if value and isinstance(value[0], dict) else "[]"
            return left + " " + ", ".join(map(show, value)) + " " + right
        return json.dumps(value)

    top = groups.pop("", {})
    return "".join(f"{k} = {show(v)};\n" for k, v in {**top, **groups}.items())


class Reader:
    """A read_committed reader of a topic, from its beginning; keeps what it has seen."""

    def __init__(self, address, topic):
        self.events = []
        self.consumer = confluent_kafka.Consumer({
            "bootstrap.servers": address, "group.id": f"reader-of-{topic}", "enable.auto.commit": False,
            "isolation.level": "read_committed", "fetch.wait.max.ms": 100,
            "auto.offset.reset": "earliest", "log_level": 2})
        partitions = until(lambda: self.consumer.list_topics(topic, 10).topics[topic].partitions,
                           10, f"{topic} has no partitions")  # a new topic has none for a moment
        self.consumer.assign([confluent_kafka.TopicPartition(topic, p, 0) for p in partitions])

    def poll(self, seconds):
        """Takes in what comes within so many seconds; true if anything did."""
        messages = self.consumer.consume(500, seconds)
        for message in messages:
            if message.error():
                raise AssertionError(f"reader: {message.error()}")
            self.events.append(Event.of(message))
            import schemas  # here, because the demo does without a validator
            schemas.check_event(self.events[-1])
        return bool(messages)

    def wait(self, enough, limit, say):
        """Reads until enough(events), then until one second has brought nothing."""
        end = time.monotonic() + limit * PATIENCE
        while not enough(self.events):
            if time.monotonic() > end:
                raise AssertionError(f"{say(self.events)} (waited {limit * PATIENCE} s)")
            self.poll(0.1)
        return self.events

    def settle(self, seconds=1.0):
        """Reads on until so many seconds have brought nothing."""
        while self.poll(seconds):
            pass
        return self.events

    def close(self):
        self.consumer.close()


def patiently(address, group, question):
    """question(consumer), which is in the group's name but no member. A broker that cannot say just
    now is asked again."""
    consumer = confluent_kafka.Consumer({"bootstrap.servers": address, "group.id": group,
                                         "enable.auto.commit": False, "log_level": 2})
    told = []

    def asked():
        try:
            return question(consumer)
        except confluent_kafka.KafkaException as why:
            told.append(why)
            return None

    try:
        return until(asked, 30, lambda: f"{group} is not told: {told[-1]}", 0.3)
    finally:
        consumer.close()


def committed(address, group, topic, partitions):
    """TopicPartitions 0, 1, … with the group's offset and metadata."""
    wanted = [confluent_kafka.TopicPartition(topic, p) for p in range(partitions)]
    return patiently(address, group, lambda consumer: consumer.committed(wanted, 10))


def ends(address, group, topic, partitions):
    """Where the logs of partitions 0, 1, … end."""
    return patiently(address, group, lambda consumer: [consumer.get_watermark_offsets(
        confluent_kafka.TopicPartition(topic, p), 10)[1] for p in range(partitions)])


def taking(seconds):
    """About how long one test takes, where its class says otherwise."""
    def mark(test):
        test.seconds = seconds
        return test
    return mark


class Case(unittest.TestCase):
    """Base of all tests; class attributes choose the world."""

    partitions = 8
    result_partitions = 4
    replicas = 1
    own_kafka = False  # a broker of its own, for tests that stop or freeze it
    sim_options = ()
    seconds = 10  # about how long it takes; the longest are started first
    properties = [f"session.timeout.ms={SESSION_TIMEOUT * 1000}", "heartbeat.interval.ms=500"]
    maxDiff = None

    def run(self, result=None):
        before = len(result.failures) + len(result.errors) if result else 0
        super().run(result)
        if result and len(result.failures) + len(result.errors) > before:
            for log in sorted(self.folder.glob("*.log")):
                tail = log.read_text(errors="replace").splitlines()[-25:]
                print(f"---- the end of {log}", *tail, sep="\n", file=sys.stderr)

    def setUp(self):
        name = re.sub(r"[^a-z0-9]+", "-", self._testMethodName[5:].lower())
        self.prefix = f"t{os.getpid()}-{name}"[:40].rstrip("-")  # also the fleet: at most 40
        self.folder = LOGS / self.id().replace("/", ".")
        self.folder.mkdir(parents=True, exist_ok=True)
        for old in self.folder.glob("*"):
            if old.is_file():
                old.unlink()
        self.kafka_address = self._broker()
        self.sim = Simulator(self.folder, options=self.sim_options).start()
        self.addCleanup(self.sim.end)
        self._open()

    def _open(self):
        """What is a test's own, on a broker and beside a simulator that are there."""
        self.jobs_topic, self.results_topic, self.dlq_topic = (
            f"{self.prefix}-{what}" for what in ("jobs", "results", "dlq"))
        self.group = self.prefix
        self._create_topics()
        self.producer = confluent_kafka.Producer({"bootstrap.servers": self.kafka_address,
                                                  "linger.ms": 5, "partitioner": "murmur2_random"})
        self.results = Reader(self.kafka_address, self.results_topic)
        self.dead = Reader(self.kafka_address, self.dlq_topic)
        self.addCleanup(self.results.close)
        self.addCleanup(self.dead.close)
        self.settings = {
            "kafka.brokers": self.kafka_address, "kafka.group": self.group,
            "kafka.delivery": "exactly_once",
            "topics.jobs": self.jobs_topic, "topics.results": self.results_topic,
            "topics.dead_letters": self.dlq_topic,
            "jobs.timeout_seconds": 60,
            "providers": [{"name": "daytona", "type": "daytona", "api_url": f"{self.sim.url}/api",
                           "targets": ["us"], "creates_per_minute": 60000}],
            "sweep.every_seconds": 2, "drain.timeout_seconds": 5,
            "log.level": "debug", "log.format": "logfmt",
        }
        self.workers = []

    # ---- the world ----

    def _broker(self):
        address = os.environ.get("TEST_KAFKA")
        if address and not self.own_kafka:
            return address
        self.kafka = Broker(self.folder / "kafka")
        self.kafka.format()
        self.kafka.start()
        self.addCleanup(self.kafka.stop)
        return self.kafka.address

    def _create_topics(self):
        admin = AdminClient({"bootstrap.servers": self.kafka_address})
        wanted = admin.create_topics([NewTopic(self.jobs_topic, self.partitions, self.replicas),
                                      NewTopic(self.results_topic, self.result_partitions, self.replicas),
                                      NewTopic(self.dlq_topic, 1, self.replicas)])
        for future in wanted.values():
            future.result(30)

    def worker(self, name=None, properties=(), ready=True, breaks=None, **settings):
        """Starts one. Settings are written with "__" for the dot: sweep__every_seconds=1. When the
        test ends it must drain and exit 0, unless the test killed it."""
        name = name or f"worker-{chr(ord('a') + len(self.workers))}"
        settings = {k.replace("__", "."): v for k, v in settings.items()}
        worker = Worker(self, name, settings, properties, breaks)
        self.workers.append(worker)
        worker.start(ready)
        self.addCleanup(self.drained, worker)
        return worker

    def drained(self, worker):
        if not worker.killed:
            self.assertEqual(worker.end(), 0, f"{worker.name} did not end well:\n{worker.tail(15)}")

    # ---- jobs in, events out ----

    def produce(self, *jobs, key=..., headers=None):
        """Puts jobs in (dicts, or bytes as they are; the key is the session's id unless given) and
        waits until the broker has them. One Sent each, in order."""
        sent = [None] * len(jobs)

        def delivered(i, job):
            def note(error, message):
                self.assertIsNone(error)
                sent[i] = Sent(job, message.topic(), message.partition(), message.offset(),
                               key=message.key() and message.key().decode(errors="replace"))
            return note

        for i, job in enumerate(jobs):
            value = job if isinstance(job, (bytes, type(None))) else json.dumps(job).encode()
            record_key = (job["session_id"] if isinstance(job, dict) else None) if key is ... else key
            self.producer.produce(self.jobs_topic, value, record_key, headers=headers,
                                  on_delivery=delivered(i, job))
        self.assertEqual(self.producer.flush(30), 0, "jobs were not delivered")
        return sent

    def events_of(self, sent, limit=60):
        """Waits until each of the jobs has an event; the events in the order of the jobs."""
        wanted = [s.ce_id for s in sent]

        def found(events):
            return {e.ce_id for e in events} >= set(wanted)

        def missing(events):
            seen = {e.ce_id for e in events}
            lacking = [s for s in sent if s.ce_id not in seen]
            return (f"{len(lacking)} of {len(sent)} jobs have no event, among them "
                    f"{[(s.ce_id, s.session) for s in lacking[:5]]}")

        by_id = {e.ce_id: e for e in reversed(self.results.wait(found, limit, missing))}
        events = [by_id[i] for i in wanted]
        import schemas
        schemas.check_jobs(sent, events)
        return events

    def event_of(self, sent, limit=60):
        return self.events_of([sent], limit)[0]

    def done(self, *jobs, limit=60):
        """Puts jobs in and waits for their events."""
        return self.events_of(self.produce(*jobs), limit)

    def one(self, job, limit=60):
        return self.done(job, limit=limit)[0]

    # ---- what must hold ----

    def assert_one_event_each(self, sent):
        """A read_committed reader sees exactly one event of each job, and none of anything else."""
        self.results.settle()
        self.assertEqual(history.judge_events(sent, self.results.events), [])

    def assert_ledger_is_what_was_announced(self, limit=20):
        """What lives at the provider is, soon, exactly what events name as there."""
        def differ():
            return history.judge_boxes(self.results.events, self.sim.ledger())

        until(lambda: not differ(), limit, lambda: f"ledger and events differ: {differ()[:5]}", 0.2)

    def assert_never_two_live(self):
        """Of no name were there ever two sandboxes at a time."""
        self.assertEqual(history.judge_overlaps(self.sim.ledger()), [])

    def committed(self):
        """partition -> {committed, metadata, end of its log}."""
        which = self.kafka_address, self.group, self.jobs_topic, self.partitions
        return {t.partition: {"committed": t.offset, "metadata": getattr(t, "metadata", None), "end": end}
                for t, end in zip(committed(*which), ends(*which))}

    def assert_offsets_at_end(self, limit=10):
        def behind():
            return history.judge_offsets(self.committed())

        until(lambda: not behind(), limit, lambda: f"committed is not the end: {behind()}", 0.3)

    def assert_careful(self):
        """Nothing was asked of the provider that no careful client asks."""
        allowed = {"DELETE of a kept sandbox"} if any(
            e["type"] == "session-deleted" for e in self.results.events) else set()
        found = {k: n for k, n in self.sim.stats()["violations"].items() if k not in allowed}
        self.assertEqual(found, {})

    def assert_clean(self, sent):
        """What holds whatever has happened, once every job has its event."""
        self.assert_careful()
        self.assert_one_event_each(sent)
        self.assert_ledger_is_what_was_announced()
        self.assert_never_two_live()
        self.assert_offsets_at_end()
