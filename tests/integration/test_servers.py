"""Servers that die, say nothing or say the wrong thing; sandboxes that never come up."""

import harness
from harness import Case, start, until


class Servers(Case):
    seconds = 20

    def test_a_dead_server_is_reported_at_once(self):
        self.worker()
        began = harness.time.monotonic()
        event = self.one(start("s1", "sim-dead-server", timeouts={"launch": 20}))
        took = harness.time.monotonic() - began
        self.assertEqual(event.outcome, "server_exited", event.json)
        self.assertTrue(event["error.log_tail"].strip(), "no word of what the server said")
        self.assertLess(took, 20 / 4 * harness.PATIENCE)

    def test_a_wrong_body_is_never_ready(self):
        self.worker()
        event = self.one(start("s1", "sim-wrong-body", timeouts={"launch": 3}))
        self.assertIn(event.outcome, ("unhealthy", "server_timeout"), event.json)
        self.assertEqual(event["error.step"], "probe")
        self.assert_ledger_is_what_was_announced()

    def test_a_server_that_never_listens(self):
        self.worker()
        event = self.one(start("s1", "sim-never-listens", timeouts={"launch": 3}))
        self.assertEqual((event.outcome, event["error.step"]), ("server_timeout", "probe"), event.json)

    def test_stuck_in_creating(self):
        self.worker(sweep__every_seconds=1)
        began = harness.time.monotonic()
        event = self.one(start("s1", "sim-stuck-creating", timeouts={"create": 3}))
        took = harness.time.monotonic() - began
        self.assertEqual(event.outcome, "start_timeout", event.json)
        self.assertGreater(took, 2.5)
        self.assertLess(took, 3 + 4 * harness.PATIENCE)
        self.assertEqual(len(self.sim.live()), 1, "nobody can stop it yet")
        self.sim.advance(16 * 60)
        until(lambda: not self.sim.live(), 15, "it is still there after a sweep")

    def test_no_runners_anywhere(self):
        self.worker()
        event = self.one(start("s1", "sim-no-runners", timeouts={"create": 3}))
        self.assertEqual((event.outcome, event["error.retryable"]), ("no_capacity", True), event.json)
        self.assertEqual(self.sim.ledger(), [])

    def test_an_unknown_snapshot(self):
        self.worker()
        event = self.one(start("s1", "unknown"))
        self.assertEqual((event.outcome, event["error.retryable"]), ("snapshot_not_found", False), event.json)
        self.assertTrue(event["error.provider_message"], "the provider's own words")


if __name__ == "__main__":
    harness.unittest.main()
