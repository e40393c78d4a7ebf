"""Previews under a name that no name server knows: http.connect_to says where they are."""

import unittest

from harness import Case, start


class ConnectTo(Case):
    seconds = 5
    sim_options = ("--domain", "previews.invalid:1")

    def test_previews_elsewhere(self):
        self.worker(http__connect_to=[f"previews.invalid=127.0.0.1:{self.sim.port}"])
        event = self.one(start("S1"))
        self.assertEqual(event.outcome, "ready")
        self.assertRegex(event["server.url"], r"^http://4444-[0-9a-f-]+\.previews\.invalid:1$")

    def test_previews_where_the_name_says(self):
        """The same without it: nothing is found there."""
        self.worker()
        event = self.one(start("S1", timeouts={"launch": 2}))
        self.assertEqual(event.outcome, "server_timeout")


if __name__ == "__main__":
    unittest.main()
