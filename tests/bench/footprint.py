"""What the worker is before it does anything: its size, its start, its memory when idle."""

import os
import pathlib
import re
import shutil
import socket
import statistics
import subprocess
import tempfile
import time

from harness import API_KEY, OUT, free_port, spawn

PROGRAM = OUT / "session-worker"
ENVIRONMENT = {"PATH": os.environ["PATH"], "DAYTONA_API_KEY": API_KEY}
IDLE_SECONDS = 5


def size_mb():
    with tempfile.TemporaryDirectory() as folder:
        copy = pathlib.Path(folder) / "stripped"
        shutil.copy(PROGRAM, copy)
        subprocess.run(["strip", copy], check=True)
        return copy.stat().st_size / 1e6


def help_ms():
    began = time.perf_counter()
    subprocess.run([PROGRAM, "--help"], stdout=subprocess.DEVNULL, check=True)
    return (time.perf_counter() - began) * 1000


def asks_broker_ms():
    """From its start until its first request reaches a broker, which here is only a socket."""
    with socket.socket() as broker:
        port = free_port()
        broker.bind(("127.0.0.1", port))
        broker.listen()
        began = time.perf_counter()
        worker = spawn([PROGRAM, "-s", f"kafka.brokers=127.0.0.1:{port}", "-s", "admin.listen="],
                       env=ENVIRONMENT, stderr=subprocess.DEVNULL)
        try:
            broker.settimeout(30)
            connection, _ = broker.accept()
            connection.recv(1)
            return (time.perf_counter() - began) * 1000
        finally:
            worker.kill()
            worker.wait()


def idle_mb(world):
    """Resident memory of a worker that owns partitions and has nothing to do."""
    with world.run({"boot": 1, "server": 1}) as run:
        worker = run.start_worker(1000)
        time.sleep(IDLE_SECONDS)
        status = pathlib.Path(f"/proc/{worker.process.pid}/status").read_text()
        worker.end()
        return int(re.search(r"VmRSS:\s*(\d+)", status).group(1)) / 1024


def run(world, report, runs):
    rows = [
        ("size, stripped", "MB", 1.0, [size_mb()]),
        ("--help", "ms", 10.0, [help_ms() for _ in range(10 * runs)]),
        ("start until the first request to the broker", "ms", 50.0, [asks_broker_ms() for _ in range(5 * runs)]),
        ("resident memory when idle", "MB", 16.0, [idle_mb(world)]),
    ]
    print("\nfootprint; of times the quickest, which is what the program needs, and the median", flush=True)
    for what, unit, target, values in rows:
        value = min(values)
        median = f", median {statistics.median(values):.1f}" if len(values) > 1 else ""
        print(f"    {what:<45}{value:8.2f} {unit}  (target {target:g}: {'met' if value <= target else 'MISSED'}{median})",
              flush=True)
    report.append({"case": "footprint", "rows": rows})
