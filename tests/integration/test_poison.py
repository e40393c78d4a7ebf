"""A record that kills whoever parses it. It costs four lives, then it is a dead letter, and the jobs
around it never notice."""

import harness
from harness import Case, start, until


class Poison(Case):
    partitions = 4
    seconds = 50

    def bury_and_revive(self):
        """Starts again who has died; how many that were."""
        dead = [w for w in self.workers if not w.running]
        for worker in dead:
            self.assertEqual(worker.process.returncode, -harness.signal.SIGABRT, worker.tail())
            worker.launch()
        return len(dead)

    def test_four_deaths_and_no_more(self):
        for _ in range(2):
            self.worker(breaks="record:BOOM:ABRT")
        until(lambda: all(w.metric("kafka_assigned_partitions") == 2 for w in self.workers), 20,
              "both have partitions")
        jobs = [start(f"s{i}", timeout_seconds=120) for i in range(1000)]
        deadly = start("deadly", metadata={"note": "BOOM"})
        sent = self.produce(*jobs[:40], deadly, *jobs[40:], headers=[("traceparent", b"00-1-2-03")])

        deaths = 0

        def verdict():
            nonlocal deaths
            deaths += self.bury_and_revive()
            self.assertLessEqual(deaths, 4)
            self.dead.poll(0.1)
            return self.dead.events

        until(verdict, 90, lambda: f"no verdict after {deaths} deaths", 0)
        self.assertEqual(deaths, 4)
        letter, = self.dead.settle()
        self.assertEqual(letter.json, deadly, "the original bytes")
        self.assertEqual(letter.key, "deadly")
        self.assertEqual(letter.headers["traceparent"], "00-1-2-03")
        self.assertEqual(letter.headers["__connect.errors.offset"], str(sent[40].offset))

        events = self.events_of(sent, limit=60)
        self.assertEqual(events[40].outcome, "poison", events[40].json)
        self.assertEqual([e for e in events if e.outcome != "ready"], [events[40]])
        self.assertEqual(self.bury_and_revive(), 0)
        self.assert_clean(sent)
        self.assertEqual(len(self.sim.ledger()), len(jobs), "a session got a second sandbox")


if __name__ == "__main__":
    harness.unittest.main()
