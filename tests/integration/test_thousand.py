"""A thousand jobs of every kind through two workers: one event each, and nothing left over."""

import harness
from harness import Case, command, start

SHORT = {"create": 10, "launch": 12}
KEEP = {"on_failure": "keep"}

# Of every twenty jobs: what is asked, and how it may end.
KINDS = [
    *[(lambda s: start(s, timeout_seconds=120), {"ready"})] * 8,
    (lambda s: start(s, timeout_seconds=120, server={"kind": "v1"}), {"ready"}),
    (lambda s: start(s, timeout_seconds=120, server=command("serve")), {"ready"}),
    (lambda s: start(s, timeout_seconds=120, server={"kind": "none"}), {"ready"}),
    (lambda s: start(s, "half-second", timeout_seconds=120), {"ready"}),
    (lambda s: start(s, "sim-dead-server"), {"server_exited"}),
    (lambda s: start(s, "sim-dead-server", **KEEP), {"server_exited"}),
    (lambda s: start(s, "sim-never-listens", timeouts=SHORT), {"server_timeout"}),
    (lambda s: start(s, "sim-wrong-body", timeouts=SHORT), {"server_timeout", "unhealthy"}),
    (lambda s: start(s, "sim-quota", timeouts=SHORT), {"quota_exceeded"}),
    (lambda s: start(s, "sim-error"), {"create_failed", "start_failed"}),
    (lambda s: start(s, "sim-stuck-creating", timeouts=SHORT), {"start_timeout"}),
    (lambda s: start(s, env={"FOO": 7}), {"invalid_job"}),
]


class Thousand(Case):
    seconds = 90

    def test_one_event_each_and_nothing_left_over(self):
        self.worker(jobs__max_in_flight=300)
        self.worker(jobs__max_in_flight=300)
        kinds = [KINDS[i % len(KINDS)] for i in range(1000)]
        jobs = [make(f"s{i}") for i, (make, _) in enumerate(kinds)]
        sent = self.produce(*jobs)
        events = self.events_of(sent, limit=150)

        wrong = [e for e, (_, ends) in zip(events, kinds) if e.outcome not in ends]
        self.assertEqual(wrong, [], "ended otherwise than they should")
        # What is stuck in creating cannot be stopped; the provider gives it up after 15 minutes.
        self.sim.advance(16 * 60)
        self.assert_clean(sent)

        refused = {s.ce_id for s, (_, ends) in zip(sent, kinds) if ends == {"invalid_job"}}
        self.dead.settle()
        self.assertEqual(len(self.dead.events), len(refused))
        for worker in self.workers:
            self.assertGreater(worker.metric("jobs_received_total"), 100, "both have worked")


if __name__ == "__main__":
    harness.unittest.main()
