"""The lease: a sandbox is provisional until it is kept, and a stop destroys only what is provisional."""

import harness
from harness import Case, start, taking, until

KEEP = "/autodelete/"


class Lease(Case):
    seconds = 20

    def keeps_sent(self):
        return self.sim.requests("autodelete")

    def test_a_failure_is_destroyed_by_stop(self):
        self.worker()
        event = self.one(start("s1", "sim-dead-server"))
        self.assertEqual(event["sandbox.cleanup"], "scheduled")
        until(lambda: not self.sim.live(), 15, "never destroyed")
        box, = self.sim.ledger()
        self.assertEqual(box["destroyed_by"], "stop")
        self.assertTrue(box["ephemeral"])
        self.assertEqual(self.sim.requests("^DELETE /sandbox"), 0)
        self.assert_careful()

    def test_a_stop_that_comes_after_keep_destroys_nothing(self):
        """Somebody keeps the sandbox while its job is failing: it stays, whatever the event says."""
        self.worker()
        sent = self.produce(start("s1", "sim-never-listens", timeouts={"launch": 3}))
        box, = until(lambda: [b for b in self.sim.ledger() if b["servers_started"]], 15, "no server was started")
        status, _ = self.sim.api("POST", f"/sandbox/{box['id']}/autodelete/-1")
        self.assertEqual(status, 201)
        self.assertEqual(self.event_of(sent[0]).outcome, "server_timeout")
        harness.time.sleep(5)  # its destroy, and two sweeps
        self.assertEqual(list(self.sim.live()), [box["id"]])
        self.assertEqual(self.sim.requests("^DELETE /sandbox"), 0)

    def test_a_stop_already_on_its_way_only_stops(self):
        """The worker has seen it provisional; it is kept before the stop arrives."""
        self.worker()
        sent = self.produce(start("s1", "sim-never-listens", timeouts={"launch": 3}))
        box, = until(lambda: [b for b in self.sim.ledger() if b["servers_started"]], 15, "no server was started")
        self.sim.fault("delay_ms", f"/api/sandbox/{box['id']}", "GET", delay_ms=2000, times=1000)
        self.event_of(sent[0])
        harness.time.sleep(0.7)  # the look that comes before the stop is answered, but not yet here
        status, _ = self.sim.api("POST", f"/sandbox/{box['id']}/autodelete/-1")
        self.assertEqual(status, 201)
        until(lambda: self.sim.requests("/stop$"), 15, "no stop came")
        harness.time.sleep(3)
        self.assertEqual([b["state"] for b in self.sim.live().values()], ["stopped"])

    def test_keep_whose_answer_is_lost_is_asked_again(self):
        self.worker()
        self.sim.fault("lose_answer", KEEP)
        sent = self.produce(start("s1"))
        self.assertEqual(self.event_of(sent[0]).outcome, "ready")
        self.assert_clean(sent)

    @taking(70)
    def test_keep_lost_at_the_deadline_leaves_nothing_unnamed(self):
        """KEEP goes through, but no answer says so, and nothing can be learned any more before the
        deadline: the event names the sandbox as kept, and nothing destroys it."""
        self.worker()
        self.sim.fault("lose_answer", KEEP, times=1000)
        sent = self.produce(start("s1", timeout_seconds=5))
        until(self.keeps_sent, 15, "no KEEP came", 0.01)
        self.sim.fault("status", "/api/sandbox/", method="GET", status=503, times=1000)
        event = self.event_of(sent[0], limit=90)  # the worker goes on asking for a minute
        self.sim.no_faults()
        if event.outcome != "ready":
            self.assertEqual(event["sandbox.cleanup"], "kept", event.json)
        harness.time.sleep(5)
        self.assertEqual(list(self.sim.live()), [event["sandbox.id"]])
        self.assert_clean(sent)

    def test_every_body_has_its_type_and_no_list_is_unfiltered(self):
        """Watched by the simulator over one of everything, sweeps included."""
        self.worker(sweep__every_seconds=1)
        kinds = ["any", "sim-dead-server", "sim-wrong-body", "sim-error", "half-second"]
        sent = self.produce(*[start(f"s{i}", kind, timeouts={"launch": 2}) for i, kind in enumerate(kinds)])
        self.events_of(sent)
        harness.time.sleep(3)
        stats = self.sim.stats()
        self.assertGreater(sum(stats["requests"]["GET /sandbox"].values()), 0, "no sweep has listed")
        self.assertEqual(stats["violations"], {})


class Overtaken(Case):
    sim_options = ("--stop-ms", "3000")  # it is "being destroyed" for that long
    seconds = 20

    def test_keep_on_one_that_is_being_destroyed_is_not_taken_for_kept(self):
        self.worker(jobs__attempts=10)
        self.sim.fault("status", KEEP, status=503, times=1000)
        sent = self.produce(start("s1"))
        until(lambda: self.sim.requests("^other$"), 15, "no KEEP was refused", 0.01)
        lost, = self.sim.live()
        status, _ = self.sim.api("POST", f"/sandbox/{lost}/stop")
        self.assertLess(status, 300)
        self.sim.no_faults()
        event = self.event_of(sent[0])
        self.assertGreater(self.sim.requests("autodelete"), 0, "no KEEP came while it was being destroyed")
        self.assert_ledger_is_what_was_announced()
        self.assertNotIn(lost, self.sim.live())
        if event.outcome == "ready":
            self.assertNotEqual(event["sandbox.id"], lost)
        self.assert_clean(sent)


if __name__ == "__main__":
    harness.unittest.main()
