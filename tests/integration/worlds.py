"""Many small worlds in one test: each has topics, a group and a fleet of its own, and its own
workers, on the test's broker and beside its simulator. They live in threads, so that what is mostly
waiting (for a group to notice a death) is waited for side by side."""

import concurrent.futures
import re

import harness
from confluent_kafka.admin import AdminClient, NewTopic


class Fleet:
    """The simulator, as far as one fleet is concerned."""

    def __init__(self, sim, fleet):
        self.sim, self.fleet, self.url = sim, fleet, sim.url

    def ledger(self):
        return [box for box in self.sim.ledger() if box["name"].startswith(f"{self.fleet}.")]

    def live(self):
        return {box["id"]: box for box in self.ledger() if box["destroyed_at"] is None}

    def stats(self):
        """Without what it says of sessions of one name in two fleets (assert_never_two_live looks)."""
        stats = self.sim.stats()
        stats["violations"] = {what: n for what, n in stats["violations"].items()
                               if not what.startswith("two live sandboxes")}
        return stats


class World(harness.Case):
    partitions = 2
    result_partitions = 1
    properties = ["session.timeout.ms=3000", "heartbeat.interval.ms=300", "transaction.timeout.ms=4000"]

    def __init__(self, case, name):
        super().__init__()
        tag = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
        self.name = name
        self.prefix = f"t{harness.os.getpid()}-{tag}"[:40].rstrip("-")
        self.folder = case.folder / tag
        self.folder.mkdir(exist_ok=True)
        for old in self.folder.glob("*"):
            old.unlink()
        self.kafka_address = case.kafka_address
        self.sim = Fleet(case.sim, self.prefix)
        self._open()

    def _create_topics(self):
        super()._create_topics()
        self.progress_topic = f"{self.prefix}-progress"
        admin = AdminClient({"bootstrap.servers": self.kafka_address})
        admin.create_topics([NewTopic(self.progress_topic, 1, 1)])[self.progress_topic].result(30)

    def runTest(self):
        """It is a part of a test and none by itself."""


def explain(world, why):
    """(what went wrong, how the logs of its workers end)."""
    return f"{world.name}: {type(why).__name__}: {why}", "".join(
        f"---- {w.log}\n{w.tail(12)}\n" for w in world.workers)


def live_through(case, plans, side_by_side=12):
    """plans: name -> function(world). Each is lived through in a world of its own; the test fails
    with what went wrong in each of them."""
    def live(item):
        name, plan = item
        began = harness.time.monotonic()
        world = None
        try:
            world = World(case, name)
            plan(world)
            return None
        except Exception as why:  # pylint: disable=broad-except; told below, with the world's name
            return explain(world, why) if world else (f"{name}: {why}", "")
        finally:
            if world:
                for worker in world.workers:
                    if worker.running:
                        worker.kill()
                world.doCleanups()
            print(f"{name}: {harness.time.monotonic() - began:.1f} s", flush=True)

    with concurrent.futures.ThreadPoolExecutor(side_by_side) as pool:
        broken = [told for told in pool.map(live, plans.items()) if told]
    case.assertEqual(len(broken), 0, "\n".join([*(why for why, _ in broken), "", *(logs for _, logs in broken)]))
