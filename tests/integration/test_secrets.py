"""A secret in every place where one can be, of two hundred jobs: they are nowhere but where they must be.

Each planted secret holds a word of its own, which is looked for in whatever escapes or breaks into lines
the rest of it. What the run makes itself (session keys, preview tokens) is learned from the ready events
and looked for as well."""

import json
import pathlib
import random
import subprocess
import threading

import confluent_kafka
import harness
from harness import Case, Worker, delete, start, stop, taking

JOBS = 200
LETTERS = "abcdefghjkmnpqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789"
SHAPES = ["{}", "it's {}", 'say "{}" \\', "$({}) `x` ${{HOME}}", "first\nline {}\n\nlast", "\u00fc{}\U0001f4a9", " {} ",
          "{}\t\x1b[31m", "-----BEGIN KEY-----\n{}\n-----END KEY-----\n", '{{"token": "{}"}}']
PAGES = ("/healthz", "/readyz", "/metrics", "/sessions", "/", "/config", "/debug")


class Planted:
    """The words of what was planted, by the place where each was."""

    def __init__(self):
        self.random = random.Random(20261124)
        self.words = {}  # word -> place

    def word(self, place):
        word = "zq" + "".join(self.random.choice(LETTERS) for _ in range(20))
        self.words[word] = place
        return word

    def secret(self, place):
        """A value in which the word stands among what has to be escaped."""
        return self.random.choice(SHAPES).format(self.word(place))

    def token(self, place):
        return f"tok-{self.word(place)}/+="

    def learn(self, value, place):
        if value:
            self.words[value] = place

    def found(self, text, but=()):
        """place of each word that stands in the text, without those of the places `but`."""
        raw = text if isinstance(text, bytes) else text.encode(errors="surrogateescape")
        return sorted({place for word, place in self.words.items() if word.encode() in raw and place not in but})


class Secrets(Case):
    seconds = 15
    partitions = 4

    def setUp(self):
        super().setUp()
        self.planted = Planted()
        self.progress_topic = f"{self.prefix}-progress"
        admin = confluent_kafka.admin.AdminClient({"bootstrap.servers": self.kafka_address})
        admin.create_topics([confluent_kafka.admin.NewTopic(self.progress_topic, 1, 1)])[self.progress_topic].result(30)
        self.progress = harness.Reader(self.kafka_address, self.progress_topic)
        self.addCleanup(self.progress.close)
        self.pages = []  # (page, text) as they were seen

    def secret_file(self, name, value):
        path = self.folder / name
        path.write_text(value + "\n")
        path.chmod(0o600)
        return str(path)

    def run_worker(self, name):
        """Every secret of the configuration in a file; librdkafka tells what it does."""
        provider = {**self.settings["providers"][0],
                    "api_key_file": self.secret_file(f"{name}.key", f"dtn_{self.planted.word('Daytona key')}")}
        settings = {"providers": [provider], "topics.progress": self.progress_topic,
                    "kafka.password_file": self.secret_file(f"{name}.password", self.planted.token("SASL password")),
                    "session_key.secret_files": [self.secret_file(f"{name}.{i}", self.planted.token(f"session secret {i}"))
                                                 for i in range(2)],
                    "jobs.attempts": 1}
        worker = Worker(self, name, settings, ["debug=generic,broker,security,conf,cgrp,eos",
                                               "sasl.mechanism=PLAIN", "sasl.username=worker"])
        worker.env = {}
        self.workers.append(worker)
        worker.start()
        self.addCleanup(self.drained, worker)
        return worker

    # ---- two hundred jobs ----

    def good(self, i):
        return start(f"ok-{i}", env={"TOKEN": self.planted.secret("env value"), "OTHER": self.planted.secret("env value")},
                     session_api_key=self.planted.token("session_api_key"), password=self.planted.token("unknown field"))

    def derived(self, i):
        return start(f"key-{i}", env={"A": self.planted.secret("env value")})

    def tells_all(self, i):
        """A server that prints its environment and ends."""
        return start(f"tell-{i}", env={"A": self.planted.secret("env value"), "B": self.planted.secret("env value")},
                     session_api_key=self.planted.token("session_api_key"),
                     server=harness.command("sh", "-c", 'echo "begin $A and $B"; echo "key $SESSION_API_KEY"; exit 3'))

    def tells_much(self, i):
        """The same, of a value that is longer than what is shown of a log, more often than is read."""
        value = (self.planted.word("env value") + "-") * 800
        return start(f"much-{i}", env={"A": value}, server=harness.command("sh", "-c", "echo $A; echo $A; echo $A; exit 3"))

    def in_the_command(self, i):
        return start(f"argv-{i}", env={"A": self.planted.secret("env value")}, snapshot="sim-dead-server")

    def refused(self, i):
        """Where one member is wrong, the others are as secret as before."""
        wrong = [{"mode": "x"}, {"env": {"A": self.planted.secret("env value"), "B": 7}}, {"server": {"port": 0}},
                 {"session_api_key": f"{self.planted.word('session_api_key')} and a space"},
                 {"env": {"A": self.planted.word("env value") * 2000}}]
        return {**start(f"bad-{i}", env={"A": self.planted.secret("env value")},
                        session_api_key=self.planted.token("session_api_key")), **wrong[i % len(wrong)]}

    def broken(self, i):
        whole = json.dumps(start(f"half-{i}", env={"A": self.planted.secret("env value")}))
        return whole[:-i % 7 - 1].encode()

    def put(self):
        """(Sent of all jobs, those of the refused ones)"""
        kinds = ((self.good, 80), (self.derived, 20), (self.tells_all, 30), (self.tells_much, 5),
                 (self.in_the_command, 15))
        jobs = [make(i) for make, n in kinds for i in range(n)]
        headers = [("authorization", f"Bearer {self.planted.word('record header')}"),
                   ("x-api-key", self.planted.word("record header"))]
        sent = self.produce(*jobs, headers=headers)
        bad = self.produce(*(self.refused(i) for i in range(20)))
        bad += [s for i in range(10) for s in self.produce(self.broken(i), key=f"half-{i}")]
        self.events_of(sent, limit=90)  # a stop would cancel them
        sent += self.produce(*(stop(f"ok-{i}") for i in range(10)), *(delete(f"ok-{i}") for i in range(10, 20)))
        self.assertEqual(len(sent) + len(bad), JOBS)
        return sent, bad

    def look(self, over):
        """What the admin ports say meanwhile."""
        while not over.wait(0.1):
            for worker in self.workers:
                for page in PAGES:
                    status, text = worker.page(page)
                    if status:
                        self.pages.append((page, text if isinstance(text, str) else json.dumps(text, ensure_ascii=False)))

    # ---- where they are looked for ----

    def nothing(self, where, text, but=()):
        found = self.planted.found(text, but)
        self.assertEqual(found, [], f"{where} holds secrets")

    def check_events(self, events):
        for event in events:
            told = json.dumps(event.json, ensure_ascii=False)
            if event["type"] == "session-ready":
                own = [event["sandbox.session_api_key"], event["sandbox.preview_token"], event["vscode.token"]]
                for value in filter(None, own):
                    told = told.replace(json.dumps(value)[1:-1], "")
            self.nothing(f"the event {event}", told)
            self.nothing(f"the headers of {event}", json.dumps(event.headers))

    def check_letters(self, bad):
        self.dead.settle(0.5)
        by_offset = {(d.headers["__connect.errors.partition"], d.headers["__connect.errors.offset"]): d
                     for d in self.dead.events}
        self.assertEqual(len(self.dead.events), len(bad))
        for one in bad:
            letter = by_offset[str(one.partition), str(one.offset)]
            whole = one.job if isinstance(one.job, bytes) else json.dumps(one.job).encode()
            self.assertEqual(letter.raw, whole, "the original bytes, secrets and all")
            self.nothing(f"the headers of {letter.headers}", json.dumps(letter.headers))

    def asked(self, worker, question):
        return subprocess.run([*worker.argv, question], capture_output=True, timeout=30 * harness.PATIENCE,
                              env={"PATH": "/usr/bin:/bin"})

    def test_secrets_stay_where_they_must(self):
        workers = [self.run_worker("worker-a"), self.run_worker("worker-b")]
        over = threading.Event()
        looking = threading.Thread(target=self.look, args=(over,))
        looking.start()
        try:
            sent, bad = self.put()
            events = self.events_of(sent + bad, limit=90)
            cmdlines = [pathlib.Path(f"/proc/{w.process.pid}/cmdline").read_bytes() for w in workers]
        finally:
            over.set()
            looking.join()
        self.progress.settle(0.3)

        outcomes = {s.session: e.outcome for s, e in zip(sent, events) if s.job["type"] == "start-session"}
        self.assertEqual({v for k, v in outcomes.items() if k.startswith(("ok", "key"))}, {"ready"})
        self.assertEqual({v for k, v in outcomes.items() if k.startswith(("tell", "much", "argv"))}, {"server_exited"})
        self.check_must(sent, events)
        for event in events:
            if event["type"] == "session-ready":
                self.planted.learn(event["sandbox.session_api_key"], "session key of a ready event")
                self.planted.learn(event["sandbox.preview_token"], "preview token")
        self.assertGreater(len(self.planted.words), 300)

        self.check_events(events)
        self.assertTrue(self.progress.events)
        self.check_events(self.progress.events)
        self.check_letters(bad)
        seen = {page for page, _ in self.pages}
        self.assertLessEqual({"/sessions", "/metrics", "/readyz"}, seen)
        self.assertTrue(any("tell-" in text or "ok-" in text for page, text in self.pages if page == "/sessions"))
        for page, text in self.pages:
            self.nothing(f"the page {page}", text)
        for line in cmdlines:
            self.nothing("a command line", line)
        self.nothing("the ledger of sandboxes", json.dumps(self.sim.ledger()))
        self.nothing("the committed metadata", json.dumps(self.committed_metadata()))
        for question in ("--print-config", "--check"):
            done = self.asked(workers[0], question)
            self.assertEqual(done.returncode, 0, done.stderr)
            self.nothing(question, done.stdout + done.stderr)
        for worker in workers:
            self.assertEqual(worker.end(), 0)
            log = worker.log.read_bytes()
            self.assertIn(b"level=debug", log)
            self.assertIn(b"kafka=", log)
            self.nothing(f"the log of {worker.name}", log)

    def check_must(self, sent, events):
        """The scan means something: the secrets were there, and stand where they belong."""
        told = 0
        for one, event in zip(sent, events):
            if event["type"] == "session-ready":
                key = event["sandbox.session_api_key"]
                self.assertEqual(key, one.job.get("session_api_key") or key)
                self.assertTrue(key)
            if (one.session or "").startswith("tell-"):
                told += 1
                self.assertIn("begin ***", event["error.log_tail"])
                self.assertIn("key ***", event["error.log_tail"])
            if (one.session or "").startswith("much-"):
                self.assertIn("***", event["error.log_tail"])
        self.assertEqual(told, 30)
        self.assertTrue(self.planted.found(json.dumps([e.json for e in events])), "ready events hold keys")

    def committed_metadata(self):
        return [(t.partition, t.offset, str(t)) for t in harness.committed(
            self.kafka_address, self.group, self.jobs_topic, self.partitions)]

    @taking(1)
    def test_the_scanner_finds_them(self):
        for shape in SHAPES:
            value = shape.format(self.planted.word("here"))
            for text in (value, json.dumps(value), json.dumps({"a": value}).encode(), f'x="{value}"', repr(value)):
                self.assertEqual(self.planted.found(text), ["here"])
        self.assertEqual(self.planted.found("nothing"), [])
        self.assertEqual(self.planted.found(value, but=["here"]), [])

    @taking(3)
    def test_omitted_from_ready_when_asked(self):
        self.worker(events__secrets="omit")
        event = self.one(start("s1", session_api_key=self.planted.token("session_api_key")))
        self.assertEqual(event.outcome, "ready")
        self.assertNotIn("session_api_key", event.json["sandbox"])
        self.nothing("a ready event without secrets", event.raw)


if __name__ == "__main__":
    harness.unittest.main()
