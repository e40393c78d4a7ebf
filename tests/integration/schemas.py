"""The JSON Schemas of config/schema, asked of everything that the tests read and of every job that was
taken for one. Stricter than they are published: of an event no member may be unknown to its schema."""

import copy
import json
import pathlib
import re

import jsonschema

TESTS = pathlib.Path(__file__).resolve().parent.parent
FOLDER = TESTS.parent / "config" / "schema"
JOBS = ("start-session", "stop-session", "delete-session")
EVENTS = ("session-ready", "session-failed", "session-stopped", "session-deleted", "session-progress")
REFUSED = ("invalid_job", "unsupported")
TIME = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)", re.A)

formats = jsonschema.FormatChecker(formats=())


@formats.checks("date-time")
def is_time(text):
    """Debian's validator knows no date-time by itself."""
    return not isinstance(text, str) or TIME.fullmatch(text) is not None


def load(name):
    return json.loads((FOLDER / f"{name}.json").read_text())


def closed(schema):
    """A copy in which an object has no members but those that it lists."""
    schema = copy.deepcopy(schema)

    def close(node):
        if isinstance(node, dict):
            for value in node.values():
                close(value)
            if "properties" in node:
                node["additionalProperties"] = False
        elif isinstance(node, list):
            for value in node:
                close(value)

    close(schema)
    return schema


def validator(schema):
    return jsonschema.Draft202012Validator(schema, format_checker=formats)


JOB = {name: validator(load(name)) for name in JOBS}
EVENT = {name: validator(closed(load(name))) for name in EVENTS}


def faults(found):
    return [f"{'.'.join(map(str, f.absolute_path)) or 'the whole'}: {f.message[:300]}" for f in found]


def faults_of_event(value):
    """What its schema has against an event; what is of no known type has all against it."""
    kind = value.get("type") if isinstance(value, dict) else None
    return faults(EVENT[kind].iter_errors(value)) if kind in EVENT else [f"type: {kind} has no schema"]


def faults_of_job(job):
    """The same of a job, which may be the data of a CloudEvent and leave its type to the headers."""
    if isinstance(job, dict) and "specversion" in job:
        job = job.get("data")
    kind = job.get("type") if isinstance(job, dict) else None
    if kind in JOB:
        return faults(JOB[kind].iter_errors(job))
    return min((faults(v.iter_errors(job)) for v in JOB.values()), key=len)


def check_event(event):
    """Of a record that was read: a dead letter is nobody's event."""
    if "__connect.errors.topic" in event.headers:
        return
    found = faults_of_event(event.json)
    if found:
        raise AssertionError(f"not as its schema says: {found}\n{event.raw}")
    kind = event.json["type"]
    wanted = {"ce_type": f"session-worker.{kind}.v1", "ce_subject": event.json["session_id"],
              "ce_time": event.json["time"], "ce_specversion": "1.0", "content-type": "application/json"}
    wrong = {name: event.headers.get(name) for name, value in wanted.items() if event.headers.get(name) != value}
    if wrong or event.key != event.json["session_id"]:
        raise AssertionError(f"headers or key are not the event's: {wrong} {event.key}\n{event.raw}")


def check_jobs(sent, events):
    """Every job that was not refused is one."""
    for one, event in zip(sent, events):
        job = one.job
        if event.outcome in REFUSED or job is None:
            continue
        found = faults_of_job(json.loads(job) if isinstance(job, bytes) else job)
        if found:
            raise AssertionError(f"accepted, though its schema says: {found}\n{job}")
