"""sessionctl without a worker: the test reads the jobs and writes the events itself."""

import concurrent.futures
import http.server
import json
import os
import pathlib
import pty
import re
import signal
import subprocess
import threading

import confluent_kafka
import harness
from harness import API_KEY, Case, OUT, spawn, start, until

OK, FAILED, USAGE, WAITED, NO_BROKER = range(5)
TIME = "2026-11-24T08:00:00.000Z"


def ready(session, **fields):
    return {"type": "session-ready", "time": TIME, "session_id": session, "timings_ms": {"total": 4210},
            "server": {"url": f"https://8000-{session}.example/"},
            "sandbox": {"id": "i-1", "outcome": "created", "session_api_key": "KEY"}, **fields}


def failed(session, **error):
    return {"type": "session-failed", "time": TIME, "session_id": session, "sandbox": None,
            "error": {"code": "server_exited", "step": "probe", "message": "it ended with 3",
                      "retryable": True, **error}}


class Played:
    """The other side: takes each job from the topic and answers it with what play(job, ce_id) returns."""

    def __init__(self, case, play):
        self.case, self.play = case, play
        self.jobs = []  # (key, headers, parsed value)
        self.reader = confluent_kafka.Consumer({
            "bootstrap.servers": case.kafka_address, "group.id": f"{case.prefix}-played",
            "enable.auto.commit": False, "fetch.wait.max.ms": 20})
        topics = [confluent_kafka.TopicPartition(case.jobs_topic, p, confluent_kafka.OFFSET_BEGINNING)
                  for p in range(case.partitions)]
        self.reader.assign(topics)
        self.over = threading.Event()
        self.thread = threading.Thread(target=self.run)
        self.thread.start()
        case.addCleanup(self.end)

    def run(self):
        while not self.over.is_set():
            message = self.reader.poll(0.1)
            if message is not None and not message.error():
                self.take(message)

    def take(self, message):
        job = json.loads(message.value())
        self.jobs.append(((message.key() or b"").decode(), dict(message.headers()), job))
        ce_id = f"{message.topic()}/{message.partition()}/{message.offset()}"
        event = self.play(job, ce_id)
        if event is not None:
            self.case.publish(event, ce_id)

    def end(self):
        self.over.set()
        self.thread.join()
        self.reader.close()


class Page(http.server.BaseHTTPRequestHandler):
    """A worker's admin port with nothing in hand; the paths that were asked for stand in its server."""

    def do_GET(self):
        path = self.requestline.split()[1]  # self.path has lost a second slash
        self.server.asked.append(path)
        body = b'{"instance":"w1","sessions":[]}'
        self.send_response(200 if path == "/sessions" else 404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Alone(Case):
    seconds = 8

    def setUp(self):
        super().setUp()
        self.common = ["-b", self.kafka_address, "-s", f"topics.jobs={self.jobs_topic}",
                       "-s", f"topics.results={self.results_topic}",
                       "-s", f"topics.dead_letters={self.dlq_topic}"]

    def ctl(self, *args, stdin="", limit=60, env=None):
        """(exit code, lines of stdout, stderr)"""
        run = subprocess.run([str(OUT / "sessionctl"), args[0], *self.common, *map(str, args[1:])],
                             input=stdin, capture_output=True, text=True,
                             timeout=limit * harness.PATIENCE, env={**os.environ, **(env or {})})
        return run.returncode, run.stdout.splitlines(), run.stderr

    def publish(self, event, ce_id):
        value = event if isinstance(event, bytes) else json.dumps(event).encode()
        key = event["session_id"] if isinstance(event, dict) else None
        self.producer.produce(self.results_topic, value, key=key, headers={"ce_id": ce_id})
        self.producer.flush()

    def offsets(self):
        """Records in the jobs topic."""
        consumer = confluent_kafka.Consumer({"bootstrap.servers": self.kafka_address, "group.id": "none"})

        def ends():
            try:  # a topic that was just made has no leaders yet
                return [consumer.get_watermark_offsets(
                    confluent_kafka.TopicPartition(self.jobs_topic, p), 10)[1] for p in range(self.partitions)]
            except confluent_kafka.KafkaException:
                return None

        try:
            return sum(until(ends, 10, "the jobs topic cannot be looked at"))
        finally:
            consumer.close()

    def file(self, name, text):
        path = self.folder / name
        path.write_text(text)
        return path

    def test_a_job_from_options_and_files(self):
        worker = Played(self, lambda job, _: None)
        env = self.file("env", "# of the server\nTOKEN='s3cret'\nOURS\n")
        key = self.file("key", "the-key\n")
        base = self.file("job.json", json.dumps({"sandbox": {"snapshot": "old", "target": "eu"},
                                                 "server": {"vscode_port": 5000}}))
        code, lines, said = self.ctl(
            "start", "S1", "--snapshot", "oh-v1", "--server", "v1", "--port", 8123, "--env-file", env,
            "--env", "A=b c", "--key-file", key, "--job", base, "--mode", "resume", "--tenant", "acme",
            "--timeout", 60, "--on-failure", "keep", "--metadata", '{"a":[1]}', "--provider", "daytona",
            env={"OURS": "ours"})
        self.assertEqual((code, len(lines)), (OK, 1), said)
        self.assertRegex(lines[0], rf"Z  S1  SENT      {self.jobs_topic}/\d+/0$")
        until(lambda: worker.jobs, 10, "no job came")
        key, headers, job = worker.jobs[0]
        self.assertEqual(key, "S1")
        self.assertEqual(headers, {"content-type": b"application/json"})
        self.assertEqual(job, {
            "type": "start-session", "session_id": "S1", "mode": "resume", "tenant": "acme",
            "provider": "daytona", "timeout_seconds": 60, "on_failure": "keep", "metadata": {"a": [1]},
            "sandbox": {"snapshot": "oh-v1", "target": "eu"},
            "server": {"kind": "v1", "port": 8123, "vscode_port": 5000},
            "env": {"TOKEN": "s3cret", "OURS": "ours", "A": "b c"}, "session_api_key": "the-key"})

    def test_cloudevents_headers_only_when_asked(self):
        worker = Played(self, lambda job, _: None)
        self.assertEqual(self.ctl("delete", "S1", "--cloudevents", "--sandbox", "i-1")[0], OK)
        until(lambda: worker.jobs, 10, "no job came")
        _, headers, job = worker.jobs[0]
        self.assertEqual(job, {"type": "delete-session", "session_id": "S1", "sandbox": {"id": "i-1"}})
        self.assertEqual(headers["ce_type"], b"session-worker.delete-session.v1")
        self.assertEqual(headers["ce_specversion"], b"1.0")
        self.assertEqual(len(headers["ce_id"]), 32)

    def test_the_wait_ends_with_the_jobs_own_event(self):
        def play(*_):
            self.publish(failed("S1"), f"{self.jobs_topic}/0/999999")  # of another job of this session
            return ready("S1")

        Played(self, play)
        code, lines, said = self.ctl("start", "S1", "--snapshot", "x", "--wait")
        self.assertEqual((code, len(lines)), (OK, 2), said)
        self.assertEqual(lines[1], f"{TIME}  S1  READY     https://8000-S1.example/  created in 4.2 s")
        code, lines, said = self.ctl("start", "S1", "--snapshot", "x", "--wait", "-o", "json")
        self.assertEqual((code, len(lines)), (OK, 1), said)
        self.assertEqual(json.loads(lines[0]), ready("S1"))

    def test_a_failed_event_is_exit_1_and_cannot_steer_the_terminal(self):
        Played(self, lambda job, _: failed("S1", provider_message="\x1b]0;owned\x07", log_tail="a\nKeyError\n"))
        code, lines, _ = self.ctl("start", "S1", "--snapshot", "x", "--wait")
        self.assertEqual(code, FAILED)
        self.assertEqual(lines[1], f"{TIME}  S1  FAILED    server_exited at probe: it ended with 3; provider: "
                                   "\\x1b]0;owned\\x07; its log ends: KeyError (trying again may help)")

    def test_an_aborted_event_is_not_seen(self):
        transaction = confluent_kafka.Producer({"bootstrap.servers": self.kafka_address,
                                                "transactional.id": f"{self.prefix}-aborts"})
        transaction.init_transactions(30)

        def play(_, ce_id):
            transaction.begin_transaction()
            transaction.produce(self.results_topic, json.dumps(failed("S1")).encode(), key="S1",
                                headers={"ce_id": ce_id})
            transaction.flush()
            transaction.abort_transaction()
            return ready("S1")

        Played(self, play)
        code, lines, said = self.ctl("start", "S1", "--snapshot", "x", "--wait", "-o", "json")
        self.assertEqual((code, [json.loads(line)["type"] for line in lines]), (OK, ["session-ready"]), said)

    def test_many_at_a_rate_one_of_which_fails(self):
        Played(self, lambda job, _: failed("m-2") if job["session_id"] == "m-2" else ready(job["session_id"]))
        code, lines, said = self.ctl("start", "m", "--snapshot", "x", "--count", 5, "--rate", "600/min",
                                     "--wait", "-o", "json")
        self.assertEqual(code, FAILED, said)
        self.assertEqual({json.loads(line)["session_id"] for line in lines}, {f"m-{i}" for i in range(1, 6)})

    def test_a_wait_that_runs_out_names_the_job(self):
        Played(self, lambda job, _: ready("A") if job["session_id"] == "A" else None)
        code, _, said = self.ctl("stop", "A", "B", "--wait", "--wait-seconds", 5)
        self.assertEqual(code, WAITED)
        self.assertRegex(said, rf"^sessionctl: B: no result within 5 s; the job \({self.jobs_topic}/\d/\d\) "
                               r"stays queued: sessionctl watch B\n$")

    def test_submit_names_wrong_lines_and_sends_the_others(self):
        text = "\n".join([json.dumps(start("L1")), "", json.dumps(start("L 2")),
                          json.dumps(start("L3", env={"FOO": 1})), "{", json.dumps(start("L4", nmae=1))])
        path = self.file("jobs.jsonl", text)
        code, lines, said = self.ctl("submit", path, "--dry-run")
        self.assertEqual((code, lines, self.offsets()), (FAILED, [], 0))
        code, lines, said = self.ctl("submit", path)
        self.assertEqual((code, len(lines), self.offsets()), (FAILED, 2, 2))
        self.assertIn(f"{path}:3: session_id must be", said)
        self.assertIn(f"{path}:4: env.FOO must be a string", said)
        self.assertRegex(said, rf"{path}:5: .*; one job a line: sessionctl start --job FILE takes one that spans")
        self.assertIn(f"{path}:6: warning: 1 unknown field will be ignored: nmae", said)
        code, lines, said = self.ctl("submit", "-", "--force", stdin=json.dumps(start("L3", env={"FOO": 1})))
        self.assertEqual((code, len(lines), self.offsets()), (FAILED, 1, 3))
        self.assertIn("stdin:1: env.FOO must be a string", said)

    def test_the_job_of_the_readme_as_it_stands_there(self):
        job = re.search(r"```json\n(.*?)```", (harness.ROOT / "README.md").read_text(), re.S).group(1)
        path = self.file("job.json", job)
        code, lines, said = self.ctl("start", "--job", path)
        self.assertEqual((code, len(lines), said), (OK, 1, ""))
        code, _, said = self.ctl("submit", "--dry-run", path)
        self.assertEqual((code, said.count("one job a line: sessionctl start --job FILE")), (FAILED, 1), said)

    def test_submit_tells_what_comes_while_its_pipe_is_silent(self):
        Played(self, lambda job, _: ready(job["session_id"]))
        path, fifo = self.folder / "told", self.folder / "fifo"
        fifo.unlink(missing_ok=True)  # of an earlier run
        os.mkfifo(fifo)
        pipe = os.open(fifo, os.O_RDWR)  # does not wait for the other side
        with open(path, "wb") as out, open(self.folder / "said", "wb") as said:
            run = spawn([OUT / "sessionctl", "submit", *self.common, "--wait", fifo], stdout=out, stderr=said)
        try:
            for session in ("S1", "S2"):
                os.write(pipe, json.dumps(start(session)).encode() + b"\n")
                for word in ("SENT", "READY"):
                    until(lambda: re.search(rf"Z  {session}  {word} ", path.read_text()), 20,
                          lambda: f"no {word} of {session} while the pipe is open: {path.read_text()!r}")
            os.close(pipe)
            self.assertEqual(run.wait(20 * harness.PATIENCE), OK)
            self.assertEqual(len(path.read_text().splitlines()), 4)
        finally:
            run.kill()
            run.wait()

    def test_a_record_of_no_session_is_not_waited_for(self):
        Played(self, lambda job, _: failed("S1") if "session_id" in job else None)
        text = "\n".join(json.dumps(job) for job in ({"type": "stop-session"}, start("S1", env={"FOO": 1})))
        code, lines, said = self.ctl("submit", "--force", "--wait", stdin=text)
        self.assertEqual((code, len(lines)), (FAILED, 3), said)
        self.assertRegex(said, rf"{self.jobs_topic}/\d/\d: no result will come, .*sessionctl dlq list")
        self.assertNotIn("sessionctl watch", said)

    def test_an_interrupted_wait_says_what_becomes_of_the_job(self):
        with open(self.folder / "said", "w+b") as said:
            run = spawn([OUT / "sessionctl", "start", *self.common, "S1", "--snapshot", "x", "--wait"],
                        stdout=subprocess.DEVNULL, stderr=said)
            try:
                until(lambda: self.catches_interrupts(run.pid), 20, "it does not wait")
                run.send_signal(signal.SIGINT)
                self.assertEqual(run.wait(10 * harness.PATIENCE), -signal.SIGINT)
            finally:
                run.kill()
                run.wait()
            said.seek(0)
            self.assertEqual(said.read(), b"sessionctl: interrupted: the job stays queued: sessionctl watch S1\n")

    @staticmethod
    def catches_interrupts(pid):
        caught = re.search(r"^SigCgt:\t(\w+)$", pathlib.Path(f"/proc/{pid}/status").read_text(), re.M).group(1)
        return int(caught, 16) >> (signal.SIGINT - 1) & 1

    def test_output_that_is_lost_is_a_failure(self):
        for args in (["check"], ["watch", "--from-beginning"], ["--version"], ["help"], ["start", "--help"]):
            self.publish(ready("S1"), "j/0/0")
            words = args if args[0] in ("--version", "help") else [args[0], *self.common, *args[1:]]
            with self.subTest(args=args), open("/dev/full", "wb") as full:
                run = subprocess.run([OUT / "sessionctl", *words], stdout=full, stderr=subprocess.PIPE,
                                     timeout=30 * harness.PATIENCE)
                self.assertEqual((run.returncode, run.stderr), (
                    FAILED, b"sessionctl: standard output: No space left on device\n"))
        run = subprocess.run(["bash", "-c", 'trap "" PIPE; { "$@"; echo $? >&2; } | true', "-", OUT / "sessionctl",
                              "help"], capture_output=True, timeout=30 * harness.PATIENCE)
        self.assertIn(run.stderr, (b"1\n", b"0\n"))  # nothing is said of a reader that has gone

    def admin_port(self):
        server = http.server.ThreadingHTTPServer(("127.0.0.1", harness.free_port()), Page)
        server.asked = []
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        self.addCleanup(lambda: (server.shutdown(), thread.join(), server.server_close()))
        return server

    def test_an_address_with_slashes_behind_it(self):
        server = self.admin_port()
        address = f"127.0.0.1:{server.server_port}"
        for given in (address, f"http://{address}", f"http://{address}/", f"http://{address}//"):
            code, lines, said = self.ctl("top", "-n", 1, "-a", given)
            self.assertEqual((code, said), (OK, ""), given)
        self.assertEqual(server.asked, ["/sessions"] * 4)

    def test_top_ends_with_its_terminal(self):
        server = self.admin_port()
        ours, theirs = pty.openpty()
        with open(self.folder / "said", "wb") as said:
            run = spawn([OUT / "sessionctl", "top", *self.common, "-a", f"127.0.0.1:{server.server_port}"],
                        stdout=theirs, stderr=said, start_new_session=True,
                        env={**os.environ, "TERM": "xterm"})
        os.close(theirs)
        try:
            until(lambda: len(server.asked) > 1, 20, "it does not look again")
            os.close(ours)
            self.assertEqual(run.wait(10 * harness.PATIENCE), FAILED)
        finally:
            run.kill()
            run.wait()
        self.assertEqual((self.folder / "said").read_text(), "sessionctl: standard output: Input/output error\n")

    def test_version_help_and_options_before_the_verb(self):
        def said(*words):
            run = subprocess.run([OUT / "sessionctl", *words], capture_output=True, text=True,
                                 timeout=10 * harness.PATIENCE)
            return run.returncode, run.stdout, run.stderr

        self.assertEqual(said("--version"), (OK, "sessionctl 0.1.0\n", ""))
        self.assertEqual(said("help"), said("--help"))
        self.assertEqual(said("help", "stop"), said("stop", "--help"))
        code, _, words = said("-b", "x", "sessions")
        self.assertEqual(code, USAGE)
        self.assertIn("options go after the verb: sessionctl VERB -b", words)
        self.assertEqual(said("help", "nope")[0], USAGE)

    def test_what_a_worker_would_refuse_is_not_sent(self):
        for args, words in (
                (["start", "S 1", "--snapshot", "x"], "not sent: session_id must be"),
                (["start", ""], "not sent: session_id must not be empty"),
                (["start", "S1", "--snapshot", "x", "--port", "0"], "--port must be a whole number"),
                (["start", "S1", "--snapshot", "x", "--metadata", "{"], "--metadata is not JSON"),
                (["start", "S1", "--snapshot", "x", "--env-file", "/none"], "/none: No such file"),
                (["start", "S1", "--job", self.file("j", '{"sandbox":3}'), "--snapshot", "x"],
                 "sandbox must be an object"),
                (["start", "S1", "S2", "--snapshot", "x"], "one argument too many: S2"),
                (["start", "S1", "-s", "jobs.attempts=0"], "jobs.attempts"),
                (["start", "S1", "-s", "kafka.properties=[\"no.such=1\"]"], "kafka.properties"),
                (["stop"], "which session? sessionctl stop SESSION"),
                (["delete", "S1", "www.x"], "nothing sent: www.x: session_id must be"),
                (["check", "x"], "one argument too many: x")):
            with self.subTest(args=args):
                code, lines, said = self.ctl(*args)
                self.assertEqual((code, lines), (USAGE, []), said)
                self.assertIn(words, said)
        self.assertEqual(self.offsets(), 0)

    def test_no_secret_stands_in_the_command_line(self):
        env, key = self.file("env", "TOKEN=s3cret\n"), self.file("key", "the-key\n")
        run = spawn([OUT / "sessionctl", "start", *self.common, "S1", "--snapshot", "x", "--env-file", env,
                     "--key-file", key, "--wait", "--wait-seconds", 60], stdout=subprocess.DEVNULL)
        try:
            until(lambda: self.offsets() == 1, 20, "nothing was sent")
            seen = b"".join((pathlib.Path("/proc") / str(run.pid) / name).read_bytes()
                            for name in ("cmdline", "environ"))
            self.assertNotIn(b"s3cret", seen)
            self.assertNotIn(b"the-key", seen)
        finally:
            run.kill()
            run.wait()

    def watch(self, *args):
        """The program, and a function that gives the lines it has printed so far."""
        path = self.folder / "watched"
        with open(path, "wb") as out, open(self.folder / "watch.log", "wb") as log:
            run = spawn([OUT / "sessionctl", "watch", *self.common, *args], stdout=out, stderr=log)

        def end():
            run.terminate()
            run.wait()

        self.addCleanup(end)
        return run, lambda: path.read_text().splitlines()

    def test_watch_follows_from_the_end_or_from_the_beginning(self):
        self.publish(ready("old"), "j/0/0")
        _, lines = self.watch("--from-beginning", "old", "new")
        until(lambda: lines() == [f"{TIME}  old  READY     https://8000-old.example/  created in 4.2 s"], 20,
              lambda: f"seen: {lines()}")
        self.publish(b"not json", "j/0/1")
        self.publish(ready("other"), "j/0/2")
        self.publish(failed("new"), "j/0/3")
        until(lambda: len(lines()) == 2, 20, lambda: f"seen: {lines()}")
        self.assertIn("new  FAILED", lines()[1])

    def test_watch_from_the_end_shows_keys_in_json_only(self):
        self.publish(ready("old"), "j/0/0")
        _, lines = self.watch("-o", "json")

        def seen():
            self.publish(ready("new"), "j/0/1")
            return lines()

        until(seen, 20, "nothing was shown", 0.5)
        self.assertEqual({json.loads(line)["session_id"] for line in lines()}, {"new"})
        self.assertEqual(json.loads(lines()[0])["sandbox"]["session_api_key"], "KEY")

    def test_watch_tells_progress_before_the_result(self):
        progress = f"{self.prefix}-progress"
        self.assertEqual(self.ctl("check", "-s", f"topics.progress={progress}", "--create-topics")[0], OK)
        for second, step in ((1, "create"), (2, "probe")):
            event = {"type": "session-progress", "session_id": "S1", "time": f"2026-11-24T07:00:0{second}.000Z",
                     "status": "STATUS$STARTING_RUNTIME", "step": step, "attempt": 1, "elapsed_ms": 1000 * second}
            self.producer.produce(progress, json.dumps(event), "S1", headers={"ce_id": f"j/0/0/{second}"})
        self.publish(ready("S1"), "j/0/0")
        _, lines = self.watch("--from-beginning", "-s", f"topics.progress={progress}")
        until(lambda: lines() and "READY" in lines()[-1], 20, lambda: f"seen: {lines()}")
        for line in lines()[:-1]:
            self.assertRegex(line, r"  S1  PROGRESS  (create: making the sandbox|probe: waiting for the server to "
                                   r"answer), [12]\.0 s so far$")

    def test_check_finds_makes_and_asks(self):
        missing = f"{self.prefix}-progress"
        more = ["-s", f"topics.progress={missing}", "-s", f"providers.daytona.api_url={self.sim.url}/api"]
        code, lines, said = self.ctl("check", *more)
        self.assertEqual(code, FAILED, said)
        wrong = [line for line in lines if not line.startswith(("ok", "note"))]
        self.assertEqual(len(wrong), 1, lines)
        self.assertIn(f"topic {missing}", wrong[0])
        self.assertIn("sessionctl check --create-topics makes it", wrong[0])
        self.assertIn("committed events can be read", lines[-1])

        code, lines, said = self.ctl("check", *more, "--create-topics", "--partitions", 3)
        self.assertEqual(code, OK, (lines, said))
        self.assertIn("made, 3 partitions", "\n".join(lines))
        code, lines, said = self.ctl("check", *more, "-o", "json")
        self.assertEqual(code, OK, (lines, said))
        found = {line["check"]: line for line in map(json.loads, lines)}
        self.assertEqual(found[f"topic {missing}"]["detail"], "3 partitions")
        self.assertRegex(found["a worker's configuration"]["detail"], r"^providers\.daytona\.api_key is missing")
        code, lines, said = self.ctl("check", *more, "--create-topics", "--partitions", 5)
        self.assertEqual(code, OK, (lines, said))
        self.assertRegex("\n".join(lines), rf"note  topic {missing} +3 partitions, not 5: --partitions is for new")
        code, lines, said = self.ctl("check", "-s", "topics.progress=three", "--create-topics", "--replication", 3)
        self.assertEqual(code, FAILED, (lines, said))
        self.assertRegex("\n".join(lines), r"registered\.\): .*: give a --replication that it can have(\n|$)")

        code, lines, said = self.ctl("check", *more, "--live")
        self.assertEqual(code, FAILED, (lines, said))
        self.assertIn("no key: set DAYTONA_API_KEY, DAYTONA_API_KEY_FILE or providers.daytona.api_key_file",
                      lines[-1])
        code, lines, said = self.ctl("check", *more, "--live", env={"DAYTONA_API_KEY": "dtn_bad"})
        self.assertEqual(code, FAILED, (lines, said))
        self.assertIn("the key is refused (401)", lines[-1])
        self.assertNotIn("dtn_bad", "\n".join(lines) + said)
        code, lines, said = self.ctl("check", *more, "--live", env={"DAYTONA_API_KEY": API_KEY})
        self.assertEqual((code, lines[-1][:2]), (OK, "ok"), (lines, said))
        self.assertIn("the key is accepted", lines[-1])
        elsewhere = self.sim.url.replace("127.0.0.1", "api.nowhere.invalid")
        there = "http.connect_to=nowhere.invalid=" + self.sim.url.split("//")[1]
        code, lines, said = self.ctl("check", *more, "-s", f"providers.daytona.api_url={elsewhere}/api", "-s", there,
                                     "--live", env={"DAYTONA_API_KEY": API_KEY})
        self.assertEqual((code, lines[-1][:2]), (OK, "ok"), (lines, said))

    def test_every_verb_says_when_no_broker_answers(self):
        nobody = f"127.0.0.1:{harness.free_port()}"
        verbs = (["start", "S1", "--snapshot", "x"], ["submit", "-"], ["stop", "S1"], ["delete", "S1"],
                 ["watch"], ["check"], ["sessions"], ["explain", "S1"], ["dlq", "list"], ["dlq", "show"],
                 ["dlq", "replay", "--all"], ["dlq", "replay", "--all", "--dry-run"])
        with concurrent.futures.ThreadPoolExecutor(len(verbs)) as pool:
            ended = pool.map(lambda args: self.ctl(*args, "-b", nobody), verbs)
        for args, (code, lines, said) in zip(verbs, ended):
            with self.subTest(args=args):
                self.assertEqual(code, NO_BROKER, said)
                self.assertIn(f"no broker answers at {nobody}: ", said + "\n".join(lines))
                self.assertIn("Connection refused", said + "\n".join(lines))

    def test_help_is_one_screen(self):
        for verb in ("start", "submit", "stop", "delete", "watch", "check", "sessions", "explain", "top", "dlq"):
            code, lines, _ = self.ctl(verb, "--help")
            self.assertEqual(code, OK)
            self.assertLess(len(lines), 32)
            self.assertLess(max(map(len, lines)), 100)


if __name__ == "__main__":
    harness.unittest.main()
