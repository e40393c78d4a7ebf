"""What a user may still want is never destroyed, whatever goes wrong with it later."""

import harness
from harness import Case, command, start, stop


class Keeping(Case):
    seconds = 40

    def test_ensure_never_destroys(self):
        self.worker()
        sessions = [f"s{i}" for i in range(200)]
        made = self.done(*[start(s) for s in sessions])
        self.assertEqual({e.outcome for e in made}, {"ready"})
        stopped = self.done(*[stop(s) for s in sessions])
        self.assertEqual({e.outcome for e in stopped}, {"stopped"})

        # Woken again, every one with a server that dies at once.
        failed = self.done(*[start(s, server=command("sh", "-c", "exit 3")) for s in sessions])
        self.assertEqual({e.outcome for e in failed}, {"server_exited"}, failed[:3])
        self.assertEqual({e["sandbox.cleanup"] for e in failed}, {"kept"})
        self.assertEqual([e["sandbox.id"] for e in failed], [e["sandbox.id"] for e in made])

        harness.time.sleep(5)  # two sweeps
        ledger = self.sim.ledger()
        self.assertEqual(len(ledger), 200)
        self.assertEqual([b["name"] for b in ledger if b["destroyed_at"] is not None], [])
        self.assertEqual(self.sim.requests("^DELETE /sandbox"), 0)
        self.assert_ledger_is_what_was_announced()

    def test_a_foreign_sandbox_of_the_same_name_is_left_alone(self):
        status, box = self.sim.api("POST", "/sandbox", {"name": f"{self.group}.s1", "labels": {"mine": "yes"}})
        self.assertEqual(status, 200)
        self.worker()
        self.assertEqual(self.one(start("s1")).outcome, "session_exists")
        harness.time.sleep(3)
        self.assertIn(box["id"], self.sim.live())
        self.assertEqual(self.sim.requests("/stop$|^DELETE"), 0)


if __name__ == "__main__":
    harness.unittest.main()
