"""Broken configurations: every mistake at once, each with its place and what is allowed, and exit 2."""

import os
import pathlib
import socket
import statistics
import subprocess
import tempfile
import threading
import time
import unittest

from harness import OUT, PATIENCE, ROOT

KEY = {"DAYTONA_API_KEY": "dtn_any"}
NO_KEY = ("configuration: providers.daytona.api_key is missing: set DAYTONA_API_KEY or DAYTONA_API_KEY_FILE, "
          "or api_key_file in the file")
NUMBER = "99999999999999999999"

# name, worker.cfg (None: no file), what is said line by line (F is the file), and where there is
# more: arguments, environment
CASES = [
    ("a number out of range", "jobs = { attempts = 0; };",
     ["F:1: jobs.attempts must be 1 to 10 (is 0)"]),
    ("numbers that do not fit, and all the other mistakes of the file",
     f"jobs = {{\n attempts = 4294967297;\n timeout_seconds = {NUMBER};\n max_bytes = 7;\n}};\nx = 1;",
     ["F:2: jobs.attempts must be 1 to 10 (is 4294967297)",
      f"F:3: jobs.timeout_seconds must be 1 to 86400 (is {NUMBER})",
      "F:4: jobs.max_bytes must be 1024 to 262144 (is 7)",
      "F:6: x is no key (--print-defaults shows them all)"]),
    ("another base", "sweep = { every_seconds = 0x10; };",
     ["F:1: sweep.every_seconds must be 1 to 86400 (is 0x10)"]),
    ("a number with a unit", "drain = { timeout_seconds = 25s; };",
     ["F:1: drain.timeout_seconds must be 1 to 3600 (is 25s)"]),
    ("a fraction where whole numbers are", "jobs = { attempts = 2.5; };",
     ["F:1: jobs.attempts must be 1 to 10 (is 2.5)"]),
    ("a text where a number is", 'jobs = { attempts = "3"; };',
     ["F:1: jobs.attempts must be 1 to 10 (is 3)"]),
    ("a number where a text is", "fleet = 7;\nkafka = { group = true; };",
     ["F:1: fleet must be a text in quotes (is 7)",
      "F:2: kafka.group must be a text in quotes (is true)"]),
    ("a flag that is no flag", 'jobs = { require_key = "yes"; };',
     ["F:1: jobs.require_key must be one of false, true (is yes)"]),
    ("words that are none of the list",
     'kafka = { delivery = "at-most-once"; };\nlog = {\n level = "trace";\n format = "xml"; };\n'
     'events = { secrets = "maybe"; };',
     ["F:1: kafka.delivery must be one of exactly_once, at_least_once (is at-most-once)",
      "F:3: log.level must be one of debug, info, warn, error (is trace)",
      "F:4: log.format must be one of auto, logfmt, json (is xml)",
      "F:5: events.secrets must be one of omit, include (is maybe)"]),
    ("keys by another name", "jobs = { attemps = 3; max_inflight = 5; };\nkafak = { group = \"g\"; };",
     ["F:1: jobs.attemps is no key (did you mean jobs.attempts?)",
      "F:1: jobs.max_inflight is no key (did you mean jobs.max_in_flight?)",
      "F:2: kafak is no key (--print-defaults shows them all)"]),
    ("a group as one value", 'topics = "session-jobs";', ["F:1: topics must be a group: topics = { … };"]),
    ("topics that cannot be", 'topics = { jobs = "a b"; results = ""; dead_letters = "..";};',
     ["F:1: topics.jobs must be 1 to 249 of letters, digits, '.', '_' and '-' (is a b)",
      "F:1: topics.results must be 1 to 249 of letters, digits, '.', '_' and '-' (is empty)",
      "F:1: topics.dead_letters must be 1 to 249 of letters, digits, '.', '_' and '-' (is ..)"]),
    ("one topic for two things", 'topics = { jobs = "t"; results = "t"; };',
     ["configuration: topics must differ (t is there twice)"]),
    ("no brokers", 'kafka = { brokers = ""; };', ["F:1: kafka.brokers must hold at least one host:port (is empty)"]),
    ("brokers that are none", 'kafka = { brokers = " , ,"; };',
     ["F:1: kafka.brokers must hold at least one host:port (is  , ,)"]),
    ("a NUL within a text", '\nkafka = { brokers = "a\\x00b:1"; };',
     ["F:2: kafka.brokers must have no control characters (is a?b:1)"]),
    ("a fleet that no sandbox can be called by", 'fleet = "Our Fleet";',
     ["F:1: fleet must be 1 to 40 of a-z, 0-9 and - (is Our Fleet)"]),
    ("a group that cannot be the fleet", 'kafka = { group = "Our.Group"; };',
     ["configuration: fleet is kafka.group unless it is given, and must be 1 to 40 of a-z, 0-9 and - "
      "(is Our.Group): set fleet"]),
    ("properties that are ours",
     'kafka = { properties = [ "group.id=x", "a" ]; };',
     ["F:1: kafka.properties must not hold group.id: use kafka.group"]),
    ("properties that librdkafka does not take, beside another mistake",
     'kafka = { properties = [ "no.such=1", "acks=0", "session.timeout.ms=many" ]; };\njobs = { attempts = 0; };',
     ["F:2: jobs.attempts must be 1 to 10 (is 0)",
      'kafka.properties: No such configuration property: "no.such"',
      "kafka.properties: acks cannot be set: a result counts only when all replicas have it",
      'kafka.properties: Invalid value for configuration property "session.timeout.ms"']),
    ("properties that do not go together",
     'kafka = { properties = [ "socket.timeout.ms=60000", "max.poll.interval.ms=10000" ]; };',
     ["kafka.properties: `max.poll.interval.ms`must be >= `session.timeout.ms`",
      "kafka.properties: `socket.timeout.ms` must be set <= `transaction.timeout.ms` + 100"]),
    ("a provider that there is none of", 'providers = ( { type = "modal"; } );',
     ["configuration: providers.daytona.type must be one of daytona (is modal)"]),
    ("a list that is none", 'kafka = { properties = "a=b"; };\nproviders = ( { targets = [ 1, 2 ]; } );',
     ['F:1: kafka.properties must be a list of texts: [ "…", "…" ]',
      'F:2: providers[0].targets must be a list of texts: [ "…", "…" ]']),
    ("an URL that is none", 'providers = ( { api_url = "app.daytona.io/api"; } );',
     ["F:1: providers[0].api_url must be http://… or https://…, without user, query or fragment "
      "(is app.daytona.io/api)"]),
    ("an URL with a password", 'providers = ( { api_url = "https://u:p@h/api"; } );',
     ["F:1: providers[0].api_url must be http://… or https://…, without user, query or fragment "
      "(is not shown, for it may hold a password)"]),
    ("providers that are no list", 'providers = { name = "daytona"; };',
     ["F:1: providers must be ( { … }, … )"]),
    ("two providers of one name", "providers = ( { }, { } );",
     ["configuration: providers has two called daytona", NO_KEY]),
    ("no key", "", [NO_KEY], [], {"DAYTONA_API_KEY": ""}),
    ("a key and its file", "", ["DAYTONA_API_KEY: is set, and so is DAYTONA_API_KEY_FILE: set only one of them"],
     [], {"DAYTONA_API_KEY_FILE": str(ROOT / "config/compose/simulator.key")}),
    ("a key that is no header", "", ["configuration: providers.daytona.api_key must be printable ASCII "
                                     "without spaces"], [], {"DAYTONA_API_KEY": "a\r\nb"}),
    ("a secret that cannot be read", 'kafka = { password_file = "/none"; };\n'
     'providers = ( { api_key_file = "/none2"; } );\nsession_key = { secret_files = [ "/none3" ]; };',
     ["/none: kafka.password_file cannot be read: No such file or directory",
      "/none2: providers.daytona.api_key_file cannot be read: No such file or directory",
      "/none3: session_key.secret_files cannot be read: No such file or directory"],
     [], {"DAYTONA_API_KEY": ""}),
    ("a secret that is too short", 'session_key = { secret_files = [ "/etc/hostname-none", "SHORT" ]; };',
     ["/etc/hostname-none: session_key.secret_files cannot be read: No such file or directory",
      "SHORT: session_key.secret_files must hold at least 16 bytes (holds 5)"]),
    ("an address without a port", 'admin = { listen = "localhost"; };',
     ["F:1: admin.listen must be host:port, or empty for none (is localhost)"]),
    ("broken grammar", "jobs = {\n attempts = 3\n timeout_seconds = ;\n};", ["F:3: syntax error"]),
    ("a group that does not end", "jobs = {\n attempts = 3;\n", ["F:3: syntax error"]),
    ("a key given twice", "jobs = { attempts = 3; };\njobs = { attempts = 4; };",
     ["F:2: duplicate setting name"]),
    ("a directive", '@include "/etc/passwd"\njobs = { attempts = 11; };',
     ["F:1: @include and other directives are not allowed", "F:2: jobs.attempts must be 1 to 10 (is 11)"]),
    ("bytes that steer a terminal", 'log = { level = "\x1b]0;x\x07"; };\nfleet = "a\nb";',
     ["F:1: log.level must be one of debug, info, warn, error (is ?]0;x?)",
      "F:2: fleet must be 1 to 40 of a-z, 0-9 and - (is a?b)"]),
    ("no such file", None, ["F: No such file or directory"]),
    ("mistakes on every way in", "jobs = { attempts = 99; };",
     ["F:1: jobs.attempts must be 1 to 10 (is 99)",
      "SESSION_WORKER_JOBS_MAX_BYTES: jobs.max_bytes must be 1024 to 262144 (is 1)",
      "SESSION_WORKER_NO_SUCH: is no key (SESSION_WORKER_ and the path in capitals, with _ for .)",
      "-s: jobs.attempt is no key (did you mean jobs.attempts?)",
      "-s: x must be KEY=VALUE",
      "-s: admin.listen must be host:port, or empty for none (is :1)"],
     ["-s", "jobs.attempt=3", "-s", "x", "-s", "admin.listen=:1"],
     {"SESSION_WORKER_JOBS_MAX_BYTES": "1", "SESSION_WORKER_NO_SUCH": "1"}),
]


class BadConfig(unittest.TestCase):
    seconds = 3

    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)

    def ask(self, file, args=(), env=None):
        """(exit code, lines of stderr, seconds) of a worker that is to run with it."""
        began = time.monotonic()
        done = subprocess.run([OUT / "session-worker", "-c", file, *args], capture_output=True, timeout=60,
                              env={**os.environ, **KEY, **(env or {})})
        took = time.monotonic() - began
        self.assertEqual(done.stdout, b"")
        return done.returncode, done.stderr.decode().splitlines(), took

    def test_all_mistakes_at_once(self):
        self.assertGreaterEqual(len(CASES), 30)
        short = pathlib.Path(self.folder.name) / "short"
        short.write_text("short\n")
        times = []
        for i, (name, text, wanted, *more) in enumerate(CASES):
            file = pathlib.Path(self.folder.name) / f"{i}.cfg"
            if text is not None:
                file.write_text(text.replace("SHORT", str(short)))
            with self.subTest(name):
                code, said, took = self.ask(file, *more)
                self.assertEqual(said, [w.replace("F:", f"{file}:", 1).replace("SHORT", str(short))
                                        if w.startswith(("F:", "SHORT")) else w for w in wanted])
                self.assertEqual(code, 2)
                times.append(took)
        median = statistics.median(times)
        print(f"{len(times)} broken configurations: median {median * 1000:.1f} ms, worst {max(times) * 1000:.1f} ms")
        self.assertLess(median, 0.05 * 5 * PATIENCE)

    def test_mode_size_and_kind_of_the_file(self):
        file = pathlib.Path(self.folder.name) / "worker.cfg"
        file.write_text("")
        file.chmod(0o666)
        code, said, _ = self.ask(file)
        self.assertEqual((code, said), (2, [f"{file}: must not be writable by everybody (chmod o-w)"]))
        file.chmod(0o600)
        file.write_text(" " * 300000)
        code, said, _ = self.ask(file)
        self.assertEqual((code, said), (2, [f"{file}: must not be larger than 256 KiB"]))
        code, said, _ = self.ask("/dev/null")
        self.assertEqual((code, said), (2, ["/dev/null: must be a regular file"]))
        file.write_bytes(b"fleet = \"a\0b\";")
        code, said, _ = self.ask(file)
        self.assertEqual((code, said), (2, [f"{file}: must be a text of at most 256 KiB"]))

    def test_the_command_line(self):
        for args, words in ((["--no-such"], "unrecognized option '--no-such'"),
                            (["-s"], "option requires an argument -- 's'"),
                            (["start"], "start: no arguments are taken, see --help"),
                            (["--live"], "--live goes with --check")):
            with self.subTest(args):
                code, said, _ = self.ask("/none.cfg", args)
                self.assertEqual(code, 2)
                self.assertIn(words, "\n".join(said))

    def said(self, program, *args, env=None, stdout=subprocess.PIPE):
        done = subprocess.run([OUT / program, *args], env={**os.environ, **(env or {})}, text=True, timeout=60,
                              stdout=stdout, stderr=subprocess.PIPE)
        return done.returncode, done.stdout, done.stderr

    def test_an_answer_that_cannot_be_written(self):
        with open("/dev/full", "w") as full:
            for question in "--print-defaults", "--print-config", "--help", "--version", "--check":
                with self.subTest(question):
                    code, _, said = self.said("session-worker", question, env=KEY, stdout=full)
                    self.assertEqual((code, said), (1, "session-worker: cannot write to stdout: "
                                                       "No space left on device\n"))

    def test_questions_that_need_no_key(self):
        code, said, wrong = self.said("session-worker", "--print-config")
        self.assertEqual((code, wrong), (0, ""))
        self.assertIn("max_in_flight = 1000;", said)
        with socket.socket() as worker:
            worker.bind(("127.0.0.1", 0))
            worker.listen()
            asking = threading.Thread(target=self.answer_health, args=[worker])
            asking.start()
            address = "127.0.0.1:{}".format(worker.getsockname()[1])
            self.assertEqual(self.said("session-worker", "-s", f"admin.listen={address}", "--healthcheck"), (0, "", ""))
            asking.join()

    def answer_health(self, worker):
        worker.settimeout(20)
        peer, _ = worker.accept()
        with peer:
            peer.recv(100)
            peer.sendall(b"HTTP/1.1 200 OK\r\n\r\n")

    def test_the_stand_ins(self):
        for program, usual in (("daytona-sim", "127.0.0.1:3986"), ("demo-broker", "127.0.0.1:19092")):
            with self.subTest(program):
                version = self.said("session-worker", "--version")[1].replace("session-worker", program)
                self.assertEqual(self.said(program, "--version"), (0, version, ""))
                for wrong in "foo", "127.0.0.1", "127.0.0.1:port":
                    self.assertEqual(self.said(program, "--listen", wrong),
                                     (2, "", f"{program}: --listen wants HOST:PORT, as {usual} (is {wrong})\n"))


if __name__ == "__main__":
    unittest.main()
