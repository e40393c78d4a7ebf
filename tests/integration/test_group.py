"""Living in a consumer group: idle for long, and with others that come and go under load."""

import random
import re
import threading

import harness
from harness import SOAK, Case, start, until


class Idle(Case):
    idle, poll = (600, 60) if SOAK else (15, 6)  # seconds; the longest that it may not poll
    seconds = 30

    def test_an_idle_worker_stays(self):
        worker = self.worker(properties=[f"max.poll.interval.ms={self.poll * 1000}"])
        until(lambda: worker.metric("kafka_assigned_partitions") == self.partitions, 15, "assigned")
        harness.time.sleep(self.idle)
        self.assertEqual(worker.metric("kafka_rebalances_total", event="lost"), 0)
        self.assertEqual(worker.metric("kafka_rebalances_total", event="revoked"), 0)
        self.assertEqual(worker.metric("kafka_assigned_partitions"), self.partitions)
        began = harness.time.monotonic()
        self.assertEqual(self.one(start("s1")).outcome, "ready")
        self.assertLess(harness.time.monotonic() - began, 5 * harness.PATIENCE)


class Rebalance(Case):
    seconds = 40
    strategy = "cooperative-sticky"
    protocol = "COOPERATIVE"

    def test_a_second_worker_joins_and_leaves_under_load(self):
        properties = [f"partition.assignment.strategy={self.strategy}"]
        first = self.worker(properties=properties)
        sent, enough = [], threading.Event()

        def load():
            for i in range(400):
                sent.extend(self.produce(start(f"s{i}", "half-second" if i % 4 == 0 else "any",
                                               timeout_seconds=120)))
                if enough.wait(0.04):
                    return

        producer = threading.Thread(target=load)
        producer.start()
        self.addCleanup(producer.join)
        self.addCleanup(enough.set)
        harness.time.sleep(2)
        second = self.worker(properties=properties)
        until(lambda: second.metric("kafka_assigned_partitions") == self.partitions / 2, 20, "the second has its half")
        until(lambda: second.metric("jobs_completed_total") > 20, 20, "the second has worked")
        self.assertEqual(second.end(), 0)
        until(lambda: first.metric("kafka_assigned_partitions") == self.partitions, 20, "the first has all again")
        producer.join(60)
        events = self.events_of(sent, limit=60)
        self.assertEqual([e for e in events if e.outcome != "ready"], [])
        self.assert_clean(sent)
        self.assertEqual(len(self.sim.ledger()), len(sent), "a session got a second sandbox")
        self.assertEqual(first.metric("kafka_rebalances_total", event="lost"), 0)


class RebalanceEager(Rebalance):
    strategy = "range,roundrobin"


class ComeAndGo(Case):
    """Workers are added and removed all the time."""

    changes, apart, longest = (60, 5, 30) if SOAK else (4, 3, 4)  # and seconds of the longest job
    seconds = 40

    def test_counts_are_exact(self):
        dice = random.Random(3)
        boots = {f"boots-{n}": {"boot_ms": n * 1000} for n in range(1, self.longest + 1)}
        self.sim.control("POST", "world", {"snapshots": boots})
        workers, sent, enough = [self.worker(), self.worker()], [], threading.Event()

        def load():
            while not enough.wait(0.1):
                sent.extend(self.produce(start(f"s{len(sent)}", dice.choice(list(boots)), timeout_seconds=300)))

        producer = threading.Thread(target=load)
        producer.start()
        self.addCleanup(producer.join)
        self.addCleanup(enough.set)
        for i in range(self.changes):
            harness.time.sleep(self.apart)
            if i % 2 == 0:
                workers.append(self.worker(f"added-{i}", ready=False))
            else:
                self.assertEqual(workers.pop(0).end(), 0)
        enough.set()
        producer.join(30)
        self.assertEqual([e for e in self.events_of(sent, limit=60 + self.longest) if e.outcome != "ready"], [])
        self.assert_clean(sent)
        self.assertEqual(len(self.sim.ledger()), len(sent), "a session got a second sandbox")


class Drain(Case):
    seconds = 25

    def test_sigterm_under_load(self):
        """What is finished is published, the group is left in time, the rest goes to another."""
        first = self.worker(drain__timeout_seconds=2)
        sent = self.produce(*[start(f"s{i}", "sim-slow" if i % 3 == 0 else "half-second", timeout_seconds=120)
                              for i in range(90)])
        until(lambda: len(self.sim.ledger()) == 90, 20, "not all are under way", 0.01)
        began = harness.time.monotonic()
        self.assertEqual(first.end(), 0)
        self.assertLess(harness.time.monotonic() - began, 2 + 3 * harness.PATIENCE)
        done = {e.ce_id for e in self.results.settle(0.5)}
        self.assertEqual(len(done), 60, "those that could be finished in time are published, and no others")
        asked = {b["name"]: sum(b["requests"].values()) for b in self.sim.ledger()}
        self.worker(ready=False)
        self.assertEqual([e for e in self.events_of(sent) if e.outcome != "ready"], [])
        finished = {f"{self.prefix}.{s.session}" for s in sent if s.ce_id in done}
        again = [b["name"] for b in self.sim.ledger() if b["name"] in finished and
                 sum(b["requests"].values()) != asked[b["name"]]]
        self.assertEqual(again, [], "finished jobs ran again")
        self.assert_clean(sent)
        self.assertEqual(len(self.sim.ledger()), 90)


class Handover(Case):
    jobs = 1000
    seconds = 40

    def test_a_thousand_in_flight_hold_up_no_rebalance(self):
        first = self.worker()
        sent = self.produce(*[start(f"s{i}", "sim-slow", timeout_seconds=120) for i in range(self.jobs)])
        until(lambda: first.metric("jobs_in_flight") == self.jobs, 20, "not all are in flight", 0.02)
        second = self.worker()
        until(lambda: second.metric("kafka_assigned_partitions") == self.partitions / 2, 20, "the second has its half")
        revoked, assigned = (self.seen(first, what) for what in ("partitions revoked", "partition assigned"))
        self.assertLess(assigned - revoked, 2 + 3 * harness.PATIENCE, "seconds without partitions")
        self.assertEqual([e for e in self.events_of(sent, limit=90) if e.outcome != "ready"], [])
        self.assert_clean(sent)
        self.assertEqual(len(self.sim.ledger()), self.jobs, "a session got a second sandbox")

    def seen(self, worker, what):
        """When its log says so for the last time, in seconds of the day."""
        times = re.findall(rf'T(\d+):(\d+):([\d.]+)Z .*"{what}"', worker.log.read_text())
        hours, minutes, seconds = times[-1]
        return int(hours) * 3600 + int(minutes) * 60 + float(seconds)


class PollExceeded(Case):
    properties = ["session.timeout.ms=3000", "heartbeat.interval.ms=300", "max.poll.interval.ms=5000"]
    seconds = 30

    def test_a_loop_that_stands_still_loses_its_partitions_and_gets_them_back(self):
        """Its heart beats on, but it does not poll: the group takes its partitions away."""
        stuck = self.worker(breaks="before:call.launch.GET/preview-url:10:WAIT")
        peer = self.worker()
        until(lambda: peer.metric("kafka_assigned_partitions") == self.partitions / 2, 20, "both have partitions")
        sent = self.produce(*[start(f"s{i}", timeout_seconds=120) for i in range(60)])
        self.events_of(sent)
        self.assertGreater(stuck.metric("kafka_rebalances_total", event="lost"), 0)
        until(lambda: stuck.metric("kafka_assigned_partitions") == self.partitions / 2, 30, "it has its half again")
        before = stuck.metric("jobs_completed_total")
        more = self.produce(*[start(f"more{i}") for i in range(40)])
        self.assertEqual([e for e in self.events_of(sent + more) if e.outcome != "ready"], [])
        self.assertGreater(stuck.metric("jobs_completed_total"), before, "it does not work any more")
        self.assert_clean(sent + more)
        self.assertEqual(len(self.sim.ledger()), len(sent + more), "a session got a second sandbox")


if __name__ == "__main__":
    harness.unittest.main()
