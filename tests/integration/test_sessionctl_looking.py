"""sessionctl sessions, explain, top and dlq: what operators look at, and what hostile records make of it."""

import base64
import concurrent.futures
import fcntl
import json
import os
import pty
import re
import signal
import struct
import subprocess
import termios
import unittest

import confluent_kafka.admin
import harness
from harness import PATIENCE, Case, OUT, delete, start, until

OK, FAILED, USAGE, WAITED, NO_BROKER = range(5)
ERRORS = "__connect.errors."
NASTY = "\x1b]0;owned\x07\x1b[2J\r\u202e\u009b31m"
RAW = re.compile(rb"[\x00-\x08\x0b-\x1f\x7f]|\xc2[\x80-\x9f]|\xe2\x80[\xaa-\xae]")  # all but \n, \t


class Looking(Case):
    """Topics, a broker, no worker: the test writes everything itself."""

    seconds = 6

    def setUp(self):
        super().setUp()
        self.common = ["-b", self.kafka_address, "-s", f"topics.jobs={self.jobs_topic}",
                       "-s", f"topics.results={self.results_topic}",
                       "-s", f"topics.dead_letters={self.dlq_topic}"]

    def ctl(self, *args, limit=60, env=None):
        """(exit code, lines of stdout, stderr); nothing of either may steer a terminal."""
        run = subprocess.run([str(OUT / "sessionctl"), args[0], *self.common, *map(str, args[1:])],
                             stdin=subprocess.DEVNULL, capture_output=True, timeout=limit * PATIENCE,
                             env={**os.environ, **(env or {})})
        self.assertIsNone(RAW.search(run.stdout + run.stderr), run.stdout + run.stderr)
        return run.returncode, run.stdout.decode().splitlines(), run.stderr.decode()

    def objects(self, *args):
        code, lines, said = self.ctl(*args, "-o", "json")
        self.assertEqual(code, OK, said)
        return [json.loads(line) for line in lines]

    def put(self, topic, value, key=None, headers=None, **more):
        """The record's "partition/offset"."""
        where = []
        value = json.dumps(value).encode() if isinstance(value, dict) else value
        self.producer.produce(topic, value, key, headers=headers,
                              on_delivery=lambda error, m: where.append((error, m)), **more)
        self.producer.flush(10 * PATIENCE)
        error, message = where[0]
        self.assertIsNone(error)
        return f"{message.partition()}/{message.offset()}"

    def result(self, kind, session, job, **fields):
        event = {"type": f"session-{kind}", "session_id": session, "attempts": 1, "requests": 5, **fields}
        return self.put(self.results_topic, event, session, {"ce_id": job})

    def letter(self, value, key, code="invalid_job", message="env.FOO must be a string", origin=None, **headers):
        topic, partition, offset = (origin or f"{self.jobs_topic}/3/41").split("/")
        ours = {"topic": topic, "partition": partition, "offset": offset,
                "exception.class.name": code, "exception.message": message}
        return self.put(self.dlq_topic, value, key,
                        {**headers, **{ERRORS + name: text for name, text in ours.items()}})

    # ---- nothing there ----

    def test_empty_missing_and_wrong(self):
        self.assertEqual(self.ctl("sessions"), (OK, [], "sessionctl: no sessions\n"))
        self.assertEqual(self.ctl("sessions", "-o", "json")[:2], (OK, []))
        self.assertEqual(self.ctl("dlq", "list"), (OK, [], f"sessionctl: no such dead letter in {self.dlq_topic}\n"))
        self.assertEqual(self.ctl("dlq", "show", "0/3")[0], FAILED)
        self.assertEqual(self.ctl("dlq", "replay", "--all")[0], OK)
        self.assertEqual(self.ctl("explain", "S1"), (FAILED, [], "sessionctl: nothing is known of session S1\n"))
        absent = (["sessions", "-s", "topics.results=absent"], ["explain", "S1", "-s", "topics.jobs=absent"],
                  ["dlq", "list", "-s", "topics.dead_letters=absent"])
        with concurrent.futures.ThreadPoolExecutor(len(absent)) as pool:
            ended = list(pool.map(lambda args: self.ctl(*args), absent))
        for args, (code, lines, said) in zip(absent, ended):
            with self.subTest(args=args):
                self.assertEqual((code, lines), (FAILED, []))
                self.assertRegex(said, r"^sessionctl: topic absent does not exist: "
                                       r"sessionctl check --create-topics makes it\n$")
        # A progress or dead-letter topic that is not there takes nothing away.
        self.assertEqual(self.ctl("sessions", "-s", "topics.progress=absent")[0], OK)
        self.result("ready", "S1", f"{self.jobs_topic}/0/0")
        self.assertEqual(self.ctl("explain", "S1", "-s", "topics.dead_letters=absent")[0], OK)
        for args, words in ((["dlq"], "dlq list, dlq show or dlq replay?"), (["dlq", "drop"], "dlq list, dlq show"),
                            (["dlq", "list", "x"], "x is no PARTITION/OFFSET"),
                            (["dlq", "replay"], "Name PARTITION/OFFSET, give a filter, or --all"),
                            (["dlq", "list", "--since", "tomorrow"], "--since must be such as"),
                            (["dlq", "list", "-s", "topics.dead_letters="], "keep no dead letters"),
                            (["dlq", "list", "--code", "x"], "--code must be one of"),
                            (["sessions", "--state", "x"], "--state must be one of in-progress"),
                            (["sessions", "S1"], "one argument too many: S1"),
                            (["explain"], "which session?"), (["top", "-s", "admin.listen="], "-a HOST:PORT")):
            with self.subTest(args=args):
                code, _, said = self.ctl(*args)
                self.assertEqual(code, USAGE, said)
                self.assertIn(words, said)
        code, _, said = self.ctl("top", "-a", f"127.0.0.1:{harness.free_port()}")
        self.assertEqual(code, FAILED)
        self.assertIn("no worker answers at 127.0.0.1:", said)
        self.assertIn("Connection refused", said)

    # ---- sessions ----

    def test_sessions_of_events(self):
        jobs = self.jobs_topic
        self.result("ready", "S1", f"{jobs}/0/0", tenant="acme", sandbox={"id": "b1"}, server={"url": "https://x/"})
        self.result("ready", "S2", f"{jobs}/0/1", sandbox={"id": "b2"})
        self.result("failed", "S2", f"{jobs}/0/2", error={"code": "no_capacity", "step": "create", "message": NASTY})
        self.result("deleted", "S3", f"{jobs}/0/3", sandbox={"id": "b3"})
        self.put(self.results_topic, b"\x1b[2J", "S4")
        self.put(self.results_topic, None, "S5")
        self.result("ready", NASTY, f"{jobs}/0/6", sandbox={"id": NASTY})
        code, lines, said = self.ctl("sessions")
        self.assertEqual((code, said), (OK, "sessionctl: passed over 2 records that are no events\n"))
        words = {line.split()[0]: line.split() for line in lines}
        self.assertEqual(words["SESSION"], ["SESSION", "STATE", "AGE", "TENANT", "SANDBOX", "DETAIL"])
        self.assertEqual(words["S1"][1:2] + words["S1"][3:], ["ready", "acme", "b1", "https://x/"])
        self.assertEqual(words["S2"][1], "failed")
        self.assertEqual(len(lines), 5)
        found = {o["session_id"]: o for o in self.objects("sessions")}
        self.assertEqual(set(found), {"S1", "S2", "S3", NASTY})
        self.assertEqual(list(found["S1"]), [
            "type", "session_id", "state", "time", "age_ms", "tenant", "provider", "sandbox", "url", "job",
            "code", "step", "message", "waiting_for", "worker", "attempt"])
        self.assertEqual((found["S2"]["code"], found["S2"]["message"]), ("no_capacity", NASTY))
        self.assertEqual([o["session_id"] for o in self.objects("sessions", "--state", "failed")], ["S2"])
        self.assertEqual([o["session_id"] for o in self.objects("sessions", "--tenant", "acme")], ["S1"])
        self.assertEqual([o["session_id"] for o in self.objects("sessions", "--limit", 1)], [NASTY])
        self.assertEqual(self.objects("sessions", "--since", "2100-01-01T00:00:00Z"), [])
        self.assertEqual(len(self.objects("sessions", "--since", "1h")), 4)

    # ---- dead letters ----

    def test_dead_letters_are_chosen_and_shown(self):
        first = self.letter({"type": "start-session"}, "S1", traceparent="00-1")
        second = self.letter(b"\x00\xff" + NASTY.encode(), NASTY.encode(), "poison", NASTY, None, **{"x": NASTY})
        third = self.letter(None, None, "unsupported", "type must be one of")
        fourth = self.put(self.dlq_topic, b"somebody else's")
        _, lines, said = self.ctl("dlq", "list")
        self.assertEqual(said, "")
        self.assertEqual([line.split()[0] for line in lines], ["LETTER", first, second, third, fourth])
        self.assertIn(f"{self.jobs_topic}/3/41", lines[1])

        def chosen(*args):
            return [f"{o['partition']}/{o['offset']}" for o in self.objects("dlq", "list", *args)]

        self.assertEqual(chosen("--code", "poison"), [second])
        self.assertEqual(chosen("--session", "S1"), [first])
        self.assertEqual(chosen("--limit", 2), [first, second])
        self.assertEqual(chosen("--offset", 2), [third, fourth])
        self.assertEqual(chosen("--partition", 1), [])
        self.assertEqual(chosen("--partition", 0, "--offset", 3), [fourth])
        self.assertEqual(chosen(third, first), [first, third])
        self.assertEqual(chosen("0", "--since", "1h"), [first, second, third, fourth])
        self.assertEqual(chosen("--since", "2100-01-01T00:00:00Z"), [])

        _, lines, _ = self.ctl("dlq", "show", second)
        shown = "\n".join(lines)
        self.assertIn("|..", shown)  # dumped as bytes
        self.assertIn("\\x1b]0;owned\\x07", shown)
        _, lines, _ = self.ctl("dlq", "show", first)
        self.assertIn("    traceparent: 00-1", lines)
        self.assertIn('    {"type": "start-session"}', lines)
        whole = self.objects("dlq", "show")
        self.assertEqual(list(whole[0]), ["type", "partition", "offset", "time", "session_id", "code", "message",
                                          "origin", "first", "cut", "bytes", "key", "headers", "value"])
        self.assertEqual(base64.b64decode(whole[1]["value"]), b"\x00\xff" + NASTY.encode())
        self.assertEqual(base64.b64decode(whole[1]["key"]), NASTY.encode())
        self.assertEqual((whole[2]["key"], whole[2]["value"]), (None, None))
        self.assertEqual([(h["name"], base64.b64decode(h["value"])) for h in whole[0]["headers"]][0],
                         ("traceparent", b"00-1"))

    def jobs_now(self):
        """(key, value) -> (partition, headers) of what the jobs topic holds."""
        reader = confluent_kafka.Consumer({"bootstrap.servers": self.kafka_address, "group.id": "none",
                                           "fetch.wait.max.ms": 20})
        reader.assign([confluent_kafka.TopicPartition(self.jobs_topic, p, 0) for p in range(self.partitions)])
        found = {}
        while messages := reader.consume(100, 1.0):
            for m in messages:
                self.assertIsNone(m.error())
                found[m.key(), m.value()] = m.partition(), {k: v.decode() for k, v in m.headers() or []}
        reader.close()
        return found

    def test_replay(self):
        good = json.dumps(delete("S1")).encode()
        first = self.letter(good, "S1", "poison", origin=f"{self.jobs_topic}/5/17", traceparent="00-1")
        self.letter(b"\xff not JSON", "S2", origin=f"{self.jobs_topic}/6/18", **{"session-worker-original": "j/0/1"})
        cut = self.letter(b'{"type":"start-se', "S3", **{"session-worker-cut": "true"})
        code, lines, said = self.ctl("dlq", "replay", "--all", "--dry-run")
        self.assertEqual((code, said), (FAILED, ""))
        self.assertEqual(lines[0], f"{first}  S1  WOULD GO  {self.jobs_topic}")
        self.assertRegex(lines[1], r"  S2  WOULD GO  .*  but a worker will refuse it again: ")
        self.assertRegex(lines[2], rf"^{cut}  S3  NOT SENT  it was larger than its topic takes.*: send the job anew$")
        self.assertEqual(lines[3], "2 would be replayed, 1 not")
        self.assertEqual(self.jobs_now(), {})

        code, lines, said = self.ctl("dlq", "replay", first)
        self.assertEqual((code, lines, said), (OK, [f"{first}  S1  REPLAYED  {self.jobs_topic}/5/0"], ""))
        jobs = self.jobs_now()
        self.assertEqual(jobs, {(b"S1", good): (5, {  # the partition in which it was
            "traceparent": "00-1", "session-worker-original": f"{self.jobs_topic}/5/17"})})
        code, lines, _ = self.ctl("dlq", "replay", "--all", "-o", "json")
        self.assertEqual(code, FAILED)
        told = {o["session_id"]: o for o in map(json.loads, lines)}
        self.assertEqual([told[s]["type"] for s in ("S1", "S2", "S3")], ["replayed", "replayed", "not-replayed"])
        self.assertEqual(list(told["S1"]), ["type", "partition", "offset", "session_id", "job", "why"])
        self.assertEqual(told["S1"]["job"], f"{self.jobs_topic}/5/1")
        self.assertIsNone(told["S1"]["why"])
        jobs = self.jobs_now()
        self.assertEqual(set(jobs), {(b"S1", good), (b"S2", b"\xff not JSON")})
        self.assertEqual(jobs[b"S2", b"\xff not JSON"], (6, {"session-worker-original": "j/0/1"}))

    # ---- explain ----

    def test_explain_of_a_hostile_story(self):
        sent = self.put(self.jobs_topic, {"type": "start-session", "tenant": NASTY,
                                          "sandbox": {"snapshot": NASTY}, "env": {"KEY": "hush-hush"}}, "S1")
        job = f"{self.jobs_topic}/{sent}"
        self.put(self.jobs_topic, {"type": "stop-session", "session_id": "S2"}, "S2")
        self.result("failed", "S1", job, sandbox={"id": NASTY, "cleanup": NASTY}, error={
            "code": "server_exited", "step": "probe", "message": NASTY, "provider_message": NASTY,
            "log_tail": f"one\n{NASTY}\n", "retryable": True})
        self.letter(b"x", "S1", origin=job)
        code, lines, said = self.ctl("explain", "S1")
        self.assertEqual((code, said), (OK, ""))
        self.assertEqual(lines[0], "session S1  failed  1 job")
        text = "\n".join(lines)
        for words in (f"  {job}\n", "FAILED    server_exited at probe: ", "\\x1b]0;owned", "log       one\n",
                      "to do     The server ended by itself", "DEAD      invalid_job: "):
            self.assertIn(words, text)
        self.assertNotIn("S2", text)
        told = self.objects("explain", "S1")
        self.assertEqual([o["type"] for o in told], ["job", "event", "dead-letter", "summary"])
        self.assertEqual(told[1]["event"]["error"]["provider_message"], NASTY)
        self.assertEqual({o["type"]: o for o in told}["summary"]["state"], "failed")
        self.assertNotIn("hush", text + json.dumps(told))
        self.assertEqual(self.ctl("explain", "S1", "--since", "2100-01-01T00:00:00Z")[0], FAILED)


class Live(Case):
    """With a worker, and jobs that stay in flight."""

    seconds = 12

    def setUp(self):
        super().setUp()
        self.progress_topic = f"{self.prefix}-progress"
        admin = confluent_kafka.admin.AdminClient({"bootstrap.servers": self.kafka_address})
        for future in admin.create_topics([confluent_kafka.admin.NewTopic(self.progress_topic, 2, 1)]).values():
            future.result(30)
        w = self.worker(topics__progress=self.progress_topic, drain__timeout_seconds=1)
        self.admin = w.admin
        self.config = self.folder / "worker-a.cfg"

    def ctl(self, *args, limit=60):
        argv = [str(OUT / "sessionctl"), args[0], "-s", "log.level=info", *map(str, args[1:])]
        run = subprocess.run(argv, stdin=subprocess.DEVNULL,
                             capture_output=True, text=True, timeout=limit * PATIENCE)
        return run.returncode, run.stdout, run.stderr

    def test_in_flight_and_done(self):
        self.done(start("S1", snapshot="any", tenant="acme"))
        self.produce(start("S2", snapshot="sim-never-listens"))
        what = ["-c", self.config, "-a", self.admin]

        def probing():
            _, out, _ = self.ctl("explain", "S2", *what)
            return out if "probe for" in out else None

        told = until(probing, 20, "S2 is not seen in flight")
        self.assertRegex(told, r"^session S2  in-progress  1 job\n")
        self.assertRegex(told, r"PROGRESS  create\n")
        self.assertRegex(told, r"NOW       probe for \d+\.\d s, attempt 1, \d+ requests, at ")
        self.assertRegex(told, r"waiting   \w")
        self.assertRegex(told, r"create    about +\d\.\d s  #")
        _, told, _ = self.ctl("explain", "S1", *what)
        self.assertRegex(told, r"READY     http://.*created in \d\.\d s\n")
        self.assertRegex(told, r"probe +\d\.\d s  #+\n")

        code, out, said = self.ctl("sessions", *what)
        self.assertEqual((code, said), (OK, ""))
        rows = {line.split()[0]: line for line in out.splitlines()}
        self.assertRegex(rows["S1"], r"ready +\d+s +acme +[0-9a-f-]{36} +http://")
        self.assertRegex(rows["S2"], r"in-progress +\d+s +- +[0-9a-f-]{36} +probe: \w")

        def by_the_progress_topic_alone():
            _, out, _ = self.ctl("sessions", "-c", self.config, "-s", "admin.listen=", "-o", "json",
                                 "--state", "in-progress")
            return [(o["session_id"], o["step"]) for o in map(json.loads, out.splitlines())] == [("S2", "probe")]

        until(by_the_progress_topic_alone, 10, "progress is not seen")
        code, _, said = self.ctl("sessions", "-c", self.config, "-a", f"127.0.0.1:{harness.free_port()}")
        self.assertEqual(code, OK)
        self.assertIn("Connection refused: -a takes the admin.listen of a worker\n", said)

    def test_top_printed(self):
        self.produce(*(start(f"S{i}", snapshot="sim-never-listens") for i in range(15)))
        until(lambda: "probe 15" in self.ctl("top", "-a", self.admin)[1], 20, "not all are seen probing")
        code, out, said = self.ctl("top", "-c", self.config, "-n", 2)
        self.assertEqual((code, said), (OK, ""))
        self.assertEqual(out.count("1 worker  "), 2)
        self.assertIn("creations  daytona: ", out)
        self.assertRegex(out, r"\(\d+\.\d/s\)")
        self.assertRegex(out, r"\n\.\.\. 5 more\n")
        code, out, _ = self.ctl("top", "-a", self.admin, "-o", "json")
        page = json.loads(out)
        self.assertEqual(list(page), ["type", "time", "admin", "error", "instance", "fleet", "jobs_topic", "steps",
                                      "status", "totals", "budgets", "partitions", "sessions"])
        self.assertEqual((page["steps"]["probe"], len(page["sessions"])), (15, 15))
        self.assertEqual(sum(p["lag"] for p in page["partitions"]), 15)
        self.assertEqual(page["totals"]["received"], 15)

    def test_top_on_a_terminal(self):
        for end in (b"q", signal.SIGINT):
            with self.subTest(end=end):
                self.top_on_a_terminal(end)

    def top_on_a_terminal(self, end):
        master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 20, 60, 0, 0))
        before = termios.tcgetattr(slave)
        top = subprocess.Popen([OUT / "sessionctl", "top", "-a", self.admin], stdin=slave, stdout=slave, stderr=slave,
                    env={**os.environ, "TERM": "xterm", "NO_COLOR": ""})
        try:
            os.set_blocking(master, False)
            seen = b""

            def read():
                nonlocal seen
                try:
                    seen += os.read(master, 100000)
                except BlockingIOError:
                    pass
                return seen

            until(lambda: read().count(b"\x1b[H") >= 2, 20, lambda: f"not drawn twice: {seen}")
            self.assertTrue(seen.startswith(b"\x1b[?1049h\x1b[?25l"), seen)
            self.assertFalse(termios.tcgetattr(slave)[3] & termios.ECHO)
            screen = re.sub(rb"\x1b\[[0-9;?]*[a-zA-Z]", b"", seen.split(b"\x1b[H")[1])
            self.assertLessEqual(max(len(line.strip(b"\r")) for line in screen.split(b"\n")), 60)
            self.assertLessEqual(screen.count(b"\n"), 19)
            self.assertIn(b"\x1b[1m1 worker", seen)
            if isinstance(end, bytes):
                os.write(master, end)
            else:
                top.send_signal(end)
            self.assertEqual(top.wait(5 * PATIENCE), OK)
            self.assertTrue(read().endswith(b"\x1b[?25h\x1b[?1049l"), seen[-100:])
            self.assertEqual(termios.tcgetattr(slave), before)
        finally:
            top.kill()
            top.wait()
            os.close(master)
            os.close(slave)


if __name__ == "__main__":
    unittest.main()
