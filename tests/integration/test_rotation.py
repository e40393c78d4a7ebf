"""The secrets that session keys are derived from are rotated while servers run: a new first one, the
old one kept. What was published stays valid, nothing is made again. Without the old secret a server
that nobody can talk to any more is said to be so, and stays."""

import harness
from harness import command, start

KINDS = {"v0": {"kind": "v0"}, "v1": {"kind": "v1"}, "own": command("serve")}
ASKED = {"v0": "/vscode/connection_token", "v1": "/api/conversations/count", "own": "/"}


class Rotation(harness.Case):
    seconds = 20

    def secrets(self, *names):
        """Settings with these secrets, the first of which signs."""
        for name in names:
            path = self.folder / name
            if not path.exists():
                path.write_text(f"the {name} secret, long enough to be one\n")
                path.chmod(0o600)
        return {"session_key__secret_files": [str(self.folder / name) for name in names]}

    def accepts(self, event, key):
        """Does the server that the event names take the key, through its public address?"""
        kind = event["server.kind"]
        path = ASKED[{"custom": "own"}.get(kind, kind)]
        headers = {"X-Session-API-Key": key, "x-daytona-preview-token": event["sandbox.preview_token"]}
        return harness.http("GET", event["server.url"].rstrip("/") + path, headers=headers)[0] == 200

    def test_serving_sandboxes_outlive_a_rotation(self):
        worker = self.worker("before", **self.secrets("old"))
        sent = self.produce(*[start(kind, server=server) for kind, server in KINDS.items()])
        before = self.events_of(sent)
        for event in before:
            self.assertEqual(event.outcome, "ready")
            self.assertTrue(self.accepts(event, event["sandbox.session_api_key"]), event)
            self.assertFalse(self.accepts(event, "another"), "any key does")
        self.assertEqual(worker.end(), 0)

        worker = self.worker("both", **self.secrets("new", "old"))
        for mode in ("ensure", "attach", "resume"):
            again = self.produce(*[start(kind, server=server, mode=mode) for kind, server in KINDS.items()])
            sent += again
            for first, event in zip(before, self.events_of(again)):
                self.assertEqual(event.outcome, "ready", mode)
                for what in ("sandbox.id", "sandbox.session_api_key"):
                    self.assertEqual(event[what], first[what], (mode, what))
                self.assertTrue(self.accepts(event, event["sandbox.session_api_key"]), event)
        fresh = self.produce(start("fresh"))
        sent += fresh
        self.assertTrue(self.accepts(self.event_of(fresh[0]), self.event_of(fresh[0])["sandbox.session_api_key"]))
        self.assertEqual(worker.end(), 0)

        self.worker("after", **self.secrets("new"))
        late = self.produce(*[start(kind, server=server) for kind, server in KINDS.items()], start("fresh"))
        sent += late
        *lost, fresh = self.events_of(late)
        self.assertEqual(fresh.outcome, "ready")
        for first, event in zip(before, lost):
            self.assertEqual(event.outcome, "unauthorized")
            self.assertEqual(event["sandbox.cleanup"], "kept")
            self.assertEqual(event["sandbox.id"], first["sandbox.id"])
            self.assertTrue(self.accepts(first, first["sandbox.session_api_key"]), "it does not serve any more")

        boxes = self.sim.ledger()
        self.assertEqual([b["servers_started"] for b in boxes], [1] * (len(KINDS) + 1), "something was made again")
        self.assert_clean(sent)

    def test_first_secrets(self):
        """Servers from before there were secrets: their keys hang on the provider's, which is the same."""
        worker = self.worker("before")
        sent = self.produce(*[start(kind, server=server) for kind, server in KINDS.items()])
        before = self.events_of(sent)
        self.assertEqual(worker.end(), 0)
        self.worker("after", **self.secrets("first"))
        again = self.produce(*[start(kind, server=server) for kind, server in KINDS.items()])
        for first, event in zip(before, self.events_of(again)):
            self.assertEqual(event.outcome, "ready", event.json)
            self.assertEqual(event["sandbox.session_api_key"], first["sandbox.session_api_key"])
        self.assertEqual([b["servers_started"] for b in self.sim.ledger()], [1] * len(KINDS))
        self.assert_clean(sent + again)


if __name__ == "__main__":
    harness.unittest.main()
