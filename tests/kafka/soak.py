#!/usr/bin/python3
"""The torture of tests/integration/test_torture.py for long, on three brokers (`make soak`), and a
publisher killed a thousand times around its commit.

    SOAK_JOBS=10000 SOAK_FAULTS=200 SOAK_KILLS=1000 SEED=4 tests/kafka/soak.py

Prints the verdicts, the longest stall with it; SHOW=1 prints every fault. Exit 0: nothing was lost,
seen twice, wrongly destroyed or left over.
"""

import os
import pathlib
import sys
import unittest

TESTS = pathlib.Path(__file__).resolve().parent.parent
sys.path[:0] = [str(TESTS / "integration"), str(TESTS / "kafka")]

from test_kafka_io import Killed  # noqa: E402
from test_torture import Torture  # noqa: E402


def number(name, otherwise):
    return int(os.environ.get(name) or otherwise)


class Soak(Torture):
    nodes = 3
    jobs, faults = number("SOAK_JOBS", 10000), number("SOAK_FAULTS", 200)


class ManyKilled(Killed):
    kills = number("SOAK_KILLS", 1000)


def main():
    suite = unittest.TestSuite([Soak("test_torture"), ManyKilled("test_killed_around_the_commit")])
    return 0 if unittest.TextTestRunner(verbosity=2).run(suite).wasSuccessful() else 1


if __name__ == "__main__":
    sys.exit(main())
