"""The judge of histories, given broken ones: each kind of wrong is found, and told with its story."""

import json
import pathlib
import subprocess
import sys
import tempfile
import unittest

TESTS = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(TESTS / "kafka"))

import history  # noqa: E402
from history import Event, History, Sent  # noqa: E402


def job(offset, session, **fields):
    return Sent({"type": "start-session", "session_id": session, **fields}, "jobs", 0, offset, time_ms=1000 * offset)


def result(sent, kind="session-ready", box=None, code=None, cleanup=None, seen_ms=None):
    value = {"type": kind, "session_id": sent.session,
             "sandbox": {"id": box, "cleanup": cleanup} if box else None,
             "error": {"code": code, "message": "why"} if code else None}
    return Event("results", 0, sent.offset, sent.session, {"ce_id": sent.ce_id}, json.dumps(value),
                 seen_ms=sent.time_ms + 100 if seen_ms is None else seen_ms)


def dead(sent):
    return Event("dead", 0, 0, headers={"__connect.errors.topic": sent.topic, "__connect.errors.partition": "0",
                                        "__connect.errors.offset": str(sent.offset)})


def box(i, session, created=1, destroyed=None):
    return {"id": i, "name": f"fleet.{session}", "state": "started", "created_at": created,
            "destroyed_at": destroyed, "destroyed_by": destroyed and "stop"}


class Histories(unittest.TestCase):
    seconds = 1

    def setUp(self):
        """A good one: two ready, one failed and cleaned up, one refused, one deleted."""
        self.jobs = [job(0, "a"), job(1, "b"), job(2, "c"), job(3, "d"), job(4, "b", type="delete-session")]
        self.events = [result(self.jobs[0], box="1"), result(self.jobs[1], box="2"),
                       result(self.jobs[2], "session-failed", "3", "server_exited", "scheduled"),
                       result(self.jobs[3], "session-failed", code="invalid_job"),
                       result(self.jobs[4], "session-deleted", "2")]
        self.dead = [dead(self.jobs[3])]
        self.ledger = [box("1", "a"), box("2", "b", destroyed=4000), box("3", "c", destroyed=2000)]
        self.offsets = {0: {"committed": 5, "metadata": "", "end": 5}, 1: {"committed": -1001, "metadata": "", "end": 0}}

    def history(self):
        return History(self.jobs, self.events, self.dead, self.ledger, self.offsets)

    def found(self):
        return [(f.kind, f.about) for f in self.history().findings()]

    def test_a_good_history(self):
        self.assertEqual(self.found(), [])
        self.assertIn("0 lost, 0 visible twice", self.history().verdict([]))

    def test_broken_histories(self):
        """Each break, made alone, is found, and nothing else is."""
        for say, harm, kind, about in (
                ("a result is missing", lambda: self.events.pop(3) and self.dead.clear(), "lost", "jobs/0/3"),
                ("a result is there twice", lambda: self.events.append(self.events[2]), "twice", "jobs/0/2"),
                ("a result of another job", lambda: self.events.append(result(job(9, "z"), "session-stopped")),
                 "stranger", "jobs/0/9"),
                ("a dead letter is missing", self.lose_dead, "dead", "jobs/0/3"),
                ("a dead letter of a good job", lambda: self.dead.append(dead(self.jobs[0])), "dead", "jobs/0/0"),
                ("a dead letter is there twice", lambda: self.dead.append(self.dead[0]), "dead", "jobs/0/3"),
                ("a ready sandbox is destroyed", lambda: self.ledger[0].update(destroyed_at=9, destroyed_by="stop"),
                 "destroyed", "jobs/0/0"),
                ("a failed job's sandbox lives", lambda: self.ledger[2].update(destroyed_at=None), "left", "fleet.c"),
                ("nobody knows of a sandbox", lambda: self.ledger.append(box("9", "z")), "left", "fleet.z"),
                ("a ready sandbox never was", lambda: self.ledger.pop(0), "ghost", "jobs/0/0"),
                ("two sandboxes at a time", lambda: self.ledger.append(box("4", "c", 1500, 1600)), "two", "fleet.c"),
                ("an offset is behind", lambda: self.offsets[0].update(committed=4), "behind", "0"),
                ("an offset is beyond", lambda: self.offsets[0].update(committed=6), "behind", "0"),
                ("a kept one is destroyed", self.keep_and_destroy, "destroyed", "jobs/0/2")):
            with self.subTest(say):
                self.setUp()
                harm()
                self.assertEqual(self.found(), [(kind, about)])

    def lose_dead(self):
        self.dead.clear()

    def keep_and_destroy(self):
        self.events[2] = result(self.jobs[2], "session-failed", "3", "server_exited", "kept")

    def test_deleted_twice(self):
        """A delete that ran again found nothing: the sandbox is gone all the same, and must be."""
        self.events[4] = result(self.jobs[4], "session-deleted")
        self.assertEqual(self.found(), [])
        self.ledger[1].update(destroyed_at=None)
        self.assertEqual(self.found(), [("left", "fleet.b")])

    def test_a_job_blamed_for_deaths(self):
        self.events[2] = result(self.jobs[2], "session-failed", code="poison")
        self.dead.append(dead(self.jobs[2]))
        self.assertEqual(self.found(), [("poison", "jobs/0/2")])

    def test_stalls(self):
        """Only time in which jobs wait counts."""
        jobs = [job(0, "a"), job(1, "b"), job(60, "c")]
        seen = [result(jobs[0], seen_ms=7500), result(jobs[1], seen_ms=8000), result(jobs[2], seen_ms=63000)]
        self.assertEqual(history.longest_stall(jobs, seen), 7.5)
        self.assertEqual(history.longest_stall(jobs[1:], seen), 7.0)
        self.assertEqual(history.longest_stall(jobs[2:], seen), 3.0)
        self.assertEqual(history.longest_stall([], []), 0)

    def test_the_command(self):
        with tempfile.TemporaryDirectory() as folder:
            program = [sys.executable, str(TESTS / "kafka" / "history.py"), folder]
            good = self.history()
            good.save(folder)
            judged = subprocess.run(program, capture_output=True, text=True)
            self.assertEqual(judged.returncode, 0, judged.stdout + judged.stderr)
            self.ledger[0].update(destroyed_at=9, destroyed_by="stop")
            bad = self.history()
            bad.notes = [(50, "worker-a killed"), (99000, "long after")]
            bad.save(folder)
            (pathlib.Path(folder) / "worker-a.log").write_text("x session=a y\nx session=aa\nsent jobs/0/0 z\n")
            judged = subprocess.run(program, capture_output=True, text=True)
            self.assertEqual(judged.returncode, 1)
            for told in ("1 wanted sandboxes destroyed", "the story of jobs/0/0 (session a)", "job jobs/0/0",
                         "sandbox {", "** worker-a killed", "worker-a.log: x session=a y", "sent jobs/0/0 z"):
                self.assertIn(told, judged.stdout)
            for untold in ("session=aa", "long after"):
                self.assertNotIn(untold, judged.stdout)
            empty = subprocess.run([*program[:2], str(TESTS / "lint")], capture_output=True, text=True)
            self.assertEqual(empty.returncode, 2)


if __name__ == "__main__":
    unittest.main()
