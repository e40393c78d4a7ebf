#!/usr/bin/python3
"""Real Apache Kafka for the tests, one node or three: formatted, started, paused, killed and stopped by
pid.

It runs from the jars in build/kafka/libs (`make kafka`), with a data folder and free loopback ports
of its own, so that any number of them run side by side. By hand:

    tests/kafka/broker.py [--port 19092] [--data DIR]      runs one until Ctrl-C
"""

import argparse
import concurrent.futures
import os
import pathlib
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
LIBS = ROOT / os.environ.get("BUILD", "build") / "kafka" / "libs"

# Small heap, no time for a second compiler: the port is open about 1.5 s after the start.
JAVA = ["java", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Djava.awt.headless=true",
        f"-Dlog4j2.configurationFile={HERE / 'log4j2.properties'}"]

_held = []  # sockets that keep the ports we gave out from being given out again


def free_port():
    """A free loopback port below 32768: from there on any outgoing connection may hold it.

    An abstract Unix socket of the same number marks it as taken for as long as this process lives,
    so that tests running side by side do not choose the same one.
    """
    for _ in range(1000):
        port = random.randrange(20000, 32000)
        mark = socket.socket(socket.AF_UNIX)
        probe = socket.socket()
        try:
            mark.bind(f"\0session-worker-port-{port}")
            probe.bind(("127.0.0.1", port))
            _held.append(mark)
            return port
        except OSError:
            mark.close()
        finally:
            probe.close()
    raise RuntimeError("no free port between 20000 and 32000")


def spawn(argv, **kw):
    """Starts a process that dies with us, however we end."""
    return subprocess.Popen(["setpriv", "--pdeathsig", "KILL", *map(str, argv)],
                            stdin=subprocess.DEVNULL, **kw)


class Broker:
    """A node. home holds its data, its configuration and its log.

    proxied: it has a second listener, `behind`, and tells clients that come by that one to go to the
    port `front`, where a proxy is to listen that leads to `behind`. Others go straight.

    session_ms: after so long a silence a node counts as dead. Short: one that was killed serves again
    soon. Long: a machine that stands still for a moment does not leave its clients without a broker."""

    def __init__(self, home, port=None, proxied=False, number=1, heap=512, session_ms=1500):
        self.home = pathlib.Path(home)
        self.data = self.home / "data"
        self.log = self.home / "broker.log"
        self.conf = self.home / "broker.properties"
        self.port = port or free_port()
        self.front, self.behind = (free_port(), free_port()) if proxied else (None, None)
        self.controller = free_port()
        self.number = number
        self.heap = heap
        self.session_ms = session_ms
        self.voters = [self]  # of the controllers' quorum
        self.address = f"127.0.0.1:{self.port}"
        self.process = None

    def format(self):
        """Empties the data folder and writes the configuration."""
        shutil.rmtree(self.data, ignore_errors=True)
        self.home.mkdir(parents=True, exist_ok=True)
        text = (HERE / "broker.properties").read_text()
        for name, value in self._values().items():
            text = text.replace(f"@{name}@", str(value))
        self.conf.write_text(text)
        with open(self.log, "ab") as log:
            subprocess.run(self._java("kafka.tools.StorageTool", "format", "-c", self.conf,
                                      "-t", "c2Vzc2lvbi13b3JrZXItMQ"),
                           check=True, timeout=60, stdout=log, stderr=log)

    def launch(self):
        """Starts it; it may not serve yet."""
        if not list(LIBS.glob("kafka_*.jar")):
            raise RuntimeError(f"no Kafka in {LIBS}: run `make kafka`")
        if not self.data.exists():
            self.format()
        with open(self.log, "ab") as log:
            self.process = spawn(self._java("kafka.Kafka", self.conf), stdout=log, stderr=log)

    def wait_open(self, timeout=60):
        end = time.monotonic() + timeout
        while not self._answers():
            if self.process.poll() is not None or time.monotonic() > end:
                self.kill()
                raise RuntimeError(f"the broker did not start:\n{self.log.read_text()[-4000:]}")
            time.sleep(0.05)
        return self

    def start(self, timeout=60):
        self.launch()
        return self.wait_open(timeout)

    @property
    def running(self):
        return self.process is not None and self.process.poll() is None

    def pause(self):
        """Everything stands still, as on a machine that is frozen; connections stay open."""
        self.process.send_signal(signal.SIGSTOP)

    def resume(self):
        self.process.send_signal(signal.SIGCONT)

    def kill(self):
        if self.running:
            self.process.kill()
        if self.process:
            self.process.wait()
        self.process = None

    def stop(self, timeout=20):
        if self.running:
            self.resume()
            self.process.terminate()
            try:
                self.process.wait(timeout)
            except subprocess.TimeoutExpired:
                pass
        self.kill()

    def _values(self):
        listeners = {"PLAINTEXT": self.port, "PROXIED": self.behind, "CONTROLLER": self.controller}
        advertised = {"PLAINTEXT": self.port, "PROXIED": self.front}

        def show(ports):
            return ",".join(f"{name}://127.0.0.1:{port}" for name, port in ports.items() if port)

        alone = len(self.voters) == 1
        return {"NODE": self.number, "DATA": self.data, "LISTENERS": show(listeners),
                "ADVERTISED": show(advertised),
                "VOTERS": ",".join(f"{n.number}@127.0.0.1:{n.controller}" for n in self.voters),
                "REPLICAS": 1 if alone else 3, "MIN_ISR": 1 if alone else 2,
                "SESSION": self.session_ms}

    def _java(self, *args):
        memory = [f"-Xms{self.heap // 2}m", f"-Xmx{self.heap}m"]
        return [*JAVA, *memory, f"-Dkafka.logs.dir={self.home}", "-cp", f"{LIBS}/*", *map(str, args)]

    def _answers(self):
        try:
            socket.create_connection(("127.0.0.1", self.port), 1).close()
            return True
        except OSError:
            return False


class Cluster:
    """One node, or three that replicate everything three times (two must have it)."""

    def __init__(self, home, nodes=3, proxied=False):
        home = pathlib.Path(home)
        heap = 512 if nodes == 1 else 256
        session_ms = 1500 if nodes == 1 else 3000
        self.nodes = [Broker(home / f"node-{i + 1}", proxied=proxied, number=i + 1, heap=heap, session_ms=session_ms)
                      for i in range(nodes)]
        for node in self.nodes:
            node.voters = self.nodes
        self.address = ",".join(node.address for node in self.nodes)
        self.replicas = 1 if nodes == 1 else 3

    def start(self):
        with concurrent.futures.ThreadPoolExecutor() as pool:
            list(pool.map(Broker.format, self.nodes))
        for node in self.nodes:
            node.launch()
        for node in self.nodes:
            node.wait_open()
        return self

    def stop(self):
        for node in self.nodes:  # together: one alone cannot hand over
            if node.running:
                node.resume()
                node.process.terminate()
        for node in self.nodes:
            node.stop(10)


def main():
    args = argparse.ArgumentParser(description="runs one Kafka broker until Ctrl-C")
    args.add_argument("--port", type=int, default=19092)
    args.add_argument("--data", help="its folder, kept; default: a temporary one")
    args = args.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with tempfile.TemporaryDirectory(prefix="kafka-") as scratch:
        broker = Broker(args.data or scratch, args.port).start()
        print(f"Kafka at {broker.address}, pid {broker.process.pid}", flush=True)
        try:
            code = broker.process.wait()
        except KeyboardInterrupt:
            broker.stop()
            code = 0
    return code


if __name__ == "__main__":
    sys.exit(main())
