"""The provider does what it is asked, and its answer is lost on the way. Of each kind of request in
turn: every session still becomes ready, with one sandbox and one server."""

import harness
from harness import start

# (method, part of the path) of every request of a fresh session's life, and what comes after it.
REQUESTS = [
    ("POST", "/api/sandbox"),
    ("GET", "/api/sandbox/"),
    ("GET", "/preview-url"),
    ("POST", "/process/session"),
    ("POST", "/exec"),
    ("GET", "/command/"),
    ("GET", "/alive"),
    ("POST", "/autodelete/"),
    ("POST", "/autostop/"),
    ("GET", "/vscode/connection_token"),
]


class LostAnswers(harness.Case):
    each = 200 if harness.SOAK else 20
    seconds = 40

    def test_of_each_kind_in_turn(self):
        self.worker(jobs__attempts=6)
        sent, before = [], 0
        for i, (method, path) in enumerate(REQUESTS):
            with self.subTest(f"{method} {path}"):
                self.sim.fault("lose_answer", path, method, times=self.each)
                more = self.produce(*[start(f"r{i}-{n}", "half-second" if n % 2 else "any",
                                            sandbox={"auto_stop_minutes": 0}) for n in range(self.each)])
                sent += more
                self.assertEqual([e for e in self.events_of(more) if e.outcome != "ready"], [])
                self.sim.no_faults()
                lost, before = self.sim.stats()["lost"] - before, self.sim.stats()["lost"]
                print(f"{lost} answers to {method} {path} were lost", flush=True)
                self.assertGreater(lost, self.each * 0.9)
        self.assert_clean(sent)
        boxes = self.sim.ledger()
        self.assertEqual(len(boxes), len(sent), "a session got a second sandbox")
        self.assertEqual([b for b in boxes if b["servers_started"] != 1], [], "not one server each")


if __name__ == "__main__":
    harness.unittest.main()
