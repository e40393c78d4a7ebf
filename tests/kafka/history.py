#!/usr/bin/python3
"""Judges a run by what it has left behind: the jobs that the broker took, what a read_committed reader
saw of results and dead letters, the simulator's ledger of sandboxes, and the group's offsets.

    tests/kafka/history.py FOLDER [--story CE_ID]      judges what History.save has put there

It prints the verdict, and of each offending job (the first few) its whole story: its records, the
sandboxes of its session, what was done to the world meanwhile, and what the workers' logs say of it.
Exit 0: there is nothing to object to.
"""

import argparse
import collections
import json
import pathlib
import re
import sys
import time

KINDS = {  # of findings, and how the verdict words them
    "lost": "lost",
    "twice": "visible twice",
    "stranger": "results of no job",
    "dead": "dead letters too many or too few",
    "destroyed": "wanted sandboxes destroyed",
    "left": "sandboxes left over",
    "ghost": "announced sandboxes that never were",
    "two": "sessions with two sandboxes at a time",
    "behind": "partitions not at their end",
    "poison": "poison",
}
CONNECT = "__connect.errors."
STORIES = 3
LINES = 200

Finding = collections.namedtuple("Finding", "kind about text")  # about: a ce_id, a session, a partition


class Sent:
    """A record that was put in."""

    def __init__(self, job, topic, partition, offset, key=None, time_ms=None):
        self.job, self.topic, self.partition, self.offset, self.key = job, topic, partition, offset, key
        self.time_ms = now_ms() if time_ms is None else time_ms  # when the broker had it
        self.ce_id = f"{topic}/{partition}/{offset}"

    @property
    def session(self):
        return (self.job.get("session_id") if isinstance(self.job, dict) else None) or self.key


class Event:
    """A record that came out: its headers, its key, its JSON; item access reaches into the JSON."""

    def __init__(self, topic, partition, offset, key=None, headers=None, raw=b"", time_ms=0, seen_ms=None):
        self.topic, self.partition, self.offset, self.time_ms = topic, partition, offset, time_ms
        self.key, self.headers, self.raw = key, headers or {}, raw
        self.seen_ms = now_ms() if seen_ms is None else seen_ms  # when the reader had it
        try:
            self.json = json.loads(raw)
        except (TypeError, ValueError):
            self.json = None
        self.ce_id = self.headers.get("ce_id")

    @classmethod
    def of(cls, message):
        key = message.key()
        return cls(message.topic(), message.partition(), message.offset(),
                   key.decode(errors="replace") if key is not None else None,
                   {k: (v or b"").decode(errors="replace") for k, v in message.headers() or []},
                   message.value(), message.timestamp()[1])

    def __getitem__(self, path):
        value = self.json
        for name in path.split("."):
            value = value.get(name) if isinstance(value, dict) else None
        return value

    @property
    def outcome(self):
        """"ready", "stopped", "deleted", or the error code of a failed one."""
        kind = self["type"] or ""
        return self["error.code"] if kind == "session-failed" else kind.removeprefix("session-")

    @property
    def order(self):
        """Place of its job among the jobs of its partition."""
        return int(self.ce_id.rsplit("/", 1)[1])

    @property
    def record(self):
        """Of a dead letter: which record it was."""
        return "/".join(self.headers.get(CONNECT + part, "") for part in ("topic", "partition", "offset"))

    def __repr__(self):
        return f"<{self.ce_id} {self['session_id']} {self.outcome} {self['error.message'] or ''}>"


def now_ms():
    return time.time() * 1000


# ---- the judges: each gives a list of findings ----

def judge_events(jobs, events):
    """Exactly one result of each job, and none of anything else."""
    count = collections.Counter(e.ce_id for e in events)
    known = {s.ce_id for s in jobs}
    return [*(Finding("lost", s.ce_id, f"no result of {s.ce_id} ({s.session})")
              for s in jobs if s.session and not count[s.ce_id]),
            *(Finding("twice", s.ce_id, f"{count[s.ce_id]} results of {s.ce_id} ({s.session})")
              for s in jobs if count[s.ce_id] > 1),
            *(Finding("stranger", e.ce_id, f"a result of no job: {e}") for e in events if e.ce_id not in known)]


def judge_poison(events):
    """No job was blamed for the deaths of workers."""
    return [Finding("poison", e.ce_id, f"failed as poison: {e}") for e in events if e.outcome == "poison"]


def judge_dead(jobs, events, dead):
    """One dead letter of each record that was no job, and of no other (a job that asks for what there
    is not may have one)."""
    wrong = {e.ce_id for e in events if e.outcome in ("invalid_job", "poison")}
    unsure = {e.ce_id for e in events if e.outcome == "unsupported"}
    count = collections.Counter(d.record for d in dead)
    wanted = {s.ce_id for s in jobs if s.ce_id in wrong or not s.session or s.ce_id in unsure and count[s.ce_id]}
    return [Finding("dead", i, f"{count[i]} dead letters of {i}, {int(i in wanted)} wanted")
            for i in sorted(wanted | set(count)) if count[i] != (i in wanted)]


def announced(events):
    """id -> event, of the sandboxes that the events, in the order of their jobs, say are there."""
    named = {}
    for event in sorted(events, key=lambda e: (e.ce_id.rsplit("/", 1)[0], e.order)):
        box, kind = event["sandbox"], event["type"]
        if box and (kind == "session-ready" or kind == "session-failed" and box["cleanup"] == "kept"):
            named[box["id"]] = event
        elif kind == "session-deleted":  # without a sandbox: it was gone already, by this job's first run
            named = {i: e for i, e in named.items()
                     if (i != box["id"] if box else e["session_id"] != event["session_id"])}
    return named


def judge_boxes(events, ledger):
    """What lives at the provider is exactly what was announced."""
    named, boxes = announced(events), {box["id"]: box for box in ledger}
    found = [Finding("left", box["name"], f"{box['name']} ({i}) lives, and no event says so: {box['state']}")
             for i, box in boxes.items() if box["destroyed_at"] is None and i not in named]
    for i, event in named.items():
        box = boxes.get(i)
        if not box:
            found.append(Finding("ghost", event.ce_id, f"{event} names {i}, which was never made"))
        elif box["destroyed_at"] is not None:
            found.append(Finding("destroyed", event.ce_id,
                                 f"{box['name']} ({i}), announced by {event}, was destroyed by {box['destroyed_by']}"))
    return found


def judge_overlaps(ledger):
    """Of no name were there ever two sandboxes at a time."""
    found, by_name = [], collections.defaultdict(list)
    for box in sorted(ledger, key=lambda b: b["created_at"]):
        by_name[box["name"]].append(box)
    for name, boxes in by_name.items():
        for first, second in zip(boxes, boxes[1:]):
            if first["destroyed_at"] is None or first["destroyed_at"] > second["created_at"]:
                found.append(Finding("two", name, f"{name}: {first['id']} and {second['id']} lived at once"))
    return found


def judge_offsets(offsets):
    """offsets: partition -> {committed, metadata, end}. All is done, and nothing pending."""
    return [Finding("behind", str(p), f"partition {p}: committed is {o['committed']}, the end is {o['end']}")
            for p, o in sorted(offsets.items()) if max(o["committed"], 0) != o["end"]]


def longest_stall(jobs, events):
    """Longest time, in seconds, with no new visible result while jobs were waiting."""
    seen = {}
    for event in events:
        seen[event.ce_id] = min(event.seen_ms, seen.get(event.ce_id, event.seen_ms))
    marks = sorted([(s.time_ms, +1) for s in jobs if s.ce_id in seen] +
                   [(max(seen[s.ce_id], s.time_ms), -1) for s in jobs if s.ce_id in seen],
                   key=lambda mark: (mark[0], -mark[1]))
    longest, waiting, since = 0, 0, 0
    for at, change in marks:
        if waiting == 0 or change < 0:
            longest = max(longest, at - since if waiting else 0)
            since = at
        waiting += change
    return longest / 1000


class History:
    """All of one run. notes: (time in ms, what was done to the world)."""

    def __init__(self, jobs, events, dead, ledger, offsets, notes=(), logs=()):
        self.jobs, self.events, self.dead = list(jobs), list(events), list(dead)
        self.ledger, self.offsets = list(ledger), dict(offsets)
        self.notes, self.logs = list(notes), [pathlib.Path(log) for log in logs]

    def findings(self):
        return [*judge_events(self.jobs, self.events), *judge_poison(self.events),
                *judge_dead(self.jobs, self.events, self.dead),
                *judge_boxes(self.events, self.ledger), *judge_overlaps(self.ledger),
                *judge_offsets(self.offsets)]

    def verdict(self, findings):
        count = collections.Counter(f.kind for f in findings)
        outcomes = collections.Counter(e.outcome for e in self.events)
        return "\n".join([
            f"{len(self.jobs)} jobs, {len(self.events)} results "
            f"({', '.join(f'{n} {o}' for o, n in outcomes.most_common())}), {len(self.ledger)} sandboxes made",
            ", ".join(f"{count[kind]} {words}" for kind, words in KINDS.items()),
            f"longest stall {longest_stall(self.jobs, self.events):.1f} s"])

    # ---- the story of one ----

    def session_of(self, about):
        """The session that a finding is about, if any."""
        for record in [*self.jobs, *self.events]:
            if record.ce_id == about:
                return record.session if isinstance(record, Sent) else record["session_id"]
        return about.split(".", 1)[1] if any(box["name"] == about for box in self.ledger) else None

    def story(self, about):
        session = self.session_of(about)
        jobs = [s for s in self.jobs if s.ce_id == about or session and s.session == session]
        events = [e for e in self.events if e.ce_id == about or session and e["session_id"] == session]
        lines = [(s.time_ms, f"job {s.ce_id} {json.dumps(s.job)}") for s in jobs]
        lines += [(e.seen_ms, f"result at {e.partition}/{e.offset}: {e} {text_of(e.raw)[:600]}") for e in events]
        lines += [(d.seen_ms, f"dead letter {d.offset} of {d.record}") for d in self.dead
                  if d.record in {s.ce_id for s in jobs}]
        for box in self.ledger:
            if session and box["name"].endswith(f".{session}"):
                lines.append((box["created_at"], f"sandbox {json.dumps(box)}"))
        lines += self._meanwhile(lines)
        told = [f"{clock(at)} {text}" for at, text in sorted(lines, key=lambda line: line[0])]
        names = [session, *(s.ce_id for s in jobs), about]
        return "\n".join([f"---- the story of {about} (session {session})", *told,
                          *self.log_lines({n for n in names if n})])

    def _meanwhile(self, lines):
        if not lines:
            return []
        first, last = min(at for at, _ in lines) - 1000, max(at for at, _ in lines) + 1000
        return [(at, f"** {text}") for at, text in self.notes if first <= at <= last]

    def log_lines(self, names):
        word = re.compile(r"(?<![\w./-])(" + "|".join(map(re.escape, sorted(names))) + r")(?![\w/-])")
        found = [f"{log.name}: {line}" for log in self.logs if log.exists()
                 for line in log.read_text(errors="replace").splitlines() if word.search(line)]
        return found[:LINES] + ([f"… and {len(found) - LINES} more lines"] if len(found) > LINES else [])

    def stories(self, findings):
        """Of the first few offenders."""
        abouts = list(dict.fromkeys(f.about for f in findings))[:STORIES]
        return "\n".join([*(f.text for f in findings[:20]), *map(self.story, abouts)])

    # ---- on disk ----

    def save(self, folder):
        folder = pathlib.Path(folder)

        def lines(name, records):
            (folder / name).write_text("".join(json.dumps(r) + "\n" for r in records))

        lines("jobs.jsonl", ({"topic": s.topic, "partition": s.partition, "offset": s.offset, "key": s.key, "time_ms": s.time_ms,
                              "job": s.job if isinstance(s.job, dict) else None} for s in self.jobs))
        for name, events in (("results.jsonl", self.events), ("dead.jsonl", self.dead)):
            lines(name, ({"topic": e.topic, "partition": e.partition, "offset": e.offset, "key": e.key,
                          "headers": e.headers, "raw": text_of(e.raw), "time_ms": e.time_ms,
                          "seen_ms": e.seen_ms} for e in events))
        lines("ledger.jsonl", self.ledger)
        lines("offsets.jsonl", ({"partition": p, **o} for p, o in self.offsets.items()))
        lines("notes.jsonl", self.notes)

    @classmethod
    def load(cls, folder):
        folder = pathlib.Path(folder)

        def lines(name):
            path = folder / name
            return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

        offsets = {o.pop("partition"): o for o in lines("offsets.jsonl")}
        return cls([Sent(**s) for s in lines("jobs.jsonl")], [Event(**e) for e in lines("results.jsonl")],
                   [Event(**e) for e in lines("dead.jsonl")], lines("ledger.jsonl"), offsets,
                   lines("notes.jsonl"), sorted(folder.glob("*.log")))


def text_of(raw):
    return raw.decode(errors="replace") if isinstance(raw, bytes) else raw or ""


def clock(at_ms):
    return time.strftime("%H:%M:%S", time.gmtime(at_ms / 1000)) + f".{int(at_ms) % 1000:03}"


def main():
    args = argparse.ArgumentParser(description="judges a run by what it has left behind")
    args.add_argument("folder", type=pathlib.Path)
    args.add_argument("--story", metavar="CE_ID", help="of one job, whatever the verdict")
    args = args.parse_args()
    history = History.load(args.folder)
    if not history.jobs:
        print(f"no jobs in {args.folder}", file=sys.stderr)
        return 2
    if args.story:
        print(history.story(args.story))
        return 0
    findings = history.findings()
    if findings:
        print(history.stories(findings))
    print(history.verdict(findings))
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
