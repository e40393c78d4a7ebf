"""A worker is stopped at a border of an effect for longer than its group waits for it; a peer finishes
its work; then it is woken, in the middle of what it was doing. Whatever it still sends destroys
nothing that was announced, and it rejoins and works."""

import signal

import harness
import history
import worlds
from harness import delete, start, stop, until
from test_crash_anywhere import BOTH, CALL, POINTS, PUT_OUT, SLOW

LATE = {"stop": r"/stop$", "keep": r"/autodelete/", "exec": r"/exec$", "delete": r"^DELETE /sandbox"}


def jobs():
    """(job, outcome): everything that makes, keeps, fails, stops, destroys and makes again."""
    yield from ((start(f"s{i}"), "ready") for i in range(4))
    yield start("dead", server=PUT_OUT), "server_exited"
    yield start("again", server=PUT_OUT), "server_exited"
    yield start("again", sandbox={"auto_stop_minutes": 0}), "ready"


def later_jobs(spec):
    yield start("s0"), "ready"
    yield stop("s1"), "stopped"
    yield start("s1"), "ready"
    yield delete("s2"), "deleted"
    yield start("s2"), "ready"  # a late DELETE must not find this one
    if "cancel" in spec:
        yield SLOW, "deadline_exceeded start_timeout ready"  # ready: its time begins again with its second delivery


def freeze(spec, late):
    def plan(world):
        world.settings["topics.progress"] = world.progress_topic
        world.properties = [p for p in world.properties if "session.timeout" not in p] + [
            f"session.timeout.ms={harness.SESSION_TIMEOUT * 1000}"]
        frozen = world.worker("frozen", ready=False, breaks=spec)
        sent = []

        def settle(work):
            """Until they all have their event; a peer comes as soon as the first one stands still."""
            more = world.produce(*[job for job, _ in work])
            sent.extend(more)
            wanted = {s.ce_id for s in more}

            def all_there(events):
                if len(world.workers) == 1 and frozen.running and frozen.stopped:
                    world.worker("peer", ready=False)
                return {e.ce_id for e in events} >= wanted

            world.results.wait(all_there, 60, lambda events: f"{spec}: jobs without an event")
            for one, event, (_, outcome) in zip(more, world.events_of(more), work):
                world.assertIn(event.outcome, outcome.split(), f"{one.session}, {one.ce_id}")

        settle(list(jobs()))
        settle(list(later_jobs(spec)))
        if "release" in spec:
            world.worker("peer", ready=False)
        elif "drained" in spec:
            frozen.send(signal.SIGTERM)
        until(lambda: frozen.stopped, 20, f"{spec} was not reached")
        if len(world.workers) == 1:
            world.worker("peer", ready=False)
        peer = world.workers[1]
        until(lambda: peer.metric("kafka_assigned_partitions") == world.partitions, 30, "the peer has taken over")
        if harness.SOAK:
            harness.time.sleep(60)
        announced = set(history.announced(world.results.events))
        before = counts(world)
        frozen.thaw()
        if "drained" in spec:
            world.assertEqual(frozen.process.wait(20), 0)
        else:
            until(lambda: frozen.metric("kafka_assigned_partitions") == 1, 30, "it has rejoined")
        settle([(start(f"new{i}"), "ready") for i in range(6)])
        if "drained" not in spec:
            world.assertGreater(frozen.metric("jobs_completed_total"), 0, "it does not work any more")
        for what, n in counts(world).items():
            late[what] = late.get(what, 0) + max(0, n - before[what])
        world.assertLessEqual(announced, set(world.sim.live()), "a kept sandbox was destroyed")
        world.assert_clean(sent)
        for worker in world.workers:
            world.assertEqual(worker.end(), 0, f"{worker.name} did not end well")
    return plan


def counts(world):
    """Requests of each dangerous kind to sandboxes that were there already: what comes late."""
    found = dict.fromkeys(LATE, 0)
    for box in world.sim.ledger():
        if not box["name"].split(".", 1)[1].startswith("new"):
            for kind, n in box["requests"].items():
                for what, pattern in LATE.items():
                    if harness.re.search(pattern, kind):
                        found[what] += n
    return found


class Freeze(harness.Case):
    seconds = 70

    def walk(self, moments):
        """moments: name of a kind's borders -> the one to stop at."""
        late, plans = {}, {}
        for kind, nth, borders in POINTS:
            spec = f"{moments[borders]}:{kind}:{nth}:STOP"
            plans[f"{len(plans)} {spec}"] = freeze(spec, late)
        worlds.live_through(self, plans)
        print("late requests:", late)

    def test_woken_with_requests_on_their_way(self):
        """What was handed to libcurl, or to the publisher, goes out when it wakes, or is answered."""
        self.walk({CALL: "after", BOTH: "before"})

    if harness.SOAK:
        def test_woken_before_it_sends(self):
            self.walk({CALL: "before", BOTH: "after"})

        def test_woken_with_answers_that_nobody_heard(self):
            self.walk({CALL: "answered", BOTH: "after"})


if __name__ == "__main__":
    harness.unittest.main()
