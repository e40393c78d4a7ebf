"""What a worker stands on is not there, or not as it should be: one clear line each, with what to do
about it, and an exit code that says whether starting it again is of use."""

import re
import signal
import socket
import subprocess
import time

import confluent_kafka
import harness
from harness import API_KEY, OUT, Case, Worker, start, taking, until


class Absent(Case):
    seconds = 12
    partitions = 1

    def started(self, name="worker-a", key=API_KEY, **settings):
        """A worker that was launched and need not become ready; ended with the test."""
        worker = Worker(self, name, {k.replace("__", "."): v for k, v in settings.items()})
        worker.env = {"DAYTONA_API_KEY": key}
        worker.launch()
        self.addCleanup(worker.kill)
        return worker

    def asked(self, worker, *questions):
        """(exit code, lines) of a question put to a worker's configuration."""
        done = subprocess.run([*worker.argv, *questions], env={"PATH": "/usr/bin:/bin", **worker.env},
                              capture_output=True, text=True, timeout=60 * harness.PATIENCE)
        self.assertEqual(done.stderr, "", "lines of a log are not for people")
        return done.returncode, done.stdout.splitlines()

    def said(self, worker, *words, limit=20):
        """The one line of its log that holds all the words."""
        def lines():
            return [line for line in worker.log.read_text(errors="replace").splitlines()
                    if all(w in line for w in words)]

        until(lines, limit, lambda: f"nothing about {words} in:\n{worker.tail()}")
        return lines()

    def ends(self, worker, number=signal.SIGTERM):
        worker.send(number)
        return worker.process.wait(15 * harness.PATIENCE)

    def test_no_broker(self):
        nobody = f"127.0.0.1:{harness.free_port()}"
        worker = self.started(kafka__brokers=nobody)
        line, = self.said(worker, "_ALL_BROKERS_DOWN")
        self.assertIn("check kafka.brokers; the worker keeps trying", line)
        self.assertTrue(self.said(worker, nobody, "Connection refused"))
        time.sleep(2)
        self.assertEqual(len(self.said(worker, "advice=")), 1, "said once, not at every try")
        status, why = worker.page("/readyz")
        self.assertEqual(status, 503, why)
        self.assertEqual(worker.page("/healthz")[0], 200, "it is alive and waits")
        code, lines = self.asked(worker, "--check", "--live")
        self.assertEqual(code, 1)
        self.assertRegex(lines[1], rf"^FAIL  brokers +no broker answers at {nobody}: .*Connection refused: "
                                   r"is Kafka running there\? kafka.brokers says where$")
        self.assertEqual(self.ends(worker), 0, "a drain is a drain")

    def test_a_name_that_is_nobody(self):
        worker = self.started(kafka__brokers="nobody.invalid:9092")
        line, = self.said(worker, "_RESOLVE")
        self.assertIn("check the host names in kafka.brokers", line)
        self.assertEqual(self.ends(worker), 0)

    def test_no_topic_until_it_is_made(self):
        absent = f"{self.prefix}-absent"
        worker = self.started(topics__jobs=absent)
        line, *_ = self.said(worker, "reading the jobs topic", absent)
        self.assertIn("create the topic", line)
        self.assertIn("--create-topics", line)
        self.assertEqual(worker.page("/healthz")[0], 200)
        code, lines = self.asked(worker, "--check", "--live")
        self.assertEqual(code, 1)
        self.assertIn("does not exist: sessionctl check --create-topics makes it",
                      next(line for line in lines if line.startswith(f"FAIL  topic {absent} ")))
        admin = confluent_kafka.admin.AdminClient({"bootstrap.servers": self.kafka_address})
        for future in admin.create_topics([confluent_kafka.admin.NewTopic(absent, 1, 1)]).values():
            future.result(30)
        self.jobs_topic = absent
        self.assertEqual(self.one(start("s1")).outcome, "ready", "it was only waiting")
        self.assertEqual(self.ends(worker), 0)

    def test_a_key_that_is_refused(self):
        worker = self.started(key="dtn_bad", jobs__timeout_seconds=3)
        event = self.one(start("s1"))
        self.assertEqual(event.outcome, "unauthorized", event.json)
        line, = self.said(worker, "refuses our key")
        self.assertIn("level=error", line)
        self.assertIn("advice=\"start the worker with a valid key", line)
        until(lambda: worker.page("/readyz")[0] == 503, 10, "a worker without a key is ready")
        self.assertIn("key", str(worker.page("/readyz")[1]))
        code, lines = self.asked(worker, "--check", "--live")
        self.assertEqual(code, 1)
        self.assertRegex(lines[-1], r"^FAIL  provider daytona +http://.*/api: the key is refused: ")
        self.assertNotIn("dtn_bad", worker.log.read_text() + "\n".join(lines))
        self.assertEqual(self.ends(worker), 0)

    def test_the_admin_port_is_taken(self):
        worker = self.started()
        with socket.socket() as other:
            worker.kill()
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            host, port = worker.admin.split(":")
            other.bind((host, int(port)))
            other.listen()
            worker.launch()
            self.assertEqual(worker.process.wait(15 * harness.PATIENCE), 1)
        line, = self.said(worker, "cannot listen for the admin port")
        self.assertIn(worker.admin, line)
        self.assertIn("Address already in use", line)
        self.assertIn("set admin.listen to a free address", line)

    @taking(3)
    def test_nobody_is_alive(self):
        worker = self.started()
        worker.kill()
        self.assertEqual(self.asked(worker, "--healthcheck")[0], 1)
        worker.launch()
        worker.wait_ready()
        self.assertEqual(self.asked(worker, "--healthcheck")[0], 0)
        self.assertEqual(self.ends(worker), 0)


if __name__ == "__main__":
    harness.unittest.main()
