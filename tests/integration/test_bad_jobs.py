"""Records that are no jobs, of every kind: each becomes a dead letter as it came and, where its session
can be read, a failed event that names the field and what is allowed. Nothing of them is done, and no byte
of them reaches a log or a terminal unescaped."""

import json
import subprocess
import time

import confluent_kafka
import harness
from harness import OUT, Case, start, taking, until

BIG = 10_000_000
CONTENT = "content-type"
JSON, STRUCTURED = "application/json", "application/cloudevents+json"
SHELL = "$(touch /tmp/bad); `touch /tmp/bad` | touch /tmp/bad && '\"\\"
TERMINAL = "\x1b]0;owned\x07\x1b[2J\x9b31m\x7f\r\b"
SESSION_RULE = "session_id must be 1 to 100 of letters, digits, '.', '_' and '-'"


def job(**fields):
    return {"type": "start-session", "sandbox": {"snapshot": "any"}, **fields}


def sandbox(**fields):
    return job(sandbox=fields)


def server(**fields):
    return job(server=fields)


def custom(*argv, **fields):
    return server(kind="custom", port=8080, command=list(argv), **fields)


def ce(**attributes):
    """Headers of a CloudEvent in binary mode; an attribute that is None is left out."""
    whole = {"specversion": "1.0", "id": "ce-1", "source": "/test", "type": "session-worker.start-session.v1",
             **attributes}
    return [(f"ce_{k}", v) for k, v in whole.items() if v is not None]


def event(**attributes):
    """A CloudEvent in structured mode, as a value."""
    whole = {"specversion": "1.0", "id": "ce-1", "source": "/test", "type": "start-session",
             "data": job(), **attributes}
    return {k: v for k, v in whole.items() if v is not None}


structured = [(CONTENT, STRUCTURED)]


def nested(depth):
    return b'{"type":"start-session","metadata":' + b'{"a":' * depth + b"1" + b"}" * depth + b"}"


# name, key (... = a session id of its own), value, headers, code, what its message says, has an event
BAD = [
    # not JSON
    ("no value", ..., None, None, "invalid_job", "the record must have a value", True),
    ("no value and no key", None, None, None, "invalid_job", "the record must have a value", False),
    ("nothing", ..., b"", None, "invalid_job", "the value must be a JSON object", True),
    ("blanks", ..., b" \n\t", None, "invalid_job", "the value must be a JSON object", True),
    ("half an object", ..., b'{"type":"start-session",', None, "invalid_job", "the value must be a JSON object: ", True),
    ("two objects", ..., b'{"type":"start-session"}{}', None, "invalid_job", "the value must be a JSON object: ", True),
    ("a comma too many", ..., b'{"type":"start-session",}', None, "invalid_job", "the value must be a JSON object: ", True),
    ("single quotes", ..., b"{'type':'start-session'}", None, "invalid_job", "the value must be a JSON object: ", True),
    ("a comment", ..., b'{"type":"start-session"/*x*/}', None, "invalid_job", "the value must be a JSON object: ", True),
    ("a byte order mark", ..., b'\xef\xbb\xbf{"type":"start-session"}', None, "invalid_job", "the value must be", True),
    ("UTF-16", ..., '{"type":"start-session"}'.encode("utf-16"), None, "invalid_job", "the value must be", True),
    ("a shell script", ..., b"#!/bin/sh\ntouch /tmp/bad\n", None, "invalid_job", "the value must be a JSON object", True),
    ("terminal codes", ..., TERMINAL.encode(), None, "invalid_job", "the value must be a JSON object", True),
    ("random bytes, no key", None, bytes(range(256)), None, "invalid_job", "the value must be", False),
    ("an array", ..., b"[]", None, "invalid_job", "the value must be a JSON object", True),
    ("a string", ..., b'"start-session"', None, "invalid_job", "the value must be a JSON object", True),
    ("a number", ..., b"1e400", None, "invalid_job", "the value must be a JSON object", True),
    # JSON that says two things, or nothing that can be held
    ("invalid UTF-8", ..., b'{"type":"start-session","tenant":"\xff\xc0\x80"}', None, "invalid_job", "UTF-8", True),
    ("half a surrogate", ..., b'{"type":"start-session","tenant":"\\ud800"}', None, "invalid_job", "the value must be", True),
    ("NUL in a string", ..., b'{"type":"start-session","tenant":"a\\u0000b"}', None, "invalid_job", "\\u0000", True),
    ("a raw NUL", ..., b'{"type":"start-session"\0}', None, "invalid_job", "the value must be", True),
    ("a raw line end in a string", ..., b'{"type":"start-session","tenant":"a\nb"}', None, "invalid_job", "the value must be", True),
    ("a key twice", ..., b'{"type":"start-session","env":{"A":"1","A":"2"}}', None, "invalid_job", "duplicate key A", True),
    ("a key twice, once escaped", ..., b'{"type":"start-session","env":{"A":"1","\\u0041":"2"}}', None, "invalid_job", "duplicate key A", True),
    ("deep arrays", ..., b"[" * 100000, None, "invalid_job", "deep", True),
    ("deep objects", ..., nested(40), None, "invalid_job", "deep", True),
    ("a number beyond 2^53", ..., b'{"type":"start-session","metadata":{"n":9007199254740993}}', None, "invalid_job", "2^53", True),
    ("a number beyond a double", ..., b'{"type":"start-session","metadata":{"n":1e999}}', None, "invalid_job", "2^53", True),
    ("not a number", ..., b'{"type":"start-session","timeout_seconds":NaN}', None, "invalid_job", "the value must be", True),
    ("300 KB", ..., job(env={"A": "x" * 300000}), None, "invalid_job", "more than 262144", True),
    ("10 MB of text", ..., b'{"type":"start-session","tenant":"' + b"x" * BIG + b'"}', None, "invalid_job", "more than 262144", True),
    ("10 MB of nothing", ..., b"[" + b"0," * (BIG // 2), None, "invalid_job", "more than 262144", True),
    # of no type, or of another version
    ("no type", ..., {"session_id": "x"}, None, "invalid_job", "type must be given", True),
    ("a type that is no string", ..., {"type": 7}, None, "invalid_job", "type must be a string", True),
    ("another type", ..., {"type": "dance-session"}, None, "unsupported", "type must be one of start-session", True),
    ("another case", ..., {"type": "Start-Session"}, None, "unsupported", "type must be one of start-session", True),
    ("a hostile type", ..., {"type": TERMINAL + SHELL}, None, "unsupported", "type must be one of", True),
    ("a later version", ..., job(version=2), None, "unsupported", "version must be 1", True),
    ("a version in words", ..., job(version="1"), None, "invalid_job", "version must be a number", True),
    # of nobody, or of somebody else
    ("no key", None, job(session_id="nobody-1"), None, "invalid_job", "must have a key", True),
    ("an empty key", b"", job(), None, "invalid_job", "must have a key", False),
    ("key and field differ", "somebody", job(session_id="nobody-2"), None, "invalid_job",
     "session_id must be the record's key", True),
    ("an id that is no string", ..., job(session_id=["a"]), None, "invalid_job", "session_id must be a string", True),
    ("an id with a path", "../../etc/passwd", job(), None, "invalid_job", SESSION_RULE, False),
    ("an id with a query", "a?b=c&d#e", job(), None, "invalid_job", SESSION_RULE, False),
    ("an id with escapes", "a%2e%2e%2fb", job(), None, "invalid_job", SESSION_RULE, False),
    ("an id with shell", SHELL.encode(), job(), None, "invalid_job", SESSION_RULE, False),
    ("an id with header lines", b"a\r\nX-Evil: 1\r\n\r\n", job(), None, "invalid_job", SESSION_RULE, False),
    ("an id with terminal codes", TERMINAL.encode(), job(), None, "invalid_job", SESSION_RULE, False),
    ("an id with NUL", b"a\0b", job(), None, "invalid_job", SESSION_RULE, False),
    ("an id of 101 letters", "x" * 101, job(), None, "invalid_job", SESSION_RULE, False),
    ("an id with a host", "www.example", job(), None, "invalid_job", "without www.", False),
    ("a dot", ".", job(), None, "invalid_job", SESSION_RULE, False),
    ("an option", "--help", job(), None, "invalid_job", SESSION_RULE, False),
    ("a hostile field, a good key", ..., job(session_id=TERMINAL), None, "invalid_job", SESSION_RULE, True),
    ("a job id of 300 letters", ..., job(job_id="x" * 300), None, "invalid_job", "job_id must not be longer", True),
    # wrong types
    ("mode", ..., job(mode="maybe"), None, "invalid_job", "mode must be one of ensure, create, attach, resume", True),
    ("sandbox", ..., job(sandbox="any"), None, "invalid_job", "sandbox must be an object", True),
    ("env", ..., job(env=["A=1"]), None, "invalid_job", "env must be an object", True),
    ("env.A", ..., job(env={"A": 1}), None, "invalid_job", "env.A must be a string", True),
    ("a variable with a dash", ..., job(env={"A-B": "1"}), None, "invalid_job", "env.A-B must be called", True),
    ("a hostile variable", ..., job(env={SHELL: "1"}), None, "invalid_job", "must be called [A-Za-z_]", True),
    ("a variable that steers", ..., job(env={TERMINAL: "1"}), None, "invalid_job", "must be called [A-Za-z_]", True),
    ("a value of 40 KB", ..., job(env={"A": "x" * 40000}), None, "invalid_job", "env.A must not be longer", True),
    ("too much to quote", ..., job(env={"A": "'" * 30000}), None, "invalid_job", "env and the command must not need", True),
    ("labels", ..., sandbox(labels={"a": None, "b": 1}), None, "invalid_job", "sandbox.labels.a must be a string", True),
    ("a label of ours", ..., sandbox(labels={"OpenHands_SID": "x"}), None, "invalid_job", "are taken", True),
    ("volumes", ..., sandbox(volumes=[{"id": "v"}]), None, "invalid_job", "sandbox.volumes[0] must have id", True),
    ("a relative mount", ..., sandbox(volumes=[{"id": "v", "mount_path": "../x"}]), None, "invalid_job",
     "sandbox.volumes[0].mount_path must begin with /", True),
    ("a sandbox id with a path", ..., job(mode="attach", sandbox={"id": "../x"}), None, "invalid_job",
     "sandbox.id must be letters", True),
    ("image and snapshot", ..., sandbox(snapshot="a", image="b"), None, "invalid_job",
     "sandbox.image must not be given together with snapshot", True),
    ("public", ..., sandbox(public="no"), None, "invalid_job", "sandbox.public must be true or false", True),
    ("command in one text", ..., server(kind="custom", port=1, command="rm -rf /"), None, "invalid_job",
     "server.command must be an array", True),
    ("a command that is an option", ..., custom("-c", "rm"), None, "invalid_job", "server.command must begin with", True),
    ("a command that is a variable", ..., custom("A=1", "rm"), None, "invalid_job", "server.command must begin with", True),
    ("no command", ..., server(kind="custom", port=1), None, "invalid_job", "server.command must be an array of 1", True),
    ("a relative folder", ..., server(working_dir="w"), None, "invalid_job", "server.working_dir must begin with /", True),
    ("plugins with shell", ..., server(plugins=[SHELL]), None, "invalid_job", "server.plugins must be names", True),
    ("a health path with a header", ..., custom("x", health={"path": "/\r\nX: 1"}), None, "invalid_job",
     "server.health.path must be printable", True),
    ("a key with a header", ..., job(session_api_key="a\r\nX-Evil: 1"), None, "invalid_job",
     "session_api_key must be printable ASCII", True),
    ("a deadline in words", ..., job(deadline="tomorrow"), None, "invalid_job", "deadline must be an RFC 3339 time", True),
    ("a 30th of February", ..., job(expires_at="2026-02-30T00:00:00Z"), None, "invalid_job", "expires_at must be", True),
    ("metadata of 9 KB", ..., job(metadata={"a": "x" * 9000}), None, "invalid_job", "metadata must not be larger", True),
    ("a provider that is not there", ..., job(provider="aws"), None, "invalid_job", "provider must be one of daytona", True),
    # numbers out of range
    ("port 0", ..., server(port=0), None, "invalid_job", "server.port must be a whole number from 1 to 65535", True),
    ("port 65536", ..., server(port=65536), None, "invalid_job", "server.port must be a whole number", True),
    ("half a port", ..., server(port=80.5), None, "invalid_job", "server.port must be a whole number", True),
    ("a port in words", ..., server(port="80"), None, "invalid_job", "server.port must be a whole number", True),
    ("no time", ..., job(timeout_seconds=0), None, "invalid_job", "timeout_seconds must be a whole number from 1", True),
    ("time before now", ..., job(timeout_seconds=-1), None, "invalid_job", "timeout_seconds must be", True),
    ("a year", ..., job(timeout_seconds=31536000), None, "invalid_job", "timeout_seconds must be", True),
    ("never delete, said wrong", ..., sandbox(auto_delete_minutes=0), None, "invalid_job",
     "sandbox.auto_delete_minutes must be -1 (never)", True),
    ("no processor", ..., sandbox(image="i", resources={"cpu": 0}), None, "invalid_job",
     "sandbox.resources.cpu must be a whole number", True),
    # CloudEvents
    ("binary, version 0.3", ..., job(), ce(specversion="0.3"), "unsupported", "ce_specversion must be 1.0", True),
    ("binary, no id", ..., job(), ce(id=None), "invalid_job", "ce_id must be given", True),
    ("binary, an empty id", ..., job(), ce(id=""), "invalid_job", "ce_id must be given", True),
    ("binary, a hostile id", ..., job(), ce(id=TERMINAL), "invalid_job", "ce_id must be given", True),
    ("binary, no source", ..., job(), ce(source=None), "invalid_job", "ce_source must be given", True),
    ("binary, no type", ..., job(), ce(type=None), "invalid_job", "ce_type must be given", True),
    ("binary, another type", ..., {}, ce(type="com.example.order.v1"), "unsupported", "ce_type must end in", True),
    ("binary, version 2", ..., {}, ce(type="session-worker.start-session.v2"), "unsupported", "ce_type must be v1", True),
    ("binary, two types", ..., job(), ce(type="stop-session"), "invalid_job", "type and ce_type must agree", True),
    ("binary, not JSON", ..., job(), [*ce(), (CONTENT, "text/xml")], "unsupported", "content-type must be", True),
    ("binary, a tombstone", ..., None, ce(), "invalid_job", "the record must have a value", True),
    ("structured, version 0.3", ..., event(specversion="0.3"), structured, "unsupported", "specversion must be 1.0", True),
    ("structured, no version", ..., event(specversion=None), structured, "unsupported", "specversion must be 1.0", True),
    ("structured, no id", ..., event(id=None), structured, "invalid_job", "id must be given", True),
    ("structured, a number as id", ..., event(id=7), structured, "invalid_job", "id must be given", True),
    ("structured, no source", ..., event(source=None), structured, "invalid_job", "source must be given", True),
    ("structured, no type", ..., event(type=None), structured, "invalid_job", "type must be given", True),
    ("structured, no data", ..., event(data=None), structured, "invalid_job", "data must be an object", True),
    ("structured, data in words", ..., event(data=json.dumps(job())), structured, "invalid_job", "data must be an object", True),
    ("structured, base64", ..., event(data=None, data_base64="e30="), structured, "invalid_job", "data must be", True),
    ("structured, XML", ..., event(datacontenttype="text/xml"), structured, "unsupported", "datacontenttype must be", True),
    ("structured, a plain job", ..., job(), structured, "unsupported", "specversion must be 1.0", True),
    ("structured, wrong inside", ..., event(data=job(env={"A": 1})), structured, "invalid_job", "env.A must be", True),
    ("a batch", ..., b"[]", [(CONTENT, "application/cloudevents-batch+json")], "invalid_job", "the value must be", True),
    ("Avro", ..., job(), [(CONTENT, "application/cloudevents+avro")], "unsupported", "content-type must be", True),
    ("both, that differ in id", ..., event(), [*structured, *ce(id="other")], "invalid_job", "ce_id must be the id", True),
    ("both, that differ in type", ..., event(), [*structured, *ce(type="stop-session")], "invalid_job",
     "ce_type must be the type", True),
]


def text_of(raw):
    return raw if isinstance(raw, str) else raw.decode()


def steering(raw):
    """Characters of a text that a terminal would obey, but for the ends of lines."""
    return sorted({c for c in text_of(raw) if (c < " " and c != "\n") or "\x7f" <= c <= "\x9f"})


class BadJobs(Case):
    partitions = 1
    seconds = 8

    def _create_topics(self):
        super()._create_topics()
        admin = confluent_kafka.admin.AdminClient({"bootstrap.servers": self.kafka_address})
        room = {"max.message.bytes": str(BIG + 1_000_000)}
        wanted = [confluent_kafka.admin.ConfigResource("topic", t, set_config=room)
                  for t in (self.jobs_topic, self.dlq_topic)]
        for future in admin.alter_configs(wanted).values():
            future.result(30)

    def put(self, cases):
        """Puts the records in, a good job behind every tenth; (the cases' Sent, the good ones')."""
        producer = confluent_kafka.Producer({"bootstrap.servers": self.kafka_address, "message.max.bytes": BIG + 100_000})
        sent, good = [], []
        for i, (_, key, value, headers, *_) in enumerate(cases):
            raw = json.dumps(value).encode() if isinstance(value, dict) else value
            key = f"bad-{i}" if key is ... else key
            producer.produce(self.jobs_topic, raw, key, headers=headers, on_delivery=lambda error, m, key=key, raw=raw:
                             sent.append((error, f"{m.topic()}/{m.partition()}/{m.offset()}", key, raw)))
            if i % 10 == 9:
                self.assertEqual(producer.flush(60), 0)
                good += self.produce(start(f"good-{i}"))
        self.assertEqual(producer.flush(60), 0)
        good += self.produce(start("good-last"))
        self.assertEqual([e for e, *_ in sent if e], [])
        self.assertEqual(len(sent), len(cases))
        return [s[1:] for s in sent], good

    def check_letter(self, letter, key, raw, headers, code, says):
        """The original bytes, key and headers, and why."""
        self.assertEqual(letter.value(), raw)
        self.assertEqual(letter.key(), key.encode() if isinstance(key, str) else key)
        found = dict(letter.headers())
        for name, value in headers or []:
            self.assertEqual(found[name], value.encode())
        self.assertEqual(found["__connect.errors.exception.class.name"].decode(), code)
        message = found["__connect.errors.exception.message"].decode()
        self.assertIn(says, message)
        self.assertEqual(steering(message), [])

    def check_event(self, event, key, code, says, has_event):
        if not has_event:
            self.assertIsNone(event, "nobody to tell")
            return
        self.assertIsNotNone(event, "its session can be read")
        self.assertEqual((event.outcome, event["error.retryable"], event["error.step"]), (code, False, "queue"))
        self.assertIn(says, event["error.message"])
        self.assertEqual(event.key, event["session_id"])
        self.assertIn(event["session_id"], {key, "nobody-1", "nobody-2", "x"})
        self.assertEqual(steering(event.raw), [])

    def letters(self, n):
        """offset -> dead letter, raw."""
        reader = confluent_kafka.Consumer({"bootstrap.servers": self.kafka_address, "group.id": "letters",
                                           "isolation.level": "read_committed", "enable.auto.commit": False,
                                           "fetch.message.max.bytes": BIG + 1_000_000})
        found = []
        try:
            reader.assign([confluent_kafka.TopicPartition(self.dlq_topic, 0, 0)])
            end = time.monotonic() + 30 * harness.PATIENCE
            while len(found) < n and time.monotonic() < end:
                found += [m for m in reader.consume(100, 0.2) if not m.error()]
        finally:
            reader.close()
        return {dict(m.headers())["__connect.errors.offset"].decode(): m for m in found}

    def watched(self, n):
        """What `sessionctl watch` shows of at least n results."""
        path = self.folder / "watched"
        with open(path, "wb") as out:
            run = harness.spawn([OUT / "sessionctl", "watch", "--from-beginning", "-b", self.kafka_address,
                                 "-s", f"topics.results={self.results_topic}"], stdout=out, stderr=subprocess.STDOUT)
        try:
            until(lambda: len(path.read_bytes().splitlines()) >= n, 20, lambda: f"watched: {path.read_bytes()[-500:]}")
        finally:
            run.terminate()
            run.wait()
        return path.read_bytes()

    def test_each_is_refused_and_nothing_is_done(self):
        self.assertGreaterEqual(len(BAD), 60)
        worker = self.worker()
        sent, good = self.put(BAD)
        for event in self.events_of(good):
            self.assertEqual(event.outcome, "ready", event.json)
        self.results.settle(0.5)
        by_id = {e.ce_id: e for e in self.results.events}
        letters = self.letters(len(BAD))
        for (name, _, _, headers, code, says, has_event), (ce_id, key, raw) in zip(BAD, sent):
            with self.subTest(name):
                letter = letters.get(ce_id.rsplit("/", 1)[1])
                self.assertIsNotNone(letter, "there is no dead letter")
                self.check_letter(letter, key, raw, headers, code, says)
                self.check_event(by_id.get(ce_id), key, code, says, has_event)
        told = sum(case[-1] for case in BAD)
        self.assertEqual(len(self.results.events), told + len(good), "and nothing else")
        self.assertEqual(len(letters), len(BAD))
        self.assertEqual({b["name"].split(".", 1)[1] for b in self.sim.ledger()}, {s.session for s in good})
        self.assertEqual(self.sim.requests(r"^POST /sandbox$"), len(good))
        self.assertEqual(steering(self.watched(told + len(good))), [])
        self.assertEqual(steering(json.dumps(worker.page("/sessions")[1])), [])
        self.assertEqual(steering(str(worker.page("/metrics")[1])), [])
        self.assert_offsets_at_end()
        self.assertEqual(worker.end(), 0)
        self.assertEqual(steering(worker.log.read_bytes()), [], "a log that steers a terminal")

    @taking(1)
    def test_the_scanner_sees(self):
        self.assertEqual(steering(TERMINAL), ["\x07", "\b", "\r", "\x1b", "\x7f", "\x9b"])
        self.assertEqual(steering("ä\n—".encode()), [])


if __name__ == "__main__":
    harness.unittest.main()
