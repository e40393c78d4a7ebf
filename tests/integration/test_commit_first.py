"""Commit, then destroy: a failure destroys nothing before readers can see its event."""

import harness
from harness import Case, start, until


class FrozenKafka(Case):
    own_kafka = True
    seconds = 25
    properties = ["session.timeout.ms=30000", "heartbeat.interval.ms=1000"]

    def test_no_stop_while_kafka_stands_still(self):
        self.worker()
        sent = self.produce(start("s1", "sim-never-listens", timeouts={"launch": 3}))
        until(lambda: [b for b in self.sim.ledger() if b["servers_started"]], 15, "no server was started")
        self.kafka.pause()
        harness.time.sleep(3 + 5)  # the job has failed, and five seconds more
        ledger = self.sim.ledger()
        self.assertEqual([b["state"] for b in ledger], ["started"])
        self.assertEqual(self.sim.requests("/stop$|^DELETE"), 0, "destroyed before the commit")
        self.kafka.resume()
        event = self.event_of(sent[0])
        self.assertEqual(event.outcome, "server_timeout")
        self.assertEqual(event["sandbox.cleanup"], "scheduled")
        until(lambda: not self.sim.live(), 15, "never destroyed")
        self.assertEqual([b["destroyed_by"] for b in self.sim.ledger()], ["stop"])


class EveryFailure(Case):
    seconds = 20

    def test_destroyed_after_its_event(self):
        self.worker()
        short = {"launch": 2, "create": 2}
        kinds = ["sim-dead-server", "sim-never-listens", "sim-wrong-body", "sim-bad-command"]
        sent = self.produce(*[start(f"s{i}", kinds[i % 4], timeouts=short) for i in range(40)],
                            start("stuck", "sim-stuck-creating", timeouts=short))
        events = {e["session_id"]: e for e in self.events_of(sent)}
        self.sim.advance(16 * 60)  # now the stuck one can be stopped, too
        until(lambda: not self.sim.live(), 30, lambda: f"never destroyed: {self.sim.live()}")
        for box in self.sim.ledger():
            event = events[box["name"].removeprefix(f"{self.group}.")]
            self.assertGreaterEqual(box["destroyed_at"], event.time_ms, f"{box['name']}: {event}")
        self.assert_clean(sent)


if __name__ == "__main__":
    harness.unittest.main()
