"""One session from its first start to its end, as a user sees it. Short enough for valgrind."""

import harness
from harness import Case, delete, http, start, stop


class First(Case):
    delivery = "exactly_once"

    def begin(self):
        self.settings["kafka.delivery"] = self.delivery
        self.worker()

    def test_a_session_lives_and_ends(self):
        self.begin()
        sent = self.produce(start("s1", tenant="acme", metadata={"a": [1, None]}, job_id="j-1"))
        ready = self.event_of(sent[0])
        self.assertEqual(ready.outcome, "ready", ready.json)
        self.assertEqual(ready.key, "s1")
        self.assertEqual(ready["version"], 1)
        self.assertEqual(ready["job_id"], "j-1")
        self.assertEqual(ready["tenant"], "acme")
        self.assertEqual(ready["metadata"], {"a": [1, None]})
        self.assertEqual(ready["sandbox.status"], "RUNNING")
        self.assertEqual(ready["sandbox.outcome"], "created")
        self.assertEqual(ready["sandbox.name"], f"{self.group}.s1")
        for step in ("queue", "find", "create", "start", "launch", "probe", "keep", "total"):
            self.assertIn(step, ready["timings_ms"])
        self.assertEqual(ready.headers["ce_type"], "session-worker.session-ready.v1")
        self.assertEqual(ready.headers["ce_source"], f"/session-worker/{self.group}")
        self.assertEqual(ready.headers["ce_subject"], "s1")
        self.assertEqual(ready.headers["ce_specversion"], "1.0")
        self.assertTrue(ready.headers["content-type"].startswith("application/json"))

        # Ready means usable: the action server answers through its public address.
        status, body = http("GET", ready["server.url"].rstrip("/") + "/alive", headers={
            "X-Daytona-Preview-Token": ready["sandbox.preview_token"],
            "X-Daytona-Skip-Preview-Warning": "true"})
        self.assertEqual((status, body["status"]), (200, "ok"))

        stopped = self.one(stop("s1"))
        self.assertEqual((stopped.outcome, stopped["sandbox.id"]), ("stopped", ready["sandbox.id"]))
        again = self.one(start("s1"))
        self.assertEqual((again.outcome, again["sandbox.outcome"]), ("ready", "started"), again.json)
        self.assertEqual(again["sandbox.id"], ready["sandbox.id"])
        there = self.one(start("s1"))
        self.assertEqual((there.outcome, there["sandbox.outcome"]), ("ready", "adopted"), there.json)
        self.assertEqual([b["servers_started"] for b in self.sim.ledger()], [2], "one server a launch")
        gone = self.one(delete("s1"))
        self.assertEqual((gone.outcome, gone["sandbox.id"]), ("deleted", ready["sandbox.id"]))
        self.assertEqual(self.one(stop("s1")).outcome, "not_found")
        self.assertEqual(self.sim.live(), {})
        self.assert_offsets_at_end()

    def test_a_failure_says_what_and_where(self):
        self.begin()
        failed = self.one(start("s1", snapshot="sim-bad-command"))
        self.assertEqual(failed.outcome, "bad_command", failed.json)
        self.assertIn(failed["error.step"], ("launch", "probe"))
        self.assertIs(failed["error.retryable"], False)
        self.assertEqual(failed["sandbox.cleanup"], "scheduled")
        self.assertEqual(failed.headers["ce_type"], "session-worker.session-failed.v1")
        self.assert_ledger_is_what_was_announced()

    def test_what_came_with_the_job_goes_on_with_the_event(self):
        self.begin()
        trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
        sent = self.produce(start("s1"), headers={"traceparent": trace, "correlation-id": "c-7"})
        event = self.event_of(sent[0])
        self.assertEqual(event.headers["traceparent"], trace)
        self.assertEqual(event.headers["correlation-id"], "c-7")


class FirstAtLeastOnce(First):
    delivery = "at_least_once"


if __name__ == "__main__":
    harness.unittest.main()
