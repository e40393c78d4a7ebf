"""Workers and a Kafka that is in trouble: results that pile up while it is away, offsets that somebody
has moved, metadata that is somebody else's, logs that are not what they were."""

import random

import confluent_kafka
from confluent_kafka.admin import AdminClient, NewTopic

import harness
import raw
from harness import Case, start, taking, until


class Away(Case):
    own_kafka = True
    seconds = 40

    def test_results_pile_up(self):
        """Jobs in flight end and wait; no more are begun than may be in flight; all come out. (Away for
        longer than the session lasts the worker would let its jobs go: then they run again.)"""
        worker = self.worker(jobs__max_in_flight=40, properties=["session.timeout.ms=40000"])
        sent = self.produce(*[start(f"s{i}", "half-second" if i % 2 else "any") for i in range(300)])
        until(lambda: len(self.sim.ledger()) > 20, 20, "nothing has begun", 0.005)
        self.kafka.kill()
        self.results.close()
        harness.time.sleep(8)
        made = len(self.sim.ledger())
        self.assertLess(made, 300, "the broker went away too late to mean anything")
        harness.time.sleep(4)
        self.assertEqual(len(self.sim.ledger()), made, "jobs are begun though results cannot go out")
        self.assertTrue(worker.running)
        self.assertGreater(worker.metric("results_unpublished"), 0)
        self.kafka.start()
        self.results = harness.Reader(self.kafka_address, self.results_topic)
        self.addCleanup(self.results.close)
        events = self.events_of(sent, limit=90)
        self.assertEqual([e for e in events if e.outcome != "ready"], [])
        self.assert_clean(sent)
        self.assertEqual(len(self.sim.ledger()), 300, "a session got a second sandbox")


class Offsets(Case):
    """What the group has committed is not what the worker has left there. Its jobs run again where they
    must: the sandboxes are the same, and nobody crashes."""

    partitions = 1
    seconds = 15

    def done_before(self):
        worker = self.worker("first")
        sent = self.produce(*[start(f"s{i}") for i in range(10)])
        self.events_of(sent)
        self.assert_offsets_at_end()
        self.assertEqual(worker.end(), 0)
        return sent

    def after(self, sent, again):
        """A worker on what is there now: so many of the jobs have a second event, and nothing is new."""
        worker = self.worker("second")
        more = self.produce(start("more"))
        self.events_of(more)
        self.assert_offsets_at_end()
        self.results.settle()
        self.assertEqual(len(self.results.events), len(sent) + again + 1)
        self.assertEqual([e for e in self.results.events if e.outcome != "ready"], [])
        self.assertEqual(len(self.sim.ledger()), len(sent) + 1, "a session got a second sandbox")
        self.assert_ledger_is_what_was_announced()
        return worker

    def move(self, offset, metadata):
        raw.commit_offset(self.kafka_address, self.group, self.jobs_topic, 0, offset, metadata)

    def test_moved_back_by_a_tool(self):
        sent = self.done_before()
        self.move(4, "")
        worker = self.after(sent, 6)
        self.assertEqual(worker.metric("kafka_offsets_replayed_total"), 0)

    def test_moved_forward_by_a_tool(self):
        """What was skipped is skipped."""
        sent = self.done_before()
        skipped = self.produce(start("a"), start("b"))
        self.move(12, "")
        self.after(sent, 0)
        self.assertEqual({s.session for s in skipped} & {e["session_id"] for e in self.results.events}, set())

    def test_metadata_of_somebody_else(self):
        dice = random.Random(7)
        texts = ["hello", "{\"offset\": 3}", "1" * 4096, "".join(dice.choice("ABCabc012+/") for _ in range(64))]
        sent = self.done_before()
        for i, text in enumerate(texts):
            self.move(4, text)
            worker = self.after(sent, 6) if i == 0 else self.worker(f"again-{i}")
            until(lambda: worker.metric("kafka_offsets_replayed_total") == 1, 20, "not counted")
            self.assertIn("is not ours or damaged", worker.log.read_text())
            self.assert_offsets_at_end()
            self.assertEqual(worker.end(), 0)
        self.assertEqual(len(self.sim.ledger()), len(sent) + 1, "a session got a second sandbox")

    def test_metadata_of_another_offset(self):
        """Ours, but moved: it would tell of jobs as done that are not."""
        worker = self.worker("first")
        stuck = self.produce(start("stuck", "sim-stuck-creating"))
        sent = self.produce(*[start(f"s{i}") for i in range(5)])
        self.events_of(sent)
        text = until(self.metadata, 10, "no metadata")
        worker.kill()
        until(lambda: self.try_move(3, text), 30, "the group does not end", 0.5)
        second = self.worker("second")
        until(lambda: second.metric("kafka_offsets_replayed_total") == 1, 20, "not counted")
        more = self.produce(start("more"))
        self.events_of(more)
        self.results.settle()
        self.assertEqual(len(self.results.events), 5 + 3 + 1)
        self.assertEqual(stuck[0].offset, 0)

    def metadata(self):
        return raw.committed(self.kafka_address, self.group, self.jobs_topic, 0)[1]

    def try_move(self, offset, text):
        try:
            self.move(offset, text)
            return True
        except RuntimeError:
            return False

    def test_a_log_that_lost_its_beginning(self):
        sent = self.done_before()
        lost = self.produce(start("a"), start("b"))
        raw.delete_records(self.kafka_address, self.jobs_topic, 0, 12)
        self.after(sent, 0)
        self.assertEqual({s.session for s in lost} & {e["session_id"] for e in self.results.events}, set())

    @taking(30)
    def test_the_jobs_topic_made_anew(self):
        """While a worker reads it from its beginning: the new jobs are jobs, not ones that it knows."""
        self.worker()
        self.done("first", count=10)
        admin = AdminClient({"bootstrap.servers": self.kafka_address})
        admin.delete_topics([self.jobs_topic])[self.jobs_topic].result(30)
        until(self.made_anew, 20, "the topic cannot be made again")
        self.done("second", count=4)

    def made_anew(self):
        admin = AdminClient({"bootstrap.servers": self.kafka_address})
        try:
            admin.create_topics([NewTopic(self.jobs_topic, 1, 1)])[self.jobs_topic].result(30)
            return True
        except confluent_kafka.KafkaException:
            return False

    def done(self, name, count):
        self.produce(*[start(f"{name}-{i}") for i in range(count)])
        wanted = {f"{name}-{i}" for i in range(count)}
        self.results.wait(lambda events: wanted <= {e["session_id"] for e in events}, 60,
                          lambda events: f"{wanted - {e['session_id'] for e in events}} have no event")


if __name__ == "__main__":
    harness.unittest.main()
