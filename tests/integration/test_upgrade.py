"""Two versions of the worker share a group while it is upgraded. What a later one has committed and
labelled is read by this one: nothing is made again, nothing is announced twice. What this one cannot
understand it says, and then no more than the announcement happens again."""

import base64
import struct
import zlib

import harness
import raw
from harness import start, until

HEADER, VERSION, SKIPPED = 33, 1, 4  # of the metadata: its length, and where what stands
STUCK = {"timeout_seconds": 3600, "timeouts": {"create": 3600}}


def as_of_later(metadata, offset, version=None, hint=b""):
    """The metadata as another version of the worker would have written it."""
    text = bytearray(base64.b64decode(metadata))
    if version:
        text[VERSION] = version
    text[SKIPPED] += len(hint)
    text[HEADER:HEADER] = hint
    crc = zlib.crc32(struct.pack("<q", offset) + bytes(text[:HEADER - 4]) + bytes(text[HEADER:]))
    text[HEADER - 4:HEADER] = struct.pack("<I", crc)
    return base64.b64encode(text).decode()


class Upgrade(harness.Case):
    partitions = 1
    finished = 40
    seconds = 20

    def half_done(self):
        """The first job is stuck, the others are done: all that is known of them is the metadata."""
        self.sim.control("POST", "world", {"snapshots": {"stuck": {"boot": "stuck"}}})
        worker = self.worker("before")
        sent = self.produce(start("stuck", "stuck", **STUCK), *[start(f"s{i}") for i in range(self.finished)])
        self.events_of(sent[1:])
        self.assertEqual(worker.end(), 0)
        offset, metadata = raw.committed(self.kafka_address, self.group, self.jobs_topic, 0)
        self.assertEqual(offset, 0)
        return sent, offset, metadata

    def rewrite(self, offset, metadata):
        raw.commit_offset(self.kafka_address, self.group, self.jobs_topic, 0, offset, metadata)

    def finish(self):
        """The stuck one is given up, and the next one of its name boots."""
        self.sim.control("POST", "world", {"snapshots": {"stuck": {"boot": "well"}}})
        self.sim.advance(16 * 60)

    def assert_made_once(self, sessions):
        names = [box["name"].split(".", 1)[1] for box in self.sim.ledger()]
        self.assertEqual({s: names.count(s) for s in sessions}, dict.fromkeys(sessions, 1))

    def test_hints_of_a_later_version_are_skipped(self):
        sent, offset, metadata = self.half_done()
        self.rewrite(offset, as_of_later(metadata, offset, hint=b"a hint of later on"))
        worker = self.worker("after")
        until(lambda: worker.metric("jobs_skipped_total") == self.finished, 20, "they were not passed over")
        self.assertEqual(worker.metric("kafka_offsets_replayed_total"), 0)
        self.finish()
        self.assertEqual({e.outcome for e in self.events_of(sent)}, {"ready"})
        self.assert_made_once({f"s{i}" for i in range(self.finished)})
        self.assert_clean(sent)

    def test_labels_of_a_later_version_are_no_drift(self):
        """Side by side: the later one has made the sandboxes, this one is asked for them."""
        worker = self.worker()
        sent = self.produce(*[start(f"s{i}") for i in range(5)])
        made = self.events_of(sent)
        for box in self.sim.ledger():
            later = {**box["labels"], "session-worker/version": "2", "session-worker/later": "something"}
            status, answer = self.sim.api("PUT", f"/sandbox/{box['id']}/labels", {"labels": later})
            self.assertEqual(status, 200, answer)
        again = self.produce(*[start(f"s{i}", sandbox={"on_drift": "fail"}) for i in range(5)])
        for first, event in zip(made, self.events_of(again)):
            self.assertEqual((event.outcome, event["sandbox.id"]), ("ready", first["sandbox.id"]), event.json)
        self.assert_made_once({f"s{i}" for i in range(5)})
        self.assert_clean(sent + again)
        self.assertEqual(worker.end(), 0)

    def test_what_is_not_understood_makes_nothing_again(self):
        sent, offset, metadata = self.half_done()
        self.rewrite(offset, as_of_later(metadata, offset, version=2))
        worker = self.worker("after")
        until(lambda: worker.metric("kafka_offsets_replayed_total") == 1, 20, "nobody has noticed")
        self.assertIn("jobs above it run again", worker.log.read_text())
        self.finish()
        ready = worker.metric
        until(lambda: ready("jobs_completed_total", outcome="ready") == self.finished + 1, 30,
              lambda: f"{ready('jobs_completed_total')} have ended")
        self.results.settle()
        boxes = {}
        for event in self.results.events:
            self.assertEqual(event.outcome, "ready")
            boxes.setdefault(event.ce_id, set()).add(event["sandbox.id"])
        self.assertEqual(boxes.keys(), {s.ce_id for s in sent})
        self.assertEqual([b for b in boxes.values() if len(b) != 1], [], "one job, two sandboxes")
        self.assert_made_once({f"s{i}" for i in range(self.finished)})
        self.assert_ledger_is_what_was_announced()
        self.assert_offsets_at_end()


if __name__ == "__main__":
    harness.unittest.main()
