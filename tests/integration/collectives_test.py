"""th-train collectives in a short form: results of both sides are right, and what it says without Open MPI or when a rank dies. No rates."""

import json
import os
import signal
import subprocess
import time
import unittest
from pathlib import Path

from cluster import BIN

TRAIN = BIN / "th-train"
OPERATIONS = ["all_reduce", "reduce_scatter", "all_gather", "broadcast", "all_to_all", "send"]


def run(*argv, **options):
    return subprocess.run([TRAIN, "collectives", *map(str, argv)], capture_output=True, text=True, timeout=200, **options)


def children_of(pid):
    return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


class Collectives(unittest.TestCase):
    def test_both_sides_are_right(self):
        done = run("--ranks", 3, "--mib", 1, "--runs", 2, "--all", "--json")
        self.assertEqual(done.returncode, 0, done.stderr)
        found = json.loads(done.stdout.splitlines()[-1])
        self.assertEqual([o["name"] for o in found["operations"]], OPERATIONS)
        self.assertEqual((found["ranks"], found["bytes"] % 12, found["open_mpi"]), (3, 0, "measured"))
        for operation in found["operations"]:
            self.assertTrue(operation["checked"], operation)
            for name in ("gb_per_s", "memcpy_gb_per_s", "open_mpi_gb_per_s"):
                self.assertGreater(operation[name], 0, operation)

    def test_without_open_mpi(self):
        done = run("--ranks", 2, "--mib", 1, "--runs", 1, "--json", env={**os.environ, "PATH": "/nonexistent"})
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("install the packages openmpi-bin and libopenmpi-dev", done.stderr)
        operations = json.loads(done.stdout.splitlines()[-1])["operations"]
        self.assertEqual([o["name"] for o in operations], OPERATIONS[:4])
        self.assertEqual([o["open_mpi_gb_per_s"] for o in operations], [None] * 4)

    def test_a_rank_that_dies_is_named_and_ends_all(self):
        with subprocess.Popen([TRAIN, "collectives", "--ranks", "3", "--mib", "16", "--runs", "1000"], stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, text=True) as process:
            end = time.monotonic() + 20
            while len(children_of(process.pid)) < 3 and time.monotonic() < end:
                time.sleep(0.05)
            time.sleep(1)
            ranks = children_of(process.pid)
            os.kill(ranks[1], signal.SIGKILL)
            output, errors = process.communicate(timeout=20)
        self.assertEqual(process.returncode, 1, output)
        self.assertIn("rank 1 was ended by signal 9", errors)
        self.assertEqual([pid for pid in ranks if Path(f"/proc/{pid}").exists()], [])

    def test_bad_input(self):
        for argv in (["--ranks", 1], ["--mib", 0], ["--runs", "many"]):
            done = run(*argv)
            self.assertNotEqual(done.returncode, 0)
            self.assertIn(argv[0], done.stderr)


if __name__ == "__main__":
    unittest.main()
