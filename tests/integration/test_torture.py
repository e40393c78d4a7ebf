"""Jobs of every kind while everything is done to workers, brokers and connections, chosen by dice.

The faults come evenly over the time in which jobs come in: workers are killed and frozen, added and
drained; brokers are killed and frozen; connections are cut, single requests or their answers lost
or held. Then everything heals, and the history is judged: tests/kafka/history.py. The seed is
printed and chooses the same faults again; when they strike is up to the machine.

tests/kafka/soak.py is the same for long, on three brokers.
"""

import heapq
import itertools
import json
import os
import random
import signal
import sys
import threading
import time

import confluent_kafka

import harness
import history
import proxy as kinds
from broker import Cluster
from harness import Case, delete, start, until
from proxy import Proxy

WORKERS = (2, 5)      # at least, at most
SETTLED = 4           # seconds a worker or broker has lived before harm comes to it
BROKER_REST = 12      # seconds between two faults of brokers
PEACE = 10            # while a job has waited for longer no worker dies: else it would be to blame
HARMS = [(do, api) for do in ("cut", "cut_after", "delay", "lose", "mute")
         for api in (kinds.PRODUCE, kinds.ADD_PARTITIONS, kinds.ADD_OFFSETS, kinds.TXN_OFFSET_COMMIT,
                     kinds.END_TXN, kinds.INIT_PRODUCER_ID, kinds.OFFSET_FETCH, kinds.JOIN_GROUP,
                     kinds.SYNC_GROUP, kinds.HEARTBEAT, kinds.FIND_COORDINATOR, kinds.FETCH)]

JOBS = [ # of every twenty: what is asked, and how it may end; with the session of an earlier one
    *[(lambda s, _: start(s), {"ready"})] * 11,
    *[(lambda s, _: start(s, "half-second"), {"ready"})] * 3,
    (lambda s, _: start(s, server={"kind": "v1"}), {"ready"}),
    (lambda s, _: start(s, "sim-dead-server"), {"server_exited"}),
    (lambda s, _: start(s, "sim-dead-server", on_failure="keep"), {"server_exited"}),
    (lambda s, _: start(s, env={"FOO": 7}), {"invalid_job"}),
    *[(lambda _, earlier: delete(earlier), {"deleted", "not_found"})] * 2,
]


class Patient(harness.Reader):
    """Reads on whatever the broker is doing; an own thread calls it."""

    def poll(self, seconds):
        messages = [m for m in self.consumer.consume(500, seconds) if not m.error()]
        self.events.extend(map(history.Event.of, messages))
        return bool(messages)


class Torture(Case):
    own_kafka = True
    seconds = 100
    nodes, jobs, faults, jobs_per_second = 1, 1000, 20, 20
    seed = int(os.environ.get("SEED", "4"))
    properties = [*Case.properties, "transaction.timeout.ms=8000", "socket.timeout.ms=5000"]

    # ---- the world ----

    def _broker(self):
        self.kafka = Cluster(self.folder / "kafka", self.nodes, proxied=True).start()
        self.replicas = self.kafka.replicas
        self.addCleanup(self.kafka.stop)
        self.proxy = Proxy(self.kafka.nodes)
        self.addCleanup(self.proxy.close)
        return self.kafka.address

    def setUp(self):
        super().setUp()
        self.settings["jobs.timeout_seconds"] = 300
        self.settings["kafka.brokers"] = self.proxy.address
        self.settings["jobs.max_in_flight"] = 200
        self.results.close()
        self.results = Patient(self.kafka_address, self.results_topic)
        self.dice = random.Random(self.seed)
        self.sent, self.taken, self.ends, self.notes = [], {}, [], []
        self.due, self.order = [], itertools.count()  # what is to be undone, and when
        self.born = {}  # worker or broker -> since when it lives undisturbed
        self.broker_rest, self.deck, self.removed = 0, [], []
        self.over = threading.Event()

    def note(self, text):
        self.notes.append((history.now_ms(), text))
        if os.environ.get("SHOW"):
            print(f"{history.clock(history.now_ms())} {text}", file=sys.stderr, flush=True)

    def later(self, seconds, text, do, *args):
        heapq.heappush(self.due, (time.monotonic() + seconds, next(self.order), text, do, args))

    def serve(self):
        """Undoes what is due; starts again what has ended by itself with the wish to be."""
        while self.due and self.due[0][0] <= time.monotonic():
            _, _, text, do, args = heapq.heappop(self.due)
            self.note(text)
            do(*args)
        for worker in self.workers:
            if worker in self.born and not worker.running:
                code = worker.process.returncode
                self.assertEqual(code, 75, f"{worker.name} ended by itself:\n{worker.tail(20)}")
                self.note(f"{worker.name} has ended with 75 and is started again")
                self.launch(worker)

    def wait(self, seconds):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.serve()
            time.sleep(0.05)

    # ---- threads: jobs in, results out ----

    def feed(self):
        """Puts the jobs in; what the broker says it has must be there in the end. (A record may be there
        twice, when the answer to it was lost: then it is two jobs.)"""
        producer = confluent_kafka.Producer({
            "bootstrap.servers": self.kafka_address, "acks": "all", "max.in.flight": 1, "linger.ms": 5,
            "partitioner": "murmur2_random", "log_level": 2})
        dice, began = random.Random(self.seed + 1), time.monotonic()

        def delivered(i):
            def note(error, message):
                where = error or f"{message.topic()}/{message.partition()}/{message.offset()}"
                self.taken[i] = where, time.monotonic()
            return note

        for i in range(self.jobs):
            make, ends = JOBS[dice.randrange(len(JOBS))]
            job = {**make(f"s{i}", f"s{max(0, i - dice.randrange(1, 200))}"), "metadata": {"number": i}}
            self.ends.append(set(ends))
            if job["type"] == "delete-session" and job["session_id"] != f"s{i}":
                self.ends[int(job["session_id"][1:])].add("cancelled")  # should it overtake the start
            producer.produce(self.jobs_topic, json.dumps(job), job["session_id"], on_delivery=delivered(i))
            while (left := began + i / self.jobs_per_second - time.monotonic()) > 0:
                producer.poll(left)
        producer.flush(120)

    def jobs_there(self):
        """The jobs as they are in the topic."""
        reader = Patient(self.kafka_address, self.jobs_topic)
        until(lambda: not reader.poll(1) and len(reader.events) >= len(self.taken), 60, "jobs are missing")
        reader.close()
        there = {f"{e.topic}/{e.partition}/{e.offset}": e for e in reader.events}
        for i in range(self.jobs):
            where = self.taken.get(i, (None, 0))[0]
            self.assertIn(where, there, f"job {i} has not been taken")
            self.assertEqual(there[where]["metadata.number"], i)
        return [history.Sent(e.json, e.topic, e.partition, e.offset, e.key, e.time_ms) for e in there.values()]

    def watch(self):
        while not self.over.is_set():
            self.results.poll(0.1)

    # ---- workers ----

    def add(self):
        worker = self.worker(ready=False)
        self.born[worker] = time.monotonic()
        return worker

    def launch(self, worker):
        worker.launch()
        self.born[worker] = time.monotonic()

    def thaw(self, worker):
        worker.thaw()
        self.born[worker] = time.monotonic()

    def settled(self):
        """Workers to which harm may come now: one is always left in peace."""
        ready = [w for w, born in self.born.items()
                 if isinstance(w, harness.Worker) and time.monotonic() - born > SETTLED]
        return ready if len(ready) > 1 else []

    def waiting(self):
        """How long, in seconds, the job that waits longest has been waiting."""
        seen, now = {e.ce_id for e in list(self.results.events)}, time.monotonic()
        return max((now - at for where, at in list(self.taken.values()) if where not in seen), default=0)

    # ---- faults: each returns what it did, or None when it cannot be done now ----

    def kill_worker(self):
        if not self.settled() or self.waiting() > PEACE:
            return None
        worker, pause = self.dice.choice(self.settled()), self.dice.uniform(0, 3)
        del self.born[worker]
        worker.kill()
        self.later(pause, f"{worker.name} is started again", self.launch, worker)
        return f"{worker.name} is killed"

    def freeze_worker(self):
        if not self.settled() or self.waiting() > PEACE:
            return None
        worker, pause = self.dice.choice(self.settled()), self.dice.uniform(0.5, 10)
        del self.born[worker]
        worker.freeze()
        self.later(pause, f"{worker.name} is woken", self.thaw, worker)
        return f"{worker.name} is frozen for {pause:.1f} s"

    def add_worker(self):
        if sum(isinstance(w, harness.Worker) for w in self.born) >= WORKERS[1]:
            return None
        return f"{self.add().name} is added"

    def remove_worker(self):
        if len(self.settled()) <= WORKERS[0]:
            return None
        worker = self.dice.choice(self.settled())
        del self.born[worker]
        worker.send(signal.SIGTERM)
        self.removed.append(worker)
        return f"{worker.name} is drained"

    def choose_node(self):
        if time.monotonic() < self.broker_rest or not all(n.running for n in self.kafka.nodes):
            return None
        self.broker_rest = time.monotonic() + BROKER_REST
        return self.dice.choice(self.kafka.nodes)

    def kill_broker(self):
        node, pause = self.choose_node(), self.dice.uniform(0.2, 3)
        if not node:
            return None
        node.kill()
        self.later(pause, f"broker {node.number} is started again", node.launch)
        return f"broker {node.number} is killed"

    def freeze_broker(self):
        node, pause = self.choose_node(), self.dice.uniform(0.5, 6)
        if not node:
            return None
        node.pause()
        self.later(pause, f"broker {node.number} is woken", node.resume)
        return f"broker {node.number} is frozen for {pause:.1f} s"

    def cut_worker(self):
        if not self.settled():
            return None
        worker = self.dice.choice(self.settled())
        return f"{self.proxy.cut(client=self.instance(worker))} connections of {worker.name} are cut"

    def cut_broker(self):
        node = self.dice.choice(self.kafka.nodes)
        return f"{self.proxy.cut(port=node.behind)} connections to broker {node.number} are cut"

    def harm(self):
        if not self.settled():
            return None
        worker, (do, api) = self.dice.choice(self.settled()), self.dice.choice(HARMS)
        nth, pause = self.dice.randint(1, 4), self.dice.uniform(0.1, 4)
        self.proxy.add(do, api, client=self.instance(worker), nth=nth, seconds=pause)
        return f"{do} request {nth} of kind {api} of {worker.name} ({pause:.1f} s)"

    def late(self):
        """A request of one transaction arrives in the next one."""
        if not self.settled():
            return None
        worker = self.dice.choice(self.settled())
        api, before = self.dice.choice([(kinds.END_TXN, (kinds.TXN_OFFSET_COMMIT, 1)),
                                        (kinds.TXN_OFFSET_COMMIT, (kinds.END_TXN, 2))])
        self.proxy.add("late", api, client=self.instance(worker), before=before)
        return f"a request of kind {api} of {worker.name} will be late"

    DECK = [kill_worker] * 3 + [freeze_worker] * 3 + [add_worker] * 2 + [remove_worker] * 2 + \
           [kill_broker] * 2 + [freeze_broker, cut_worker, cut_broker] + [harm] * 3 + [late] * 2

    def instance(self, worker):
        return f"{self.prefix}-{worker.name}"

    def strike(self):
        """One fault, the first in the deck that can be done now. All kinds come round."""
        while True:
            for kind in self.deck:
                what = kind(self)
                if what:
                    self.deck.remove(kind)
                    self.note(what)
                    return
            self.deck += self.dice.sample(self.DECK, len(self.DECK))
            self.wait(0.05)

    def heal(self):
        self.proxy.clear()
        while self.due:
            self.wait(0.1)
        until(lambda: all(n.running for n in self.kafka.nodes), 1, "a broker has died by itself")

    # ---- the run ----

    def test_torture(self):
        threads = [threading.Thread(target=run, daemon=True) for run in (self.feed, self.watch)]
        for _ in range(3):
            self.add().wait_ready(40)
        began = time.monotonic()
        for thread in threads:
            thread.start()
        self.addCleanup(self.over.set)
        pause, struck = self.jobs / self.jobs_per_second / (self.faults + 1), []
        for i in range(self.faults):
            self.wait(began + (i + 1) * pause - time.monotonic())
            self.strike()
            struck.append(history.now_ms())
        self.heal()
        threads[0].join(self.jobs / self.jobs_per_second + 150)
        self.sent = self.jobs_there()
        self.assertGreater(max(s.time_ms for s in self.sent), struck[len(struck) * 3 // 4],
                           "faults that struck when all was over")
        self.wait_for_all(threads[1])
        self.judge(time.monotonic() - began)

    def wait_for_all(self, watcher):
        """Until each job has a result, or nothing has come for too long."""
        wanted, last, since = {s.ce_id for s in self.sent}, -1, time.monotonic()
        while time.monotonic() - since < 60 * harness.PATIENCE:
            seen = {e.ce_id for e in list(self.results.events)}
            if wanted <= seen:
                break
            if len(seen) != last:
                last, since = len(seen), time.monotonic()
            self.wait(0.2)
        self.wait(1)
        self.over.set()
        watcher.join(10)

    def judge(self, took):
        def settled():
            self.dead.poll(0.5)
            return not history.judge_dead(self.sent, self.results.events, self.dead.events) and \
                not history.judge_boxes(self.results.events, self.sim.ledger())

        try:
            until(settled, 30, "")
        except AssertionError:
            pass  # the verdict says what is wrong
        past = history.History(self.sent, self.results.events, self.dead.events, self.sim.ledger(),
                               self.committed(), self.notes, sorted(self.folder.glob("worker-*.log")))
        past.save(self.folder)
        findings = past.findings()
        ends = {s.ce_id: self.ends[s.job["metadata"]["number"]] for s in self.sent}
        wrong = [e for e in self.results.events if e.outcome not in ends.get(e.ce_id, ())]
        if findings:
            print(past.stories(findings))
        self.verdict = (f"{self.nodes} brokers, {len(self.notes)} faults and mends, seed {self.seed}, {took:.0f} s\n"
                        f"{past.verdict(findings)}, {len(wrong)} ended otherwise than they should")
        print(self.verdict)
        self.assertEqual(wrong, [])
        self.assertEqual(findings, [])
        self.assert_careful()
        for worker in self.removed:
            self.assertEqual(worker.end(), 0, worker.tail(15))


if __name__ == "__main__":
    harness.unittest.main()
