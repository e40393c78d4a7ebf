#!/usr/bin/python3
"""docker-compose.yml for real: three workers, 500 sessions, one worker killed, one added; exactly one
event each, no sandbox too many, and nothing left when it is over.

    tests/compose/run.py [--stand-ins] [--keep] [--sessions 500]

Needs Docker with Compose (DOCKER_HOST says which), and images from a registry. Where none can be
reached, --stand-ins makes debian:trixie-slim with debootstrap (as root) and apache/kafka from
Maven's jars first, if they are not there. Its project, volumes and ports are its own.
"""

import argparse
import collections
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request

import confluent_kafka

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
LIBS = ROOT / os.environ.get("BUILD", "build") / "kafka" / "libs"
PROJECT = "session-worker-test"
PORTS = {"KAFKA_PORT": "21092", "SIM_PORT": "21986"}
SIM = f"http://127.0.0.1:{PORTS['SIM_PORT']}"
ENV = {**{n: v for n, v in os.environ.items() if not n.startswith(("DAYTONA_", "SESSION_WORKER_"))},
       **PORTS, "COMPOSE_PROJECT_NAME": PROJECT}
DEBIAN, KAFKA, VERSION = "debian:trixie-slim", "apache/kafka:4.1.1", "4.1.1"
LIMIT = 300  # seconds for all sessions


def run(*argv, **kw):
    return subprocess.run([*map(str, argv)], cwd=ROOT, env=ENV, check=True, text=True, **kw)


def read(*argv):
    return run(*argv, stdout=subprocess.PIPE).stdout.strip()


def compose(*argv):
    run("docker", "compose", "--progress", "quiet", *argv)


def say(text):
    print(f"[{time.strftime('%H:%M:%S')}] {text}", flush=True)


def must(true, what):
    if not true:
        raise AssertionError(what)


# ---- images where there is no registry ----

def has_image(name):
    return bool(read("docker", "image", "ls", "-q", name))


def make_debian(folder):
    root = folder / "root"
    root.mkdir(mode=0o755)
    run("debootstrap", "--variant=minbase", "trixie", root, stdout=subprocess.DEVNULL)
    with subprocess.Popen(["tar", "-C", root, "-c", "."], stdout=subprocess.PIPE) as tar:
        run("docker", "import", "-c", 'CMD ["bash"]', "-", DEBIAN, stdin=tar.stdout)


def make_kafka(folder):
    context = folder / "kafka"
    shutil.copytree(LIBS, context / "libs")
    run("mvn", "-q", "-B", "-ntp", "dependency:copy", f"-DoutputDirectory={context / 'libs'}",
        f"-Dartifact=org.apache.kafka:kafka-tools:{VERSION}")
    run("docker", "build", "-q", "-f", HERE / "kafka.Dockerfile", "-t", KAFKA, context)


def stand_ins():
    with tempfile.TemporaryDirectory() as folder:
        for name, make in ((DEBIAN, make_debian), (KAFKA, make_kafka)):
            if not has_image(name):
                say(f"making a stand-in for {name}")
                make(pathlib.Path(folder))


# ---- containers ----

def containers(service):
    return read("docker", "compose", "ps", "-q", service).split()


def inspect(container, what):
    return read("docker", "inspect", "-f", what, container)


def main_process(container):
    return int(inspect(container, "{{.State.Pid}}"))


def check_locked_in(container):
    """What the container's process may do, as the kernel sees it."""
    lines = pathlib.Path(f"/proc/{main_process(container)}/status").read_text().splitlines()
    status = dict(line.split(":\t", 1) for line in lines)
    found = {name: status[name].split()[0] for name in ("Uid", "Gid", "CapEff", "CapBnd", "NoNewPrivs", "Seccomp")}
    zero = "0" * 16
    wanted = {"Uid": "10001", "Gid": "10001", "CapEff": zero, "CapBnd": zero, "NoNewPrivs": "1", "Seccomp": "2"}
    must(found == wanted, f"the worker may do {found}, not {wanted}")
    must(inspect(container, "{{.HostConfig.ReadonlyRootfs}}") == "true", "its root can be written")


def left_over():
    label = f"label=com.docker.compose.project={PROJECT}"
    return {kind: found for kind, found in {
        "containers": read("docker", "ps", "-aq", "--filter", label),
        "volumes": read("docker", "volume", "ls", "-q", "--filter", label),
        "networks": read("docker", "network", "ls", "-q", "--filter", label)}.items() if found}


# ---- sessions ----

def submit(sessions):
    producer = confluent_kafka.Producer({"bootstrap.servers": f"127.0.0.1:{PORTS['KAFKA_PORT']}"})
    for session in sessions:
        job = {"type": "start-session", "session_id": session, "sandbox": {"snapshot": "oh-v0"}}
        producer.produce("session-jobs", json.dumps(job).encode(), session)
    must(producer.flush(30) == 0, "the broker does not take the jobs")


def results():
    """(place in the topic, event) of every visible one, as it comes; None when for a moment there is none."""
    consumer = confluent_kafka.Consumer({
        "bootstrap.servers": f"127.0.0.1:{PORTS['KAFKA_PORT']}", "group.id": "compose-test",
        "isolation.level": "read_committed", "enable.auto.commit": False})
    partitions = consumer.list_topics("session-results", 10).topics["session-results"].partitions
    consumer.assign([confluent_kafka.TopicPartition("session-results", p, 0) for p in partitions])
    try:
        while True:
            message = consumer.poll(0.2)
            good = message and not message.error()
            yield ((message.partition(), message.offset()), json.loads(message.value())) if good else None
    finally:
        consumer.close()


def kill_and_add():
    """The host's view of a crash: `docker kill` would count as a wish to stop."""
    victim = containers("worker")[0]
    os.kill(main_process(victim), 9)
    say("one worker got SIGKILL; one more is added")
    compose("up", "-d", "--no-recreate", "--scale", "worker=4")
    return victim


def follow(sessions):
    """(session -> its events, the worker that was killed)"""
    events, victim, end = collections.defaultdict(dict), None, time.monotonic() + LIMIT
    for found in results():
        if found:
            events[found[1]["session_id"]][found[0]] = found[1]
        if not victim and len(events) >= len(sessions) // 10:
            victim = kill_and_add()
        if len(events) == len(sessions):
            break
        must(time.monotonic() < end, f"{len(sessions) - len(events)} sessions have no event after {LIMIT} s")
    say("every session has an event; 10 s for a second one to show itself")
    quiet = time.monotonic() + 10
    for found in results():  # from the beginning: all that is visible, once more
        if found:
            events[found[1]["session_id"]][found[0]] = found[1]
        if time.monotonic() > quiet:
            return {session: list(places.values()) for session, places in events.items()}, victim


def ledger():
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"{SIM}/_sim/ledger", timeout=20) as answer:
        return json.load(answer)["sandboxes"]


def check(events, sessions):
    count = collections.Counter(len(events[s]) for s in sessions)
    outcome = collections.Counter(e["type"] for found in events.values() for e in found)
    say(f"events per session: {dict(count)}; {dict(outcome)}")
    must(set(events) == set(sessions) and count == {1: len(sessions)}, "not exactly one event each")
    must(outcome == {"session-ready": len(sessions)}, "not all are ready")
    boxes = ledger()
    live = {b["id"] for b in boxes if b["destroyed_at"] is None}
    named = {found[0]["sandbox"]["id"] for found in events.values()}
    say(f"sandboxes made {len(boxes)}, alive {len(live)}, announced {len(named)}")
    must(live == named, "what lives is not what was announced")


# ---- the whole ----

def tell_times(events):
    times = sorted(e["timings_ms"]["total"] for found in events.values() for e in found)
    say(f"session p50 {times[len(times) // 2]} ms, slowest {times[-1]} ms")


def drain():
    """`docker compose stop`: every worker drains and ends with 0."""
    workers, began = containers("worker"), time.monotonic()
    compose("stop", "worker")
    codes = [inspect(w, "{{.State.ExitCode}}") for w in workers]
    say(f"the workers drained in {time.monotonic() - began:.1f} s, exit codes {codes}")
    must(set(codes) == {"0"}, "a worker did not end well")


def trial(sessions):
    began = time.monotonic()
    compose("up", "-d", "--wait", "--build", "--scale", "worker=3")
    say(f"up, with three healthy workers, {time.monotonic() - began:.1f} s after the start")
    for worker in containers("worker"):
        check_locked_in(worker)
    submit(sessions)
    began = time.monotonic()
    events, victim = follow(sessions)
    say(f"{len(sessions)} sessions took {time.monotonic() - began - 10:.1f} s")
    tell_times(events)
    check(events, sessions)
    must(inspect(victim, "{{.RestartCount}}") == "1", "the killed worker was not started again")
    must(len(containers("worker")) == 4, "there are not four workers")
    drain()


def main():
    args = argparse.ArgumentParser(description="docker-compose.yml with three workers, a crash and 500 sessions")
    args.add_argument("--stand-ins", action="store_true", help="make the base images here if they are missing")
    args.add_argument("--keep", action="store_true", help="leave everything running")
    args.add_argument("--sessions", type=int, default=500)
    args = args.parse_args()
    if args.stand_ins:
        stand_ins()
    sessions = [f"compose-{i:04}" for i in range(args.sessions)]
    try:
        trial(sessions)
    except (AssertionError, subprocess.CalledProcessError) as why:
        say(f"wrong: {why}")
        subprocess.run(["docker", "compose", "logs", "--tail", "20"], cwd=ROOT, env=ENV)
        return 1
    finally:
        if not args.keep:
            compose("--profile", "*", "down", "-v", "--remove-orphans")
    if not args.keep:
        must(not left_over(), f"left: {left_over()}")
    say("exactly one event each, no sandbox too many, nothing left")
    return 0


if __name__ == "__main__":
    sys.exit(main())
