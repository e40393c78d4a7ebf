#!/usr/bin/python3
"""One real Apache Kafka broker for the tests: formatted, started, paused, killed and stopped by pid.

It runs from the jars in build/kafka/libs (`make kafka`), with a data folder and free loopback ports
of its own, so that any number of them run side by side. By hand:

    tests/kafka/broker.py [--port 19092] [--data DIR]      runs one until Ctrl-C
"""

import argparse
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
JAVA = ["java", "-Xms256m", "-Xmx512m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC",
        "-Djava.awt.headless=true", f"-Dlog4j2.configurationFile={HERE / 'log4j2.properties'}"]

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
    """home holds its data, its configuration and its log."""

    def __init__(self, home, port=None):
        self.home = pathlib.Path(home)
        self.data = self.home / "data"
        self.log = self.home / "broker.log"
        self.conf = self.home / "broker.properties"
        self.port = port or free_port()
        self.address = f"127.0.0.1:{self.port}"
        self.process = None

    def format(self):
        """Empties the data folder and writes the configuration."""
        shutil.rmtree(self.data, ignore_errors=True)
        self.home.mkdir(parents=True, exist_ok=True)
        text = (HERE / "broker.properties").read_text()
        for name, value in (("PORT", self.port), ("CONTROLLER", free_port()), ("DATA", self.data)):
            text = text.replace(f"@{name}@", str(value))
        self.conf.write_text(text)
        with open(self.log, "ab") as log:
            subprocess.run(self._java("kafka.tools.StorageTool", "format", "-c", self.conf,
                                      "-t", "c2Vzc2lvbi13b3JrZXItMQ"),
                           check=True, timeout=60, stdout=log, stderr=log)

    def start(self, timeout=60):
        if not list(LIBS.glob("kafka_*.jar")):
            raise RuntimeError(f"no Kafka in {LIBS}: run `make kafka`")
        if not self.data.exists():
            self.format()
        with open(self.log, "ab") as log:
            self.process = spawn(self._java("kafka.Kafka", self.conf), stdout=log, stderr=log)
        end = time.monotonic() + timeout
        while not self._answers():
            if self.process.poll() is not None or time.monotonic() > end:
                self.kill()
                raise RuntimeError(f"the broker did not start:\n{self.log.read_text()[-4000:]}")
            time.sleep(0.05)
        return self

    def pause(self):
        """Everything stands still, as on a machine that is frozen; connections stay open."""
        self.process.send_signal(signal.SIGSTOP)

    def resume(self):
        self.process.send_signal(signal.SIGCONT)

    def kill(self):
        if self.process and self.process.poll() is None:
            self.process.kill()
        if self.process:
            self.process.wait()
        self.process = None

    def stop(self, timeout=20):
        if self.process and self.process.poll() is None:
            self.resume()
            self.process.terminate()
            try:
                self.process.wait(timeout)
            except subprocess.TimeoutExpired:
                pass
        self.kill()

    def _java(self, *args):
        return [*JAVA, f"-Dkafka.logs.dir={self.home}", "-cp", f"{LIBS}/*", *map(str, args)]

    def _answers(self):
        try:
            socket.create_connection(("127.0.0.1", self.port), 1).close()
            return True
        except OSError:
            return False


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
