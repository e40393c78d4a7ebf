"""The consumer and the publisher against a real broker, without a core: tests/kafka/io_driver.c.

Every record becomes one result, "<partition>/<offset>"; the committed metadata says the offset. So
at any time a read_committed reader must see exactly the results below the committed offsets.
"""

import os
import re
import shutil
import signal
import socket
import subprocess
import threading
import time
import unittest

import confluent_kafka
from confluent_kafka.admin import AdminClient, NewTopic

from harness import LOGS, OUT, Reader, until
from broker import Broker, free_port

DRIVER = OUT / "tests" / "kafka" / "io_driver"
FAST = ["session.timeout.ms=6000", "heartbeat.interval.ms=500"]
COOPERATIVE = "partition.assignment.strategy=cooperative-sticky"
EAGER = "partition.assignment.strategy=range,roundrobin"


class Driver:
    """One io_driver. lines holds what it said."""

    def __init__(self, case, name, delivery, properties):
        self.name, self.lines = name, []
        argv = [DRIVER, case.address, case.group, case.jobs, case.results,
                case.dead, f"{case.group}-{name}", delivery, *FAST, *properties]
        self.log = open(case.folder / f"{name}.log", "ab")
        self.process = subprocess.Popen(["setpriv", "--pdeathsig", "KILL", *map(str, argv)],
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=self.log, text=True)
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self):
        for line in self.process.stdout:
            self.lines.append(line.rstrip("\n"))
            self.log.write(f"{time.time():.3f} {line}".encode())
            self.log.flush()

    def tell(self, *commands):
        for command in commands:
            self.process.stdin.write(command + "\n")
        self.process.stdin.flush()

    def said(self, pattern):
        return [line for line in list(self.lines) if re.fullmatch(pattern, line)]

    def wait(self, pattern, count=1, limit=30):
        return until(lambda: len(self.said(pattern)) >= count and self.said(pattern), limit,
                     lambda: f"{self.name} did not say {count} x {pattern!r}: {self.lines[-30:]}")

    def owned(self):
        """Partitions that it holds now."""
        mine = set()
        for line in list(self.lines):
            word, *rest = line.split(" ")
            if word == "assigned":
                mine.add(int(rest[0]))
            elif word in ("released", "lost"):
                mine.discard(int(rest[0]))
        return mine

    def send(self, number):
        self.process.send_signal(number)

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.close()

    def close(self):
        self.reader.join(5)
        for stream in (self.process.stdin, self.process.stdout, self.log):
            try:
                stream.close()
            except BrokenPipeError:
                pass

    def leave(self, limit=20):
        """Leaves the group and ends; its exit code."""
        self.tell("leave")
        code = self.process.wait(limit)
        self.close()
        return code


class IoCase(unittest.TestCase):
    partitions = 4
    own_kafka = False
    seconds = 20

    def setUp(self):
        if not DRIVER.exists():
            self.skipTest(f"{DRIVER} is not built")
        self.prefix = f"io{os.getpid()}-{re.sub('[^a-z0-9]+', '-', self._testMethodName[5:])}"[:60]
        self.folder = LOGS / self.id()
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        self.address = self._broker()
        self.jobs, self.results, self.dead, self.group = (
            f"{self.prefix}-{what}" for what in ("jobs", "results", "dead", "group"))
        self.create(self.jobs, self.partitions)
        self.create(self.results, 2)
        self.create(self.dead, 1, {"max.message.bytes": "200000"})
        self.producer = confluent_kafka.Producer({"bootstrap.servers": self.address})
        self.reader = Reader(self.address, self.results)
        self.addCleanup(self.reader.close)
        self.sent = []

    def _broker(self):
        if os.environ.get("TEST_KAFKA") and not self.own_kafka:
            return os.environ["TEST_KAFKA"]
        self.kafka = Broker(self.folder / "kafka")
        self.kafka.format()
        self.kafka.start()
        self.addCleanup(self.kafka.stop)
        return self.kafka.address

    def create(self, topic, partitions, config=None):
        admin = AdminClient({"bootstrap.servers": self.address})
        for future in admin.create_topics([NewTopic(topic, partitions, 1, config=config or {})]).values():
            future.result(30)

    def driver(self, name="a", *properties, delivery="exactly_once"):
        driver = Driver(self, name, delivery, properties)
        self.addCleanup(driver.kill)
        return driver

    def put(self, n, topic=None):
        """n records, spread over the partitions."""
        def delivered(error, message):
            self.assertIsNone(error)
            self.sent.append(f"{message.partition()}/{message.offset()}")
        for i in range(n):
            self.producer.produce(topic or self.jobs, f"value {i}", f"key-{i}",
                                  partition=i % self.partitions, headers={"h": "1"},
                                  on_delivery=delivered)
        self.assertEqual(self.producer.flush(30), 0)

    def visible(self):
        return [event.raw.decode() for event in self.reader.events]

    def expect_all(self, limit=60):
        """Every record put has exactly one visible result."""
        wanted = set(self.sent)
        self.reader.wait(lambda events: {e.raw.decode() for e in events} >= wanted, limit,
                         lambda events: f"{len(wanted - {e.raw.decode() for e in events})} results "
                                        f"of {len(wanted)} are missing")
        self.reader.settle(0.5)
        self.assertEqual(sorted(self.visible()), sorted(self.sent), "results seen twice")

    def committed(self):
        """partition -> (offset, metadata)."""
        consumer = confluent_kafka.Consumer({"bootstrap.servers": self.address, "group.id": self.group})
        try:
            wanted = [confluent_kafka.TopicPartition(self.jobs, p) for p in range(self.partitions)]
            return {t.partition: t.offset for t in consumer.committed(wanted, 10)}
        finally:
            consumer.close()

    def expect_offsets_at_end(self, limit=20):
        ends = {}
        for job in self.sent:
            partition, offset = map(int, job.split("/"))
            ends[partition] = max(ends.get(partition, 0), offset + 1)
        until(lambda: {p: o for p, o in self.committed().items() if o >= 0} == ends, limit,
              lambda: f"committed is {self.committed()}, the ends are {ends}", 0.2)


class Plain(IoCase):
    def test_exactly_once(self):
        self.put(40)
        a = self.driver()
        self.expect_all()
        self.expect_offsets_at_end()
        self.assertEqual({line.split(" ")[2] for line in a.wait(r"assigned .*", 4)}, {"4"})
        self.assertIn("record 0 0 key-0 value 0 1", a.lines)
        a.wait("outcome 1 committed")
        a.tell("status")
        a.wait("status 1 1")
        self.assertEqual(a.leave(), 0)
        self.assertIn("closed", a.lines)
        again = self.driver("again")
        lines = again.wait(r"assigned .*", 4)
        self.assertEqual(sorted(lines), [f"assigned {p} 4 10 w10" for p in range(4)])
        self.put(4)
        self.expect_all()
        self.assertEqual(len(again.said("record .*")), 4)

    def test_at_least_once(self):
        self.put(40)
        a = self.driver("a", delivery="at_least_once")
        self.expect_all()
        self.expect_offsets_at_end()
        self.assertEqual(a.leave(), 0)
        lines = self.driver("again", delivery="at_least_once").wait(r"assigned .*", 4)
        self.assertEqual(sorted(lines), [f"assigned {p} 4 10 w10" for p in range(4)])

    def test_metadata_of_4096_characters_and_no_more(self):
        a = self.driver()
        a.wait(r"assigned .*", 4)
        a.tell("pad 4096")
        self.put(4)
        self.expect_all()
        a.tell("pad 4097")
        self.put(4)
        a.wait(r"outcome \d+ refused", 2)
        self.reader.settle(0.5)
        self.assertEqual(len(self.visible()), 4, "a refused batch is visible")
        a.tell("pad 0")
        self.expect_all()
        self.expect_offsets_at_end()

    def test_a_dead_letter_larger_than_its_topic_takes_is_cut(self):
        a = self.driver()
        a.wait(r"assigned .*", 4)
        a.tell("dead 300000")
        self.put(1)
        self.expect_all()
        a.wait("outcome 1 committed")
        dead = Reader(self.address, self.dead)
        self.addCleanup(dead.close)
        dead.wait(lambda events: events, 10, lambda events: "no dead letter")
        self.assertEqual(len(dead.events[0].raw), 65536)
        self.assertEqual(dead.events[0].headers["session-worker-cut"], "true")

    def test_a_committed_offset_beyond_the_log(self):
        consumer = confluent_kafka.Consumer({"bootstrap.servers": self.address, "group.id": self.group})
        consumer.commit(offsets=[confluent_kafka.TopicPartition(self.jobs, 0, 1000)], asynchronous=False)
        consumer.close()
        a = self.driver()
        a.wait("assigned 0 4 1000 ")
        self.put(8)
        a.wait("lost 0")
        a.wait("assigned 0 4 -1 ")
        self.expect_all()
        self.expect_offsets_at_end()

    def test_partitions_that_are_not_read(self):
        a = self.driver()
        a.tell("shut")
        a.wait(r"assigned .*", 4)
        self.put(2000)
        time.sleep(8)  # longer than the session
        self.assertEqual(a.said("(record|lost|revoked) .*"), [])
        a.tell("open")
        self.expect_all()
        self.expect_offsets_at_end()

    def test_an_idle_member_stays(self):
        a = self.driver("a", "max.poll.interval.ms=6000")
        a.wait(r"assigned .*", 4)
        time.sleep(14)
        self.assertEqual(a.said("(lost|revoked) .*"), [])
        self.put(4)
        self.expect_all()

    def test_a_topic_that_comes_later(self):
        self.jobs += "-late"
        a = self.driver()
        until(lambda: "UNKNOWN_TOPIC_OR_PART" in (self.folder / "a.log").read_text(), 20, "no word of it")
        self.create(self.jobs, self.partitions)
        a.wait(r"assigned .*", 4, limit=40)
        self.put(4)
        self.expect_all()

    def test_twins(self):
        """Two workers with one instance name: soon one of them says so and ends."""
        a, b = self.driver("a"), self.driver("a")
        end = time.monotonic() + 60
        while a.process.poll() is None and b.process.poll() is None and time.monotonic() < end:
            self.put(4)
            time.sleep(0.1)
        ended = a if a.process.poll() is not None else b
        self.assertEqual(ended.process.wait(10), 75)
        self.assertRegex("\n".join(ended.lines), "fatal 75 two workers of group .* use the instance")
        ended.close()
        self.expect_all()


class Rebalance:
    """Both protocols; `protocol` is the property that asks for it."""

    def pair(self):
        return self.driver("a", self.protocol), self.driver("b", self.protocol)

    def split(self, a, b):
        until(lambda: len(a.owned()) == len(b.owned()) == 2 and not a.owned() & b.owned(), 30,
              lambda: f"a owns {a.owned()}, b owns {b.owned()}")

    def test_two_members(self):
        a = self.driver("a", self.protocol)
        a.wait(r"assigned .*", 4)
        b = self.driver("b", self.protocol)
        for _ in range(20):
            self.put(40)
            time.sleep(0.1)
        self.split(a, b)
        self.put(40)
        self.expect_all()
        self.assertTrue(b.said("record .*"))
        self.assertEqual(b.leave(), 0)
        until(lambda: len(a.owned()) == 4, 20, lambda: f"a owns {a.owned()}")
        self.put(40)
        self.expect_all()
        self.expect_offsets_at_end()
        self.assertIn(f"protocol={self.name}", (self.folder / "a.log").read_text())

    def test_a_revoke_takes_as_long_as_it_must(self):
        a = self.driver("a", self.protocol)
        a.wait(r"assigned .*", 4)
        a.tell("hold", "keep")
        self.put(40)
        a.wait("record .*", 40)
        b = self.driver("b", self.protocol)
        a.wait("revoked .*")
        time.sleep(9)  # longer than the session: heartbeats go on
        self.assertEqual(b.owned(), set())
        self.assertEqual(a.said("lost .*"), [])
        a.tell("go", "release")
        self.split(a, b)
        self.expect_all()
        self.assertEqual(b.said("record .*"), [], "what a had finished was read again")

    def test_a_member_that_is_killed(self):
        a, b = self.pair()
        self.split(a, b)
        b.tell("hold")
        self.put(40)
        b.wait("record .*", 10)
        b.kill()
        until(lambda: len(a.owned()) == 4, 30, lambda: f"a owns {a.owned()}")
        self.expect_all()
        self.expect_offsets_at_end()

    def test_a_zombie(self):
        """Frozen with unpublished results until another has its partitions, then woken."""
        a, b = self.pair()
        self.split(a, b)
        b.tell("hold")
        self.put(80)
        b.wait("record .*", 40)
        b.tell("go")
        time.sleep(0.003)
        b.send(signal.SIGSTOP)
        until(lambda: len(a.owned()) == 4, 60, lambda: f"a owns {a.owned()}")
        self.expect_all()
        b.send(signal.SIGCONT)
        b.wait("lost .*", 2)
        self.split(a, b)
        self.put(80)
        self.expect_all()
        self.expect_offsets_at_end()
        self.assertIsNone(b.process.poll())

    def test_a_pending_transaction(self):
        """What may yet be committed is waited for, and is neither skipped nor read over."""
        self.put(40)
        group = confluent_kafka.Consumer({"bootstrap.servers": self.address, "group.id": self.group})
        producer = confluent_kafka.Producer({"bootstrap.servers": self.address, "transactional.id": self.group})
        producer.init_transactions(20)
        producer.begin_transaction()
        for offset in range(5):
            producer.produce(self.results, f"0/{offset}")
        producer.send_offsets_to_transaction([confluent_kafka.TopicPartition(self.jobs, 0, 5)],
                                             group.consumer_group_metadata(), 20)
        a = self.driver("a", self.protocol)
        if self.name == "cooperative":
            a.wait("assigned [123] .*", 3)
        time.sleep(3)
        self.assertEqual(a.said("assigned 0 .*"), [])
        self.assertEqual(len(a.owned()), 3 if self.name == "cooperative" else 0)
        producer.commit_transaction(20)
        a.wait("assigned 0 4 5 .*")
        self.expect_all()
        self.expect_offsets_at_end()
        group.close()


class Cooperative(Rebalance, IoCase):
    protocol, name = COOPERATIVE, "cooperative"


class Eager(Rebalance, IoCase):
    protocol, name = EAGER, "eager"


class BrokerTrouble(IoCase):
    own_kafka = True
    seconds = 60

    def load(self, seconds):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.put(8)
            time.sleep(0.02)

    def frozen(self, seconds, *properties, delivery="exactly_once", times=3):
        a = self.driver("a", *properties, delivery=delivery)
        a.wait(r"assigned .*", 4)
        for _ in range(times):
            self.load(1)
            self.kafka.pause()
            time.sleep(seconds)
            self.kafka.resume()
        self.load(1)
        self.assertIsNone(a.process.poll(), a.lines[-10:])
        return a

    def test_frozen_for_a_while(self):
        self.frozen(3)
        self.expect_all()
        self.expect_offsets_at_end()

    def test_frozen_for_longer_than_transactions_and_sessions(self):
        self.frozen(14, "transaction.timeout.ms=5000", times=2)
        self.expect_all(90)
        self.expect_offsets_at_end()

    def test_frozen_at_least_once(self):
        a = self.frozen(3, delivery="at_least_once")
        wanted = set(self.sent)
        self.reader.wait(lambda events: {e.raw.decode() for e in events} >= wanted, 60,
                         lambda events: "results are missing")
        self.expect_offsets_at_end()
        self.assertIsNone(a.process.poll())

    def test_away(self):
        """Longer than the watchdog's limit (20 s): a broker that is away does not end a worker."""
        a = self.driver("a")
        a.wait(r"assigned .*", 4)
        a.tell("hold")
        self.put(40)
        a.wait("record .*", 40)
        self.kafka.kill()
        a.tell("go")
        time.sleep(32)
        self.assertIsNone(a.process.poll(), a.lines[-10:])
        self.kafka.start()
        self.expect_all(90)
        self.expect_offsets_at_end()

    def test_killed_at_any_moment(self):
        """kill -9 of the worker, again and again, under load, each time started anew."""
        stop = threading.Event()

        def kill_and_start():
            for i in range(15):
                driver = self.driver("a", "transaction.timeout.ms=5000")
                driver.wait(r"outcome \d+ committed")
                time.sleep(0.001 * (7 * i % 31))
                driver.kill()
            stop.set()

        killer = threading.Thread(target=kill_and_start)
        killer.start()
        while not stop.is_set():
            self.put(8)
            time.sleep(0.02)
        killer.join()
        self.driver("a")
        self.expect_all(60)
        self.expect_offsets_at_end()


class Proxy:
    """Between clients and the broker: sees requests, and does to one kind what the test says."""

    END_TXN, INIT_PRODUCER_ID = 26, 22

    def __init__(self, target):
        self.target, self.port = target, free_port()
        self.rule = None  # what to do with the next EndTxn: "lose", "mute" or "cut"
        self.seen = 0     # EndTxn requests that the rule was applied to
        self.server = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                client, _ = self.server.accept()
            except OSError:
                return
            threading.Thread(target=self._connection, args=(client,), daemon=True).start()

    def _connection(self, client):
        broker = socket.create_connection(("127.0.0.1", self.target))
        state = {"mute": False}
        threading.Thread(target=self._answers, args=(broker, client, state), daemon=True).start()
        try:
            while True:
                size = self._exactly(client, 4)
                request = self._exactly(client, int.from_bytes(size, "big"))
                if not self._judge(int.from_bytes(request[:2], "big"), size + request, broker, state):
                    break
        except OSError:
            pass
        for end in (client, broker):
            end.close()

    def _judge(self, kind, request, broker, state):
        """False: cut the connection."""
        if kind == self.INIT_PRODUCER_ID and self.rule in ("lose", "mute"):
            self.rule = None  # the client has given up: all is well again
        if kind != self.END_TXN or not self.rule:
            broker.sendall(request)
            return True
        self.seen += 1
        rule = self.rule
        if rule == "cut":
            self.rule = None
        if rule == "mute":
            state["mute"] = True
        if rule != "lose":
            broker.sendall(request)
        if rule == "cut":
            time.sleep(0.05)
        return rule != "cut"

    def _answers(self, broker, client, state):
        try:
            while True:
                data = broker.recv(65536)
                if not data:
                    break
                if not state["mute"]:
                    client.sendall(data)
        except OSError:
            pass
        client.close()

    @staticmethod
    def _exactly(connection, size):
        data = b""
        while len(data) < size:
            more = connection.recv(size - len(data))
            if not more:
                raise OSError("closed")
            data += more
        return data


class UnknownOutcome(IoCase):
    """The answer to a commit does not come: what happened is found out, and nothing is seen twice."""

    own_kafka = True
    seconds = 30

    def _broker(self):
        self.kafka = Broker(self.folder / "kafka")
        self.kafka.format()
        self.proxy = Proxy(self.kafka.port)
        text = self.kafka.conf.read_text()
        self.kafka.conf.write_text(text.replace(f"advertised.listeners=PLAINTEXT://127.0.0.1:{self.kafka.port}",
                                                f"advertised.listeners=PLAINTEXT://127.0.0.1:{self.proxy.port}"))
        self.kafka.start()
        self.addCleanup(self.kafka.stop)
        self.addCleanup(self.proxy.server.close)
        return f"127.0.0.1:{self.proxy.port}"

    def commit_under(self, rule):
        a = self.driver("a", "transaction.timeout.ms=4000")
        a.wait(r"assigned .*", 4)
        self.put(4)
        self.expect_all()
        self.proxy.rule = rule
        self.put(4)
        self.expect_all()
        self.assertGreater(self.proxy.seen, 0)
        self.put(4)
        self.expect_all()
        self.expect_offsets_at_end()
        return a, (self.folder / "a.log").read_text()

    def test_committed_and_the_answer_is_lost(self):
        a, log = self.commit_under("mute")
        self.assertIn('found=committed', log)
        self.assertEqual(a.said(r"outcome \d+ refused"), [])

    def test_the_request_is_lost(self):
        a, log = self.commit_under("lose")
        self.assertIn('found="not committed"', log)
        self.assertEqual(len(a.said(r"outcome \d+ refused")), 1)

    def test_cut_and_sent_again(self):
        """librdkafka says ok; the producer must be a new one all the same."""
        a, log = self.commit_under("cut")
        self.assertEqual(a.said(r"outcome \d+ refused"), [])
        self.assertEqual(log.count("producer ready"), 2)


if __name__ == "__main__":
    unittest.main()
