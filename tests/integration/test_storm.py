"""The provider has a bad time: it refuses in masses, stands still, is not there, does not exist, never
answers or trickles. Jobs wait or fail within their time, and Kafka is served all the while."""

import socket
import threading

import harness
from harness import SOAK, start, until


class Deaf:
    """Takes connections in; says `word`, a byte a second, or nothing. Of this thread's life."""

    def __init__(self, word=b""):
        self.word = word
        self.socket = socket.socket()
        self.socket.bind(("127.0.0.1", harness.free_port()))
        self.socket.listen(64)
        self.url = f"http://127.0.0.1:{self.socket.getsockname()[1]}/api"
        self.ended = threading.Event()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while not self.ended.is_set():
            try:
                connection, _ = self.socket.accept()
            except OSError:
                return
            threading.Thread(target=self._speak, args=(connection,), daemon=True).start()

    def _speak(self, connection):
        with connection:
            for i in range(len(self.word)):
                try:
                    connection.sendall(self.word[i:i + 1])
                except OSError:
                    return
                self.ended.wait(0 if i < 40 else 1)  # the head comes at once
            self.ended.wait(600)

    def close(self):
        self.ended.set()
        self.socket.close()


class Storm(harness.Case):
    seconds = 45

    def providers(self, **urls):
        key = self.folder / "key"
        key.write_text(harness.API_KEY)
        key.chmod(0o600)
        return self.settings["providers"] + [
            {"name": name, "type": "daytona", "api_url": url, "api_key_file": str(key), "targets": ["us"],
             "creates_per_minute": 60000} for name, url in urls.items()]

    def assert_served(self, worker):
        """The loop was never late by a second (a loaded machine: five), nothing was lost."""
        late = worker.metric("loop_lag_seconds_count") - worker.metric("loop_lag_seconds_bucket", le="1")
        self.assertLessEqual(late, 2 if harness.os.getloadavg()[0] > 4 else 0, "turns of the loop came late")
        self.assertEqual(worker.metric("kafka_rebalances_total", event="lost"), 0)

    def descriptors(self, worker):
        return len(list(harness.pathlib.Path(f"/proc/{worker.process.pid}/fd").iterdir()))

    def test_refusals_in_masses_and_a_standstill(self):
        worker = self.worker(jobs__attempts=10)
        sent = self.produce(*[start(f"first{i}", "half-second") for i in range(150)])
        self.events_of(sent)  # as many at once as later, and idle connections are kept
        before = self.descriptors(worker)
        for status in (503, 429, 502):
            self.sim.fault("status", "/api/", status=status, times=150)
            sent += self.produce(*[start(f"s{status}-{i}", "half-second", timeout_seconds=120) for i in range(50)])
        harness.time.sleep(1)
        self.sim.freeze()  # connections are taken in, and nothing is answered
        harness.time.sleep(5)
        self.sim.thaw()
        events = self.events_of(sent, limit=120)
        self.sim.no_faults()
        self.assertEqual([e for e in events if e.outcome != "ready"], [])
        self.assert_served(worker)
        until(lambda: self.descriptors(worker) <= before + 20, 30,
              lambda: f"{self.descriptors(worker)} descriptors are open, {before} were", 0.5)
        self.assert_clean(sent)
        self.assertEqual(len(self.sim.ledger()), len(sent), "a session got a second sandbox")

    if SOAK:  # each waits for the minute that a look before a failure may take
        def test_a_provider_that_is_not_there(self):
            worker = self.worker(providers=self.providers(
                refused=f"http://127.0.0.1:{harness.free_port()}/api", nowhere="http://no-such-host.invalid/api"))
            sent = self.produce(*[start(f"{name}{i}", provider=name, timeout_seconds=20)
                                  for name in ("refused", "nowhere", "daytona") for i in range(20)])
            for event in self.events_of(sent, limit=100):
                name = event["provider"]
                self.assertEqual(event.outcome, "ready" if name == "daytona" else "provider_unavailable", event.json)
                if name != "daytona":
                    self.assertTrue(event["error.retryable"])
            self.assert_served(worker)
            self.assert_clean(sent)

        def test_a_provider_that_never_answers(self):
            silent, trickle = Deaf(), Deaf(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n" + b" " * 900)
            self.addCleanup(silent.close)
            self.addCleanup(trickle.close)
            worker = self.worker(providers=self.providers(silent=silent.url, trickle=trickle.url))
            began = harness.time.monotonic()
            sent = self.produce(*[start(f"{name}{i}", provider=name, timeout_seconds=10)
                                  for name in ("silent", "trickle") for i in range(20)])
            sent += self.produce(*[start(f"daytona{i}") for i in range(20)])
            for event in self.events_of(sent, limit=150):
                self.assertEqual(event.outcome == "ready", event["provider"] == "daytona", event.json)
            self.assertLess(harness.time.monotonic() - began, (10 + 60 + 30) * harness.PATIENCE)
            self.assert_served(worker)
            self.assert_clean(sent)


if __name__ == "__main__":
    harness.unittest.main()
