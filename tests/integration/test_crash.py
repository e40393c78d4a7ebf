"""One of two workers is killed in the middle. Nothing is lost, nothing is visible twice, and no
session ever gets a second sandbox: what the dead one had made is found by its name."""

import random

import harness
from harness import Case, start, until


class Crash(Case):
    seconds = 45

    def kill_when(self, moment, count=120):
        """Kills the first worker when moment() says so; all must end as if nothing had happened."""
        first, _ = self.worker(), self.worker()
        until(lambda: first.metric("kafka_assigned_partitions") == self.partitions / 2, 20, "both have partitions")
        sent = self.produce(*[start(f"s{i}", "half-second" if i % 2 else "any", timeout_seconds=120)
                              for i in range(count)])
        until(moment, 30, "the moment did not come", 0.005)
        first.kill()
        events = self.events_of(sent, limit=100)
        self.assertEqual([e for e in events if e.outcome != "ready"], [])
        self.assert_clean(sent)
        made = [box["name"] for box in self.sim.ledger()]
        self.assertEqual(len(made), count, "a session got a second sandbox")

    def seen(self):
        self.results.poll(0.01)
        return len(self.results.events)

    def test_while_the_first_ones_are_being_made(self):
        self.kill_when(lambda: len(self.sim.ledger()) >= 10)

    def test_at_the_first_result(self):
        self.kill_when(lambda: self.seen() >= 1)

    def test_in_the_middle_of_the_results(self):
        self.kill_when(lambda: self.seen() >= 50)

    def test_again_and_again(self):
        """Each of three workers is killed in turn and comes back under its own name."""
        dice = random.Random(7)
        workers = [self.worker() for _ in range(3)]
        sent = self.produce(*[start(f"s{i}", "half-second" if i % 2 else "any", timeout_seconds=120)
                              for i in range(200)])
        for worker in workers:
            harness.time.sleep(dice.uniform(0.2, 1.5))
            worker.kill()
            worker.launch()
        events = self.events_of(sent, limit=120)
        self.assertEqual([e for e in events if e.outcome != "ready"], [])
        self.assert_clean(sent)
        self.assertEqual(len(self.sim.ledger()), 200, "a session got a second sandbox")


if __name__ == "__main__":
    harness.unittest.main()
