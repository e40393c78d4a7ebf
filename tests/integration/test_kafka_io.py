"""The consumer and the publisher against a real broker, without a core: tests/kafka/io_driver.c.

Every record becomes one result, "<partition>/<offset>"; the committed metadata says the offset. So
at any time a read_committed reader must see exactly the results below the committed offsets.
"""

import concurrent.futures
import os
import random
import re
import shutil
import signal
import subprocess
import threading
import time
import types
import unittest

import confluent_kafka
from confluent_kafka.admin import AdminClient, NewTopic

import harness
from harness import LOGS, OUT, Event, Reader, until
import raw
from broker import Broker, Cluster
from proxy import ADD_OFFSETS, END_TXN, INIT_PRODUCER_ID, PRODUCE, TXN_OFFSET_COMMIT, Proxy

DRIVER = OUT / "tests" / "kafka" / "io_driver"
FAST = ["session.timeout.ms=6000", "heartbeat.interval.ms=500"]
COOPERATIVE = "partition.assignment.strategy=cooperative-sticky"
EAGER = "partition.assignment.strategy=range,roundrobin"


class Results(Reader):
    """Of a topic whose records are no events."""

    def poll(self, seconds):
        messages = [m for m in self.consumer.consume(500, seconds) if not m.error()]
        self.events.extend(map(Event.of, messages))
        return bool(messages)


class Driver:
    """One io_driver. lines holds what it said."""

    def __init__(self, case, name, delivery, properties):
        self.name, self.lines = name, []
        self.instance = f"{case.group}-{name}"
        argv = [DRIVER, case.way, case.group, case.jobs, case.results,
                case.dead, self.instance, delivery, *FAST, *properties]
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
    replicas = 1
    own_kafka = False
    seconds = 20

    def setUp(self):
        if not DRIVER.exists():
            self.skipTest(f"{DRIVER} is not built")
        self.prefix = f"io{os.getpid()}-{re.sub('[^a-z0-9]+', '-', self._testMethodName[5:])}"[:60]
        self.folder = LOGS / self.id()
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        self.address = self.way = self._broker()  # the way of the drivers may lead through a proxy
        self.jobs, self.results, self.dead, self.group = (
            f"{self.prefix}-{what}" for what in ("jobs", "results", "dead", "group"))
        self.create(self.jobs, self.partitions)
        self.create(self.results, 2)
        self.create(self.dead, 1, {"max.message.bytes": "200000"})
        self.producer = confluent_kafka.Producer({"bootstrap.servers": self.address})
        self.reader = Results(self.address, self.results)
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

    def again(self, topic, partitions):
        """Deletes the topic and makes it again at once."""
        admin = AdminClient({"bootstrap.servers": self.address})
        admin.delete_topics([topic])[topic].result(30)

        def made():
            try:
                self.create(topic, partitions)
                return True
            except confluent_kafka.KafkaException:
                return False

        until(made, 20, f"{topic} cannot be made again")

    def create(self, topic, partitions, config=None, **more):
        admin = AdminClient({"bootstrap.servers": self.address})
        more = more or {"replication_factor": self.replicas}
        for future in admin.create_topics([NewTopic(topic, partitions, config=config or {}, **more)]).values():
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

    def committed(self, group=None):
        """partition -> offset."""
        return {t.partition: t.offset for t in harness.committed(
            self.address, group or self.group, self.jobs, self.partitions)}

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
        dead = Results(self.address, self.dead)
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
            for i in range(5):
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


class Topics(IoCase):
    """Logs that lose their beginning or are made anew, and topics that go away."""

    seconds = 25

    def test_a_log_that_lost_its_beginning(self):
        self.put(40)
        raw.commit_offset(self.address, self.group, self.jobs, 0, 2, "w2")
        raw.delete_records(self.address, self.jobs, 0, 5)
        a = self.driver()
        a.wait("assigned 0 4 2 w2")
        self.sent = [job for job in self.sent if job not in [f"0/{i}" for i in range(5)]]
        self.expect_all()
        self.assertEqual(a.said("lost .*"), [])
        self.expect_offsets_at_end()

    def test_the_jobs_topic_made_anew(self):
        """Read from its beginning: only that offsets begin again tells that it is another log."""
        self.put(40)
        a = self.driver()
        self.expect_all()
        a.wait(r"assigned \d 4 -1 ", 4)
        self.again(self.jobs, self.partitions)
        self.sent, before = [], len(self.visible())
        self.put(8)
        until(lambda: len(a.said(r"record \d [01] .*")) == 16, 60, lambda: f"not read again: {a.lines[-20:]}")
        self.assertEqual(len(a.said(r"assigned \d 4 -1 ")), 8, "the core has not been told")
        self.reader.wait(lambda events: len(events) >= before + 8, 30, lambda events: "results are missing")
        self.assertEqual(sorted(self.visible()[before:]), sorted(self.sent))
        self.expect_offsets_at_end()

    def test_the_results_topic_deleted(self):
        """Said, and nothing moves, until it is there again: then all is published."""
        a = self.driver()
        a.wait(r"assigned .*", 4)
        self.put(8)
        self.expect_all()
        self.reader.close()  # afterwards it would hang
        admin = AdminClient({"bootstrap.servers": self.address})
        admin.delete_topics([self.results])[self.results].result(30)
        before, self.sent = self.committed(), []
        self.put(40)
        until(lambda: "UNKNOWN_TOPIC_OR_PART" in (self.folder / "a.log").read_text() or
              "_UNKNOWN_TOPIC" in (self.folder / "a.log").read_text(), 60, "no word of it")
        time.sleep(5)
        self.assertEqual(self.committed(), before)
        self.assertIsNone(a.process.poll())
        self.create(self.results, 2)
        self.reader = Results(self.address, self.results)
        self.addCleanup(self.reader.close)
        self.expect_all(90)
        self.expect_offsets_at_end()


class Three(IoCase):
    """Three brokers, of which one dies."""

    own_kafka = True
    seconds = 60
    replicas = 3

    def _broker(self):
        self.kafka = Cluster(self.folder / "kafka", 3).start()
        self.addCleanup(self.kafka.stop)
        return self.kafka.address

    def test_brokers_that_die(self):
        """The group's coordinator: nobody notices but for a pause. Then the only one that has the
        results: jobs wait, no offset moves, and all is published when it is back."""
        a = self.driver()
        a.wait(r"assigned .*", 4)
        self.put(40)
        self.expect_all()
        coordinator = self.kafka.nodes[raw.coordinator(self.address, self.group) - 1]
        coordinator.kill()
        began = time.monotonic()
        self.put(40)
        self.expect_all()
        print(f"the coordinator died: all there again after {time.monotonic() - began:.1f} s")
        coordinator.start()

        self.assertEqual(a.leave(), 0)
        node = self.kafka.nodes[2]
        self.results += "-lonely"
        self.create(self.results, 1, replica_assignment=[[node.number]])
        self.reader, before = Results(self.address, self.results), self.committed()
        self.addCleanup(self.reader.close)
        node.kill()
        self.sent = []
        b = self.driver("b")
        b.wait(r"assigned .*", 4, limit=60)
        self.put(40)
        time.sleep(8)
        self.assertEqual(self.committed(), before)
        self.assertIsNone(b.process.poll())
        node.start()
        self.expect_all(90)
        self.expect_offsets_at_end()


class Mixed(IoCase):
    def test_a_member_of_another_protocol(self):
        """It cannot join, and says so; it works as soon as the others are gone."""
        a = self.driver("a", EAGER)
        a.wait(r"assigned .*", 4)
        b = self.driver("b", COOPERATIVE)
        until(lambda: "INCONSISTENT_GROUP_PROTOCOL" in (self.folder / "b.log").read_text(), 20, "no word of it")
        self.put(40)
        self.expect_all()
        self.assertEqual(len(a.owned()), 4)
        self.assertEqual(a.leave(), 0)
        self.put(40)
        b.wait(r"assigned .*", 4, limit=60)
        self.expect_all()
        self.expect_offsets_at_end()

    def test_a_pending_partition_is_kept_through_rebalances(self):
        """While it waits for a transaction that may yet be committed others come and go."""
        self.put(40)
        group = confluent_kafka.Consumer({"bootstrap.servers": self.address, "group.id": self.group})
        producer = confluent_kafka.Producer({"bootstrap.servers": self.address, "transactional.id": self.group})
        producer.init_transactions(20)
        producer.begin_transaction()
        for p in range(4):
            for offset in range(5):
                producer.produce(self.results, f"{p}/{offset}")
        producer.send_offsets_to_transaction([confluent_kafka.TopicPartition(self.jobs, p, 5) for p in range(4)],
                                             group.consumer_group_metadata(), 20)
        a = self.driver("a", COOPERATIVE)
        until(lambda: "partitions assigned" in (self.folder / "a.log").read_text(), 20, "not assigned")
        b = self.driver("b", COOPERATIVE)
        until(lambda: "partitions assigned" in (self.folder / "b.log").read_text(), 20, "not assigned")
        self.assertEqual(b.leave(), 0)
        until(lambda: (self.folder / "a.log").read_text().count("partitions assigned") >= 3, 20, "not assigned")
        self.assertEqual(a.said("assigned .*"), [])
        producer.commit_transaction(20)
        a.wait(r"assigned \d 4 5 .*", 4)
        self.expect_all()
        self.assertEqual(a.said(r"record \d [0-4] .*"), [], "read from the beginning")
        self.expect_offsets_at_end()
        group.close()


class Killed(IoCase):
    """The publisher alone is killed at random microseconds around its commit."""

    partitions = 1
    seconds = 25
    kills, chains, batch = 60, 3, 3
    seed = int(os.environ.get("SEED", "4"))

    def test_killed_around_the_commit(self):
        """Whatever a kill has left, the results are always those below the committed offset."""
        with concurrent.futures.ThreadPoolExecutor(self.chains) as pool:
            untold = [u for chain in pool.map(self.chain, range(self.chains)) for u in chain]
        print(f"{len(untold)} kills: {sum(untold)} times the last batch was committed and nobody had been told")
        self.assertGreater(sum(untold), 0, "no kill came late enough to mean anything")
        self.assertLess(sum(untold), len(untold), "no kill came early enough to mean anything")

    def chain(self, number):
        """One driver after the other, each killed and the next going on where the offsets say. Of each:
        was its last batch committed without its having been told?"""
        case = types.SimpleNamespace(way=self.way, folder=self.folder / str(number), jobs=self.jobs,
                                     results=f"{self.results}-{number}", dead=self.dead,
                                     group=f"{self.group}-{number}")
        case.folder.mkdir()
        self.create(case.results, 1)
        dice, untold, told = random.Random(self.seed + number), [], None
        for _ in range(self.kills // self.chains):
            driver = Driver(case, "a", "alone", ["transaction.timeout.ms=5000"])
            try:
                begin = self.begins(driver, told)
                untold.append(told is not None and begin > told)
                driver.wait(r"outcome \d+ committed", dice.randrange(1, 4))
                driver.tell(f"die {dice.randrange(600, 1050)}")
                self.assertEqual(driver.process.wait(30), -signal.SIGKILL)
            finally:
                driver.kill()
            told = begin + self.batch * len(driver.said(r"outcome \d+ committed"))
        last = Driver(case, "a", "alone", ["transaction.timeout.ms=5000"])
        self.addCleanup(last.kill)
        begin = self.begins(last, told)
        last.wait(r"outcome \d+ committed")
        self.assertEqual(last.leave(), 0)
        self.see(case)
        return untold[1:] + [begin > told]

    def begins(self, driver, told):
        """Where it begins: the metadata is that of the offset, and the offset what was told last or one
        batch more."""
        _, _, _, offset, metadata = (driver.wait("assigned .*")[0] + " ").split(" ")[:5]
        begin = max(0, int(offset))
        self.assertEqual(metadata.strip(), f"w{begin}" if int(offset) >= 0 else "")
        if told is not None:
            self.assertIn(begin, (told, told + self.batch))
        return begin

    def see(self, case):
        end = self.committed(case.group)[0]
        reader = Results(self.address, case.results)
        self.addCleanup(reader.close)
        reader.wait(lambda events: len(events) >= end, 30, lambda events: f"{len(events)} results of {end}")
        reader.settle(0.5)
        self.assertEqual([e.raw.decode() for e in reader.events], [f"0/{i}" for i in range(end)])


class Proxied(IoCase):
    """Drivers come by way of a proxy that does harm to single requests."""

    own_kafka = True
    seconds = 25

    def _broker(self):
        self.kafka = Cluster(self.folder / "kafka", 1, proxied=True).start()
        self.proxy = Proxy(self.kafka.nodes)
        self.addCleanup(self.kafka.stop)
        self.addCleanup(self.proxy.close)
        return self.kafka.address

    def setUp(self):
        super().setUp()
        self.way = self.proxy.address

    def working(self, *properties, name="a"):
        """A driver that has published something."""
        a = self.driver(name, "transaction.timeout.ms=4000", *properties)
        a.wait(r"assigned .*", self.partitions)
        self.put(4)
        self.expect_all()
        return a

    def fault(self, do, api, **more):
        return self.proxy.add(do, api, client=f"{self.group}-a", **more)

    def log(self, name="a"):
        return (self.folder / f"{name}.log").read_text()


class UnknownOutcome(Proxied):
    """The answer to a commit does not come: what happened is found out, and nothing is seen twice."""

    seconds = 35

    def commit_under(self, do, **more):
        """Two batches, harm done to the end of the first; how many were refused."""
        refused = len(self.a.said(r"outcome \d+ refused"))
        fault = self.fault(do, END_TXN, **more)
        for _ in range(2):
            self.put(4)
            self.expect_all()
        self.assertGreater(fault.seen, 0)
        self.expect_offsets_at_end()
        return len(self.a.said(r"outcome \d+ refused")) - refused

    def test_requests_and_answers_that_are_lost(self):
        self.a = self.working()
        self.assertEqual(self.commit_under("mute", times=99, ends_with=INIT_PRODUCER_ID), 0)
        self.assertIn("found=committed", self.log())
        self.assertEqual(self.commit_under("lose", times=99, ends_with=INIT_PRODUCER_ID), 1)
        self.assertIn('found="not committed"', self.log())

        # Cut and sent again: librdkafka says ok; the producer must be a new one all the same.
        made = self.log().count("producer ready")
        self.assertEqual(self.commit_under("cut_after"), 0)
        self.assertEqual(self.log().count("producer ready"), made + 1)

        # Records that are there although the answer was lost are not written twice.
        fault = self.fault("cut_after", PRODUCE, times=3)
        for _ in range(5):
            self.put(8)
            time.sleep(0.3)
        self.expect_all()
        self.assertEqual(fault.seen, 3)
        self.expect_offsets_at_end()


class Late(Proxied):
    """A request of one transaction arrives in the next: librdkafka has sent it again meanwhile, and the
    brokers cannot tell. Only a producer made anew is safe, which a plain one shows."""

    partitions = 1  # so that each transaction concerns what the one before did
    END_LATE = {"api": END_TXN, "before": (TXN_OFFSET_COMMIT, 1)}
    OFFSETS_LATE = {"api": TXN_OFFSET_COMMIT, "before": (END_TXN, 2)}

    def nothing_is_torn(self, driver, api, before):
        """Two transactions; then another driver runs nothing again. It."""
        fault = self.proxy.add("late", api, client=driver.instance, before=before)
        for _ in range(2):
            self.put(1)
            self.expect_all()
        self.assertIsNotNone(fault.answer, "it was not late")
        self.expect_offsets_at_end()
        self.assertEqual(driver.leave(), 0)
        following = self.driver(driver.name + "-then", "transaction.timeout.ms=4000")
        following.wait(r"assigned .*")
        self.put(4)
        self.expect_all()
        self.assertEqual(len(following.said("record .*")), 4, "what had a result was run again")
        return following

    def test_an_end_and_offsets(self):
        a = self.nothing_is_torn(self.working(), **self.END_LATE)
        self.nothing_is_torn(a, **self.OFFSETS_LATE)

    def test_a_break_that_librdkafka_does_not_tell(self):
        """The third time in a row it keeps the same error to itself; two have come before, between
        transactions."""
        a = self.working()
        for _ in range(2):
            time.sleep(2.5)  # an early break would be another error
            self.proxy.cut(client=a.instance)
        time.sleep(2.5)
        self.nothing_is_torn(a, **self.END_LATE)

    def plain(self, name, late, abort):
        """Two transactions of a plain producer, each a result and an offset; the second is aborted, if it
        is to be. What is visible, and the offset."""
        producer = confluent_kafka.Producer({
            "bootstrap.servers": self.way, "transactional.id": name, "client.id": name, "log_level": 2,
            "retry.backoff.ms": 20, "reconnect.backoff.ms": 50})
        group = confluent_kafka.Consumer({"bootstrap.servers": self.address, "group.id": name})
        fault = self.proxy.add("late", client=name, **late)
        producer.init_transactions(20)
        for number in (1, 2):
            producer.begin_transaction()
            producer.produce(self.results, f"{name} {number}")
            producer.flush(20)
            try:
                producer.send_offsets_to_transaction([confluent_kafka.TopicPartition(self.jobs, 0, number)],
                                                     group.consumer_group_metadata(), 20)
                if number == 2 and abort:
                    producer.abort_transaction(20)
                else:
                    producer.commit_transaction(20)
            except confluent_kafka.KafkaException:
                pass  # it has noticed; too late
        group.close()
        self.assertIsNotNone(fault.answer, "it was not late")
        self.reader.settle(1)
        return [text for text in self.visible() if text.startswith(name)], self.committed(name)[0]

    def test_a_plain_producer_is_torn(self):
        """By a late end: aborted, and visible. By late offsets: committed, and it will run again."""
        self.assertEqual(self.plain("end", self.END_LATE, abort=True)[0], ["end 1", "end 2"])
        self.assertEqual(self.plain("offsets", self.OFFSETS_LATE, abort=False), (["offsets 1", "offsets 2"], 1))


class Deaths(Proxied):
    """What dies or changes at a known moment of the transaction."""

    seconds = 35

    def killed_when(self, do, api):
        """The one that goes on in its place, and under its name."""
        fault = self.fault(do, api)
        self.put(1)
        until(lambda: fault.seen, 20, "the moment did not come", 0.001)
        time.sleep(0.2)
        self.a.kill()
        return self.driver("a", "transaction.timeout.ms=4000")

    def test_killed(self):
        """Before the offsets are sent: nothing of it is ever seen, and the job runs again, once. When the
        end has been sent: it counts, and nothing runs again."""
        self.a = self.working()
        self.a = self.killed_when("lose", TXN_OFFSET_COMMIT)
        self.reader.settle(1)
        self.assertEqual(len(self.visible()), 4, "a result of a transaction that nobody ended")
        self.expect_all()
        self.assertEqual(len(self.a.said("record .*")), 1)
        self.expect_offsets_at_end()

        self.a = self.killed_when("mute", END_TXN)
        self.expect_all()
        self.a.wait(r"assigned .*", 4)
        self.put(4)
        self.expect_all()
        self.assertEqual(len(self.a.said("record .*")), 4)
        self.expect_offsets_at_end()

    def rebalance_in_a_commit(self, a, b, protocol):
        """The member that joins gets nothing before the commit's outcome is known."""
        a.tell("hold")
        self.put(40)
        a.wait("record .*", 44)
        fault = self.proxy.add("delay", END_TXN, client=a.instance, seconds=3)
        a.tell("go")
        until(lambda: fault.seen, 20, "the moment did not come", 0.001)
        b = self.driver(b, protocol)
        until(lambda: len(a.owned()) == len(b.owned()) == 2, 40, lambda: f"{a.owned()} {b.owned()}")
        self.expect_all()
        self.assertEqual(b.said("record .*"), [], "what a had committed was read again")
        self.assertEqual(a.said("lost .*"), [])
        self.expect_offsets_at_end()
        self.assertEqual((a.leave(), b.leave()), (0, 0))

    def test_a_rebalance_in_a_commit(self):
        self.rebalance_in_a_commit(self.working(COOPERATIVE), "b", COOPERATIVE)
        self.rebalance_in_a_commit(self.working(EAGER, name="c"), "d", EAGER)

    def test_a_call_that_hangs(self):
        """It ends with a word of why, and a peer takes over."""
        a, b = self.working(), self.driver("b")
        until(lambda: len(a.owned()) == len(b.owned()) == 2, 40, lambda: f"{a.owned()} {b.owned()}")
        self.fault("lose", ADD_OFFSETS, times=10000)
        self.put(8)
        self.assertEqual(a.process.wait(100), 75)
        self.assertRegex("\n".join(a.lines), "fatal 75 publishing has hung for .* although the broker answers")
        self.expect_all()
        self.expect_offsets_at_end()


if __name__ == "__main__":
    unittest.main()
