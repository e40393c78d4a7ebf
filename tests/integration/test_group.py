"""Living in a consumer group: idle for long, and with others that come and go under load."""

import threading

import harness
from harness import Case, start, until


class Idle(Case):
    seconds = 30

    def test_an_idle_worker_stays(self):
        worker = self.worker(properties=["max.poll.interval.ms=6000"])
        until(lambda: worker.metric("kafka_assigned_partitions") == self.partitions, 15, "assigned")
        harness.time.sleep(15)
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


if __name__ == "__main__":
    harness.unittest.main()
