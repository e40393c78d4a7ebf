"""The schemas and the AsyncAPI document by themselves: they are what they claim to be, they refuse what
is broken, their examples are right, and their lists are those of the program. (That what the workers say
and accept agrees with them is checked wherever a test reads an event.)"""

import copy
import json
import re
import unittest

import jsonschema
import schemas
import yaml
from schemas import EVENTS, FOLDER, JOBS, TESTS, faults_of_event, faults_of_job, load

ROOT = TESTS.parent
ASYNCAPI = ROOT / "config" / "asyncapi.yaml"
GONE = object()

# which event, path, what stands there instead
BROKEN_EVENTS = [
    ("session-ready", "type", "session-redy"),
    ("session-ready", "type", GONE),
    ("session-ready", "version", 2),
    ("session-ready", "session_id", GONE),
    ("session-ready", "session_id", "../etc"),
    ("session-ready", "job_id", 7),
    ("session-ready", "time", "yesterday"),
    ("session-ready", "time", 1795507838),
    ("session-ready", "metadata", "k=v"),
    ("session-ready", "attempts", -1),
    ("session-ready", "sandbox", None),
    ("session-ready", "sandbox.id", ""),
    ("session-ready", "sandbox.status", "STARTING"),
    ("session-ready", "sandbox.outcome", "found"),
    ("session-ready", "sandbox.drift", "false"),
    ("session-ready", "sandbox.exposed_urls", {}),
    ("session-ready", "sandbox.exposed_urls.0.url", "javascript:alert(1)"),
    ("session-ready", "sandbox.exposed_urls.0.port", 65536),
    ("session-ready", "server.port", 0),
    ("session-ready", "server.kind", "v2"),
    ("session-ready", "vscode.url", GONE),
    ("session-ready", "timings_ms.total", 0.5),
    ("session-ready", "timings_ms.probe", GONE),
    ("session-ready", "error", {}),
    ("session-failed", "error", GONE),
    ("session-failed", "error.code", "oops"),
    ("session-failed", "error.code", "none"),
    ("session-failed", "error.step", "publish"),
    ("session-failed", "error.retryable", None),
    ("session-failed", "error.http_status", 42),
    ("session-failed", "error.log_tail", ["line"]),
    ("session-failed", "error.stack", "at main()"),
    ("session-failed", "sandbox.cleanup", "later"),
    ("session-failed", "sandbox", GONE),
    ("session-stopped", "sandbox.was", 1),
    ("session-deleted", "sandbox.name", GONE),
    ("session-progress", "step", "think"),
    ("session-progress", "status", "STARTING"),
    ("session-progress", "elapsed_ms", -5),
]
BROKEN_JOBS = [
    {"type": "start-session", "session_id": "www.x"},
    {"type": "start-session", "version": 2},
    {"type": "start-session", "env": {"A": 1}},
    {"type": "start-session", "env": {"1A": "x"}},
    {"type": "start-session", "deadline": "tomorrow"},
    {"type": "start-session", "sandbox": {"snapshot": "a", "image": "b"}},
    {"type": "start-session", "sandbox": {"resources": {"cpu": 1}}},
    {"type": "start-session", "sandbox": {"auto_delete_minutes": 0}},
    {"type": "start-session", "sandbox": {"labels": {"OpenHands_SID": "x"}}},
    {"type": "start-session", "server": {"kind": "custom", "port": 1}},
    {"type": "start-session", "server": {"kind": "custom", "port": 1, "command": ["-c", "x"]}},
    {"type": "start-session", "server": {"kind": "custom", "port": 1, "command": ["A=1"]}},
    {"type": "start-session", "server": {"command": ["x"]}},
    {"type": "start-session", "server": {"working_dir": "w"}},
    {"type": "start-session", "session_api_key": "a\r\nb"},
    {"type": "stop-session", "timeout_seconds": 0},
    {"type": "delete-session", "sandbox": {"id": "../x"}},
]


def changed(value, path, by):
    """A copy with another value at the path, or none."""
    value = copy.deepcopy(value)
    *way, last = [int(p) if p.isdigit() else p for p in path.split(".")]
    place = value
    for step in way:
        place = place[step]
    if by is GONE:
        del place[last]
    else:
        place[last] = by
    return value


def table(source, name):
    """The texts of a C table, in its order."""
    text = (ROOT / source).read_text()
    body = re.search(rf"\b{name}\[[A-Z_]*\] = \{{(.*?)\n?\}};", text, re.S)[1]
    return re.findall(r'"([a-z0-9_-]+)"', body)


class Schemas(unittest.TestCase):
    seconds = 1

    def setUp(self):
        self.document = yaml.safe_load(ASYNCAPI.read_text())

    def resolved(self, node, seen=()):
        """The node with every $ref in its place."""
        if isinstance(node, list):
            return [self.resolved(n, seen) for n in node]
        if not isinstance(node, dict):
            return node
        if "$ref" not in node:
            return {k: self.resolved(v, seen) for k, v in node.items()}
        ref = node["$ref"]
        self.assertNotIn(ref, seen, "a ref that leads to itself")
        self.assertEqual(list(node), ["$ref"], f"members beside {ref}")
        if ref.startswith("./schema/"):
            return json.loads((ASYNCAPI.parent / ref).read_text())
        self.assertTrue(ref.startswith("#/"), ref)
        place = self.document
        for step in ref[2:].split("/"):
            self.assertIn(step, place, f"{ref} leads nowhere")
            place = place[step]
        return self.resolved(place, (*seen, ref))

    def messages(self):
        """name -> message, its traits applied and its refs resolved."""
        for name, message in self.resolved(self.document["components"]["messages"]).items():
            whole = {}
            for trait in message.pop("traits", []):
                whole.update(trait)
            whole.update(message)
            yield name, whole

    def examples(self):
        for name, message in self.messages():
            self.assertTrue(message["examples"], f"{name} has no example")
            for example in message["examples"]:
                yield name, message, example

    def one(self, kind):
        """A good event of the kind."""
        return next(e["payload"] for _, _, e in self.examples() if e["payload"].get("type") == kind)

    def test_each_is_a_schema(self):
        self.assertEqual({p.stem for p in FOLDER.glob("*.json")}, {*JOBS, *EVENTS})
        for name in (*JOBS, *EVENTS):
            schema = load(name)
            jsonschema.Draft202012Validator.check_schema(schema)
            self.assertEqual(schema["$schema"], "https://json-schema.org/draft/2020-12/schema")
            self.assertEqual((schema["$id"], schema["title"]), (f"urn:session-worker:v1:{name}", name))

    def test_broken_events_are_refused(self):
        for kind, path, by in BROKEN_EVENTS:
            with self.subTest(kind=kind, path=path, by=by):
                good = self.one(kind)
                self.assertEqual(faults_of_event(good), [])
                self.assertNotEqual(faults_of_event(changed(good, path, by)), [])

    def test_broken_jobs_are_refused(self):
        self.assertEqual(faults_of_job({"type": "start-session", "session_id": "S1"}), [])
        for job in BROKEN_JOBS:
            with self.subTest(job=job):
                self.assertNotEqual(faults_of_job(job), [])

    def test_published_schemas_leave_room_for_more(self):
        """A reader that validates goes on when a later version says more."""
        for kind in EVENTS:
            more = {**self.one(kind), "later": True}
            self.assertEqual(list(schemas.validator(load(kind)).iter_errors(more)), [])

    def test_the_examples_of_the_readme(self):
        found = [json.loads(text) for text in re.findall(r"```json\n(.*?)```", (ROOT / "README.md").read_text(), re.S)]
        self.assertGreaterEqual(len(found), 2)
        for value in found:
            self.assertEqual(faults_of_job(value) if value["type"] in JOBS else faults_of_event(value), [], value)

    def test_asyncapi_holds_together(self):
        whole = self.resolved({k: v for k, v in self.document.items()})
        self.assertEqual(whole["asyncapi"], "3.0.0")
        used = {json.dumps(m) for c in self.document["channels"].values() for m in c["messages"].values()}
        self.assertEqual(used, {json.dumps({"$ref": f"#/components/messages/{n}"})
                                for n in self.document["components"]["messages"]}, "messages of no channel")
        for name, operation in self.document["operations"].items():
            self.assertIn(operation["action"], ("send", "receive"), name)
        self.assertEqual({o["channel"]["$ref"].rsplit("/", 1)[1] for o in self.document["operations"].values()},
                         set(self.document["channels"]), "channels without an operation")
        config = (ROOT / "config" / "worker.cfg").read_text()
        for channel in ("jobs", "results", "deadLetters"):
            self.assertIn(f'"{whole["channels"][channel]["address"]}"', config)

    def test_asyncapi_names_every_schema(self):
        named = set(re.findall(r"\./schema/([a-z-]+)\.json", ASYNCAPI.read_text()))
        self.assertEqual(named, {*JOBS, *EVENTS})

    def test_asyncapi_examples(self):
        for name, message, example in self.examples():
            with self.subTest(name):
                self.assertEqual(list(schemas.validator(message["headers"]).iter_errors(example.get("headers", {})))
                                 if "headers" in example else [], [])
                payload = message["payload"]
                payload = payload.get("schema", payload)
                jsonschema.Draft202012Validator.check_schema(payload)
                self.assertEqual(list(schemas.validator(payload).iter_errors(example["payload"])), [])
                kind = example["payload"].get("type")
                if kind in EVENTS:
                    self.assertEqual(faults_of_event(example["payload"]), [])

    def test_asyncapi_headers_refuse(self):
        headers = {name: schemas.validator(message["headers"]) for name, message in self.messages()}
        for name, broken in (("startSession", {"ce_specversion": "1.0"}),
                             ("startSession", {"ce_type": "com.example.order"}),
                             ("startSession", {"content-type": "text/plain"}),
                             ("jobEvent", {}),
                             ("sessionReady", {}),
                             ("sessionReady", {"ce_id": "x"}),
                             ("deadLetter", {"__connect.errors.topic": "t"})):
            with self.subTest(name=name, broken=broken):
                self.assertFalse(headers[name].is_valid(broken))

    def test_lists_are_the_programs(self):
        failed, ready = load("session-failed")["properties"], load("session-ready")["properties"]
        job, progress = load("start-session")["properties"], load("session-progress")["properties"]
        steps = table("common/wire.c", "step_names")
        self.assertEqual(failed["error"]["properties"]["code"]["enum"], table("common/wire.c", "errors")[1:])
        self.assertEqual(failed["error"]["properties"]["step"]["enum"], steps[:-1])
        self.assertEqual(progress["step"]["enum"], steps[:-1])
        self.assertEqual(list(ready["timings_ms"]["properties"]), [*steps[:7], "total"])
        self.assertEqual(set(failed["sandbox"]["properties"]["cleanup"]["enum"]),
                         set(table("common/wire_event.c", "cleanups")))
        self.assertEqual(ready["sandbox"]["properties"]["outcome"]["enum"], table("common/wire_event.c", "outcomes"))
        self.assertEqual(ready["server"]["properties"]["kind"]["enum"], table("common/wire_event.c", "kinds")[:-1])
        self.assertEqual(job["server"]["properties"]["kind"]["enum"], table("common/wire_event.c", "kinds"))
        self.assertEqual(list(JOBS), table("common/wire_job.c", "type_names"))
        self.assertEqual(set(job["mode"]["enum"]), set(table("common/wire_fields.c", "modes")))
        self.assertEqual(set(job["on_failure"]["enum"]), set(table("common/wire_fields.c", "failures")))

    def test_what_is_no_event_is_noticed(self):
        for value in (None, [], "x", {}, {"type": "session-ready"}):
            self.assertNotEqual(faults_of_event(value), [])


if __name__ == "__main__":
    unittest.main()
