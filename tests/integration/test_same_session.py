"""Many jobs of the same sessions: one lane each, record order, never two sandboxes."""

import random

import harness
from harness import Case, delete, start, stop


class SameSession(Case):
    seconds = 70

    def test_a_thousand_jobs_over_fifty_sessions(self):
        dice = random.Random(11)
        makers = [start, start, lambda s: start(s, mode="attach"), lambda s: start(s, mode="resume"),
                  lambda s: start(s, mode="create"), stop, delete]
        self.worker()
        self.worker()
        jobs = [dice.choice(makers)(f"s{dice.randrange(50)}") for _ in range(1000)]
        for job in jobs:
            job["timeout_seconds"] = 120
        sent = self.produce(*jobs)
        events = self.events_of(sent, limit=150)

        may_be = {"start-session": {"ready", "cancelled", "not_found", "session_exists"},
                  "stop-session": {"stopped", "not_found"}, "delete-session": {"deleted", "not_found"}}
        wrong = [e for e, s in zip(events, sent) if e.outcome not in may_be[s.job["type"]]]
        self.assertEqual(wrong, [])
        self.assertGreater(sum(e.outcome == "ready" for e in events), 50)
        self.assert_clean(sent)

        last = {}
        for event in sorted(self.results.events, key=lambda e: (e.partition, e.offset)):
            self.assertGreater(event.order, last.get(event.key, -1), f"out of order: {event}")
            last[event.key] = event.order

    def test_a_stop_right_behind_cancels(self):
        self.worker()
        sent = self.produce(start("s1", "sim-slow"), stop("s1"))
        cancelled, stopped = self.events_of(sent)
        self.assertEqual(cancelled.outcome, "cancelled", cancelled.json)
        self.assertIn(stopped.outcome, ("stopped", "not_found"), stopped.json)
        self.assert_clean(sent)
        self.assertEqual(self.sim.live(), {})

    def test_a_delete_right_behind_cancels(self):
        self.worker()
        sent = self.produce(start("s1", "sim-slow"), delete("s1"))
        cancelled, deleted = self.events_of(sent)
        self.assertEqual(cancelled.outcome, "cancelled", cancelled.json)
        self.assertIn(deleted.outcome, ("deleted", "not_found"), deleted.json)
        self.assert_clean(sent)
        self.assertEqual(self.sim.live(), {})

    def test_a_cancelled_start_of_a_kept_session_destroys_nothing(self):
        self.worker()
        made = self.one(start("s1", "sim-slow"))
        self.assertEqual(self.one(stop("s1")).outcome, "stopped")
        sent = self.produce(start("s1", "sim-slow"), stop("s1"))
        cancelled, stopped = self.events_of(sent)
        self.assertEqual((cancelled.outcome, cancelled["sandbox.cleanup"]), ("cancelled", "kept"))
        self.assertEqual(stopped.outcome, "stopped")
        harness.time.sleep(3)
        self.assertEqual(list(self.sim.live()), [made["sandbox.id"]])


if __name__ == "__main__":
    harness.unittest.main()
