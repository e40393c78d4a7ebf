"""Every worker is killed with hundreds of sessions half made, and none comes back for two hours. Then
nothing lives but what committed events name, what was kept and not yet announced, and what is
provisional and in error, which nobody but a sweep can destroy. A worker that returns mends the rest."""

import collections

import harness
from harness import start, until

KINDS = ["any", "half-second", "slow-server", "any", "half-second", "slow-server", "any", "half-second",
         "slow-server", "breaks-late"]

ENDS = {"breaks-late": ("create_failed", "start_failed")}


class AllDie(harness.Case):
    sessions = 500
    seconds = 40

    def test_nobody_comes_back_for_two_hours(self):
        # The first dies between KEEP and commit, and with it the rest.
        breaks = ["answered:call.keep.POST/autodelete/:60:KILL", None, None]
        workers = [self.worker(sweep__every_seconds=3600, breaks=b) for b in breaks]
        until(lambda: all(w.metric("kafka_assigned_partitions") for w in workers), 20, "all have partitions")
        sent = self.produce(*[start(f"early{i}") for i in range(60)])
        self.events_of(sent)
        sent += self.produce(*[start(f"s{i}", KINDS[i % len(KINDS)], timeout_seconds=120)
                              for i in range(self.sessions)])
        until(lambda: not workers[0].running, 30, "the first has not died", 0.01)
        for worker in workers:
            worker.kill()
        self.results.settle(2)
        self.assertLess(len(self.results.events), self.sessions / 2, "hardly anything was half made")
        for _ in range(24):
            self.sim.advance(300)

        found = collections.Counter()
        named = harness.history.announced(self.results.events)
        for box in self.sim.ledger():
            alive = box["destroyed_at"] is None
            if box["id"] in named:
                self.assertTrue(alive, f"announced, and destroyed: {box}")
                found["announced"] += 1
            elif alive and not box["ephemeral"]:
                found["kept, not yet announced"] += 1
            elif alive:
                self.assertEqual(box["state"], "error", f"lives, and nobody knows of it: {box}")
                found["provisional, in error"] += 1
            else:
                found["gone"] += 1
        print(dict(found), flush=True)
        for what in ("announced", "kept, not yet announced", "provisional, in error", "gone"):
            self.assertGreater(found[what], 0, found)

        self.worker(name="returned", ready=False)
        events = self.events_of(sent, limit=60)
        wrong = [e for s, e in zip(sent, events) if e.outcome not in ENDS.get(s.job["sandbox"]["snapshot"], ("ready",))]
        self.assertEqual(wrong, [], "ended otherwise than they should")
        self.assert_clean(sent)


if __name__ == "__main__":
    harness.unittest.main()
