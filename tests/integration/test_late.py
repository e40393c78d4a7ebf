"""A worker dies right after it has kept a sandbox, and its job is delivered again when its time is
over: ready, or failed and naming the sandbox that stays. Never silence, never one that nobody knows."""

import datetime

import harness
import worlds
from harness import start, until

KEPT = "answered:call.keep.POST/autodelete/:2:KILL"
TIME = 8  # seconds, of the job


def in_seconds(n):
    return (datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=n)).isoformat()


TIMES = {  # how its time ends -> (fields of the job, settings of the worker)
    "expires_at": (lambda: {"expires_at": in_seconds(TIME)}, {}),
    "deadline": (lambda: {"deadline": in_seconds(TIME)}, {}),
    "timeout": (lambda: {"timeout_seconds": TIME}, {}),
    "max age": (lambda: {}, {"jobs.max_age_seconds": TIME}),
}


def late(fields, settings, mode):
    def plan(world):
        world.settings.update(settings)
        world.settings["sweep.every_seconds"] = 1
        worker = world.worker(ready=False, breaks=KEPT)
        sent = world.produce(start("before"))
        world.events_of(sent)
        sent += world.produce(start("s", mode=mode, **fields()))
        until(lambda: not worker.running, 20, "it has not died")
        box, = (b for b in world.sim.live().values() if b["name"].endswith(".s"))
        world.assertFalse(box["ephemeral"], "it was not kept")
        harness.time.sleep(TIME)
        worker.mend()
        worker.start()
        event = world.events_of(sent, limit=30)[1]
        world.assertEqual(event["sandbox.id"], box["id"], event.json)
        if event.outcome != "ready":
            world.assertEqual(event["sandbox.cleanup"], "kept", event.json)
        print(world.name, event.outcome, flush=True)
        harness.time.sleep(3)  # sweeps
        world.assert_clean(sent)
        world.assertIn(box["id"], world.sim.live())
        world.assertEqual(worker.end(), 0)
    return plan


class Late(harness.Case):
    seconds = 20

    def test_delivered_again_when_its_time_is_over(self):
        worlds.live_through(self, {f"{i} {name} {mode}": late(*TIMES[name], mode) for i, (name, mode) in enumerate(
            (name, mode) for name in TIMES for mode in ("ensure", "create", "resume"))})


if __name__ == "__main__":
    harness.unittest.main()
