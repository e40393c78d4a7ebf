"""A worker kills itself at a border of an effect: before it, after it, or when its answer is there
and nobody has heard of it. Every kind of effect is walked, each in a world of its own, and each
world ends as if nothing had happened: one result per job, one sandbox per session, nothing left."""

import itertools
import re
import signal
import subprocess

import harness
import worlds
from harness import command, delete, start, stop, until

CALL = ("before", "after", "answered")
BOTH = ("before", "after")

# Every kind of effect, which of them in its world, and the borders that it has.
POINTS = [
    ("call.create.POST", 2, CALL),
    ("call.create.GET/sandbox/", 2, CALL),
    ("call.launch.GET/preview-url", 2, CALL),
    ("call.launch.POST/process/session", 1, CALL),
    ("call.launch.POST/exec", 2, CALL),
    ("call.launch.GET/alive", 1, CALL),  # in a sandbox that is there, before a server is started
    ("call.probe.GET/alive", 2, CALL),
    ("call.probe.GET/command/", 2, CALL),
    ("call.probe.GET/vscode/", 2, CALL),  # the last look, with the key
    ("call.probe.GET/", 9, CALL),
    ("call.probe.POST/process/execute", 1, CALL),  # the log of a server that has ended
    ("call.keep.POST/autodelete/", 2, CALL),
    ("call.keep.POST/autostop/", 1, CALL),
    ("call.find.GET/sandbox/", 1, CALL),
    ("call.start.POST", 1, CALL),
    ("call.stop.POST", 1, CALL),
    ("call.stop.GET/sandbox/", 1, CALL),
    ("call.delete.DELETE", 1, CALL),
    ("call.find.GET/sandbox?", 2, CALL),  # the sweep's list
    ("cancel", 1, BOTH),
    ("take", 1, BOTH),
    ("commit", 2, CALL),
    ("txn.begin", 2, BOTH),
    ("txn.offsets", 2, BOTH),
    ("txn.commit", 2, BOTH),
    ("release", 1, BOTH),
    ("progress", 3, BOTH),
    ("drained", 1, BOTH),
]
SLOW = start("slow", "sim-slow", timeout_seconds=2)  # its POST is still held when its time is over
PUT_OUT = command("sh", "-c", "exit 3")  # a server that ends at once


def first_jobs():
    """(job, outcome): everything that makes, keeps, fails and destroys."""
    yield from ((start(f"s{i}"), "ready") for i in range(4))
    yield start("dead", server=PUT_OUT), "server_exited"
    # The second clears away what the first one left behind; not to stop is set when it is kept.
    yield start("again", server=PUT_OUT), "server_exited"
    yield start("again", sandbox={"auto_stop_minutes": 0}), "ready"


def later_jobs(spec=""):
    """What finds a sandbox that is there."""
    yield start("s0"), "ready"
    yield stop("s1"), "stopped"
    yield start("s1"), "ready"
    yield delete("s2"), "deleted"
    yield start("s3", mode="attach"), "ready"
    if "cancel" in spec:
        yield SLOW, "deadline_exceeded start_timeout ready"  # ready: its time begins again with its second delivery


class Life:
    """One worker that breaks, and the one that comes after it: itself, or another."""

    def __init__(self, world, spec, successor):
        self.world, self.spec, self.successor = world, spec, successor
        self.worker = world.worker("a", ready=False, breaks=spec)
        self.died = False

    def tend(self):
        """To be called while waiting."""
        if self.died or self.worker.running:
            return
        self.world.assertEqual(self.worker.process.returncode, -signal.SIGKILL, "it ended by itself")
        self.died = self.worker.killed = True
        if self.successor == "itself":
            self.worker.mend()
            self.worker.launch()
        elif not any(w.running for w in self.world.workers):
            self.world.worker("heir", ready=False)

    def reach(self, limit=20):
        """Waits for its death."""
        until(lambda: self.tend() or self.died, limit, f"{self.spec} was not reached")

    def rebalance(self):
        """A second worker comes, and goes again if partitions were not revoked by that but lost, as
        they are on a machine that stood still."""
        peer = self.world.worker("b", ready=False)
        try:
            self.reach(7)
        except AssertionError:
            peer.end()
            self.reach()

    def outcomes(self, jobs):
        """Puts them in; what became of them."""
        sent = self.world.produce(*jobs)
        wanted = {s.ce_id for s in sent}

        def all_there(events):
            self.tend()
            return {e.ce_id for e in events} >= wanted

        self.world.results.wait(all_there, 60, lambda events: f"jobs without an event: "
                                f"{[s.session for s in sent if s.ce_id not in {e.ce_id for e in events}]}")
        return sent, [e.outcome for e in self.world.events_of(sent)]


def tell(world):
    """Every effect that these jobs have is on the list above."""
    world.settings["topics.progress"] = world.progress_topic
    worker = world.worker("a", ready=False, breaks="tell")
    for jobs in (first_jobs(), later_jobs("cancel")):
        world.done(*[job for job, _ in jobs])
    harness.time.sleep(3)  # a sweep
    worker.send(signal.SIGTERM)
    worker.process.wait(20)
    told = set(re.findall(r"^effect: (\S+) (.*)", worker.log.read_text(), re.M))
    strange = {(kind, path) for kind, path in told if not any(
        f"{kind}.".startswith(head + ".") and "/" * bool(slash) + rest in path
        for head, slash, rest in (point[0].partition("/") for point in POINTS))}
    world.assertEqual(strange, set(), "effects at which nobody dies")


def crash(spec, successor):
    def plan(world):
        world.settings["topics.progress"] = world.progress_topic
        life = Life(world, spec, successor)
        sent = []
        for jobs in (list(first_jobs()), list(later_jobs(spec)), [(start("last"), "ready")]):
            if jobs[0][0]["session_id"] == "last":
                if "release" in spec:
                    life.rebalance()
                elif "drained" in spec:
                    life.worker.send(signal.SIGTERM)
                    life.reach()
            more, outcomes = life.outcomes([job for job, _ in jobs])
            for one, outcome, (_, wanted) in zip(more, outcomes, jobs):
                world.assertIn(outcome, wanted.split(), f"{one.session}, {one.ce_id}")
            sent += more
        life.reach()
        world.assert_clean(sent)
        made = [box["name"].split(".", 1)[1] for box in world.sim.ledger()]
        twice = {name for name in made if made.count(name) > 1} - {"again"}
        world.assertEqual(twice, set(), "a session got a second sandbox")
        servers = {box["name"].split(".", 1)[1]: box["servers_started"] for box in world.sim.live().values()}
        for session, n in {"s0": 1, "s1": 2, "s3": 1, "last": 1}.items():
            world.assertEqual(servers[session], n, f"servers started in {session}")
    return plan


class CrashAnywhere(harness.Case):
    seconds = 80

    def test_no_effect_is_a_bad_place_to_die(self):
        successors = itertools.cycle(("itself", "another"))
        plans = {"tell": tell}
        for kind, nth, moments in POINTS:
            for moment in moments:
                spec = f"{moment}:{kind}:{nth}:KILL"
                plans[f"{len(plans)} {spec}"] = crash(spec, next(successors))
        worlds.live_through(self, plans)

    def test_the_shipped_program_cannot_break(self):
        for tool in (["strings", "-a"], ["nm"]):
            shipped, breaking = (
                subprocess.run([*tool, harness.OUT / path], capture_output=True, text=True, timeout=60,
                               check=True).stdout for path in ("session-worker", "tests/breaking/session-worker"))
            trace = re.compile(r"SESSION_WORKER_BREAK|__wrap_|__real_|breaking/break")
            self.assertRegex(breaking, trace)
            self.assertNotRegex(shipped, trace)


if __name__ == "__main__":
    harness.unittest.main()
