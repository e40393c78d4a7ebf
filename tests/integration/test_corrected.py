"""A job fails, and its correction is already waiting behind it."""

import harness
from harness import Case, command, start


class Corrected(Case):
    def test_a_corrected_job_gets_a_new_sandbox(self):
        self.worker()
        sent = self.produce(start("s1", "sim-dead-server"), start("s1", "any"))
        failed, ready = self.events_of(sent)
        self.assertEqual((failed.outcome, ready.outcome), ("server_exited", "ready"), ready.json)
        self.assertEqual(ready["sandbox.outcome"], "created")
        self.assertNotEqual(ready["sandbox.id"], failed["sandbox.id"])
        self.assert_clean(sent)

    def test_a_corrected_command_gets_a_new_sandbox(self):
        self.worker()
        sent = self.produce(start("s1", server=command("sh", "-c", "exit 3")), start("s1"))
        failed, ready = self.events_of(sent)
        self.assertEqual((failed.outcome, ready.outcome), ("server_exited", "ready"), ready.json)
        self.assertNotEqual(ready["sandbox.id"], failed["sandbox.id"])
        self.assert_clean(sent)

    def test_an_equal_job_adopts(self):
        self.worker()
        sent = self.produce(start("s1", "slow-server", timeouts={"launch": 1}),
                            start("s1", "slow-server", timeouts={"launch": 30}))
        failed, ready = self.events_of(sent)
        self.assertEqual((failed.outcome, ready.outcome), ("server_timeout", "ready"), ready.json)
        self.assertEqual(ready["sandbox.id"], failed["sandbox.id"])
        self.assertEqual(ready["sandbox.outcome"], "adopted")
        self.assertEqual(len(self.sim.ledger()), 1)
        self.assert_clean(sent)


if __name__ == "__main__":
    harness.unittest.main()
