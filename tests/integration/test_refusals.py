"""What is no job is refused by name, lands in the dead letters as it came, and holds up nobody."""

import json

import harness
from harness import Case, start


class Refusals(Case):
    partitions = 1
    seconds = 15

    def refused(self, value, key, code="invalid_job", says="", headers=None):
        """Puts a record in with a good job behind it: it is refused, the good one is ready."""
        bad = self.produce(value, key=key, headers=headers)[0]
        good = self.one(start(f"good-{bad.offset}"))
        self.assertEqual(good.outcome, "ready", good.json)
        self.dead.settle(0.3)
        letter = next(d for d in self.dead.events
                      if d.headers["__connect.errors.offset"] == str(bad.offset))
        self.assertEqual(letter.headers["__connect.errors.topic"], self.jobs_topic)
        self.assertEqual(letter.headers["__connect.errors.partition"], "0")
        self.assertIn(says, letter.headers["__connect.errors.exception.message"])
        self.assertEqual(letter.key, key)
        event = next((e for e in self.results.settle(0.3) if e.ce_id == bad.ce_id), None)
        if event is not None:
            self.assertEqual(event.outcome, code, event.json)
            self.assertIn(says, event["error.message"])
        return letter, event

    def test_each_is_refused_and_the_partition_goes_on(self):
        self.worker()
        job = start("s1", metadata={"k": 1})

        letter, event = self.refused(job, None, says="key")
        self.assertEqual(event["session_id"], "s1")
        self.assertEqual(json.loads(letter.raw), job, "the original bytes")

        _, event = self.refused(job, "s2", says="key")
        self.assertIsNotNone(event)
        _, event = self.refused(b"{ no json", "s3")
        self.assertEqual(event["session_id"], "s3")
        letter, event = self.refused(b"\xff\xfe", None)
        self.assertIsNone(event, "nobody to tell")
        self.assertEqual(letter.raw, b"\xff\xfe")
        letter, event = self.refused(None, "s4")
        self.assertEqual(event["session_id"], "s4")
        self.assertIsNone(letter.raw)

        _, event = self.refused({"type": "dance-session", "session_id": "s5"}, "s5", "unsupported", "type")
        self.assertIsNotNone(event)
        _, event = self.refused(start("s6", env={"FOO": 7}), "s6", says="env.FOO must be a string")
        self.assertIsNotNone(event)
        _, event = self.refused(start("s7", sandbox={"auto_delete_minutes": 0}), "s7", says="auto_delete_minutes")
        self.assertIsNotNone(event)
        self.refused(b'{"type":"start-session","session_id":"s8","session_id":"s8"}', "s8")
        self.refused(b"[" * 40 + b"]" * 40, "s9")
        self.refused(json.dumps(start("s10", env={"A": "x" * 300000})).encode(), "s10")
        self.assertEqual([b["name"] for b in self.sim.ledger() if ".good-" not in b["name"]], [],
                         "a refused job made a sandbox")
        self.assert_offsets_at_end()

    def test_the_key_may_be_left_to_the_producer(self):
        self.worker(jobs__require_key=False)
        event = self.event_of(self.produce(start("s1"), key=None)[0])
        self.assertEqual((event.outcome, event["session_id"]), ("ready", "s1"))


if __name__ == "__main__":
    harness.unittest.main()
