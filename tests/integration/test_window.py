"""Some jobs of a partition are stuck, the first of them and others here and there, and all the rest
finish. Taking stops where what is finished above the first stuck one can no longer be noted down;
what is noted fits Kafka's metadata; a worker that is killed there publishes nothing twice; and when
the stuck ones end, the rest goes on."""

import random

import harness
import raw
from harness import SOAK, start, until

WINDOW = 24000  # offsets from the first unfinished one on
METADATA = 4096  # characters, Kafka's limit
NEVER = {"timeout_seconds": 3600, "timeouts": {"create": 3600}}


class Window(harness.Case):
    partitions = 1
    result_partitions = 1
    jobs = 30000
    stuck = 950 if SOAK else 200
    made = 30000 if SOAK else 1000  # the others are refused at once: what they cost is a dead letter
    seconds = 60

    def work(self):
        dice = random.Random(5)
        stuck = {0, *dice.sample(range(1, WINDOW), self.stuck - 1)}
        made = {*range(self.made // 2), *range(self.jobs - self.made // 2, self.jobs)}  # on both sides
        for i in range(self.jobs):
            if i in stuck:
                yield start(f"stuck{i}", "stuck", server={"kind": "none"}, **NEVER)
            elif i in made:
                yield start(f"s{i}", server={"kind": "none"})
            else:
                yield {"type": "start-session", "session_id": f"s{i}", "env": 7}

    def boot(self, how):
        self.sim.control("POST", "world", {"snapshots": {"stuck": {"boot": how}}})

    def seen(self):
        self.results.poll(0.2)
        return len(self.results.events)

    def test_some_are_stuck(self):
        limit = 900 if SOAK else 120
        self.boot("stuck")
        worker = self.worker(breaks="before:txn.commit:20:KILL")
        work, sent = list(self.work()), []
        for first in range(0, self.jobs, 5000):
            sent += self.produce(*work[first:first + 5000])
        until(lambda: not worker.running, limit, "it has not died at its 20th transaction")
        worker.mend()
        worker.start()
        full = WINDOW - self.stuck
        until(lambda: self.seen() >= full, limit, lambda: f"{self.seen()} results of {full}", 0)
        self.results.settle(3)
        self.assertEqual(len(self.results.events), full, "more was taken than can be noted down")
        self.assertEqual(max(e.order for e in self.results.events), WINDOW - 1)
        self.assertGreaterEqual(worker.metric("jobs_in_flight"), self.stuck)
        where, metadata = raw.committed(self.kafka_address, self.group, self.jobs_topic, 0)
        print(f"{len(metadata)} characters of metadata for {full} finished jobs", flush=True)
        self.assertEqual(where, 0)
        self.assertTrue(self.stuck < len(metadata) <= METADATA, f"{len(metadata)} characters")

        worker.kill()  # all of it is finished, and only noted
        worker.start()
        until(lambda: worker.metric("jobs_skipped_total") >= full, 60,
              lambda: f"{worker.metric('jobs_skipped_total')} were passed over")
        self.results.settle(2)
        self.assertEqual(len(self.results.events), full, "something was published twice")

        self.boot("well")
        self.sim.advance(16 * 60)  # the provider gives the stuck ones up, and the next ones boot
        events = self.events_of(sent, limit)
        for job, event in zip(work, events):
            self.assertEqual(event.outcome, "invalid_job" if "env" in job else "ready")
        self.assert_clean(sent)


if __name__ == "__main__":
    harness.unittest.main()
