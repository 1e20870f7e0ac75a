"""Rules of the tree that a compiler does not know: who may include whom, lengths, what may not be committed."""

import json
import os
import re
import subprocess
import unittest
from pathlib import Path

SOURCE = Path(os.environ.get("TH_SOURCE", Path(__file__).parents[2]))

# A room may include what stands here and what those may include. "values only" is the reviewer's to see.
MAY_INCLUDE = {
    "base": [],
    "http": ["base"],
    "access": ["base", "http"],
    "fleet": ["base"],
    "request": ["fleet"],
    "reserve": ["request"],
    "ledger": ["reserve"],
    "registry": ["base"],
    "storage": ["http"],
    "cloud": ["fleet", "http"],
    "node": ["base", "http"],
    "launch": ["request", "node", "http"],
    "plan": ["fleet"],
    "control": ["request", "reserve", "ledger", "registry", "cloud", "launch", "plan", "node", "http", "access"],
    "tensor": ["base"],
    "collective": ["base"],
    "model": ["tensor"],
    "train": ["model", "collective", "storage"],
    "serve": ["model", "http"],
    "safety": ["base"],
    "gateway": ["safety", "http", "access"],
    "sim": ["control", "gateway", "serve", "train"],
}
BACKENDS = {"cloud": ["local", "azure", "libvirt"], "launch": ["local", "slurm"], "collective": ["shm", "gloo"]}

# What every backend of a room has; what only one needs has a name of its own.
CORRESPONDING = {
    "cloud": ["provider.h", "provider.cc", "provider_test.cc"],
    "launch": ["launcher.h", "launcher.cc"],
    "collective": ["connect.h", "connect.cc", "meeting.h", "meeting.cc"],
}

HEAVY = re.compile(r'#include <(boost/|nlohmann/json\.hpp|yaml-cpp|spdlog|CLI/|dnnl|oneapi/|sqlite3|openssl|re2/|pcre2|expat)')

MAX_LINES = {".h": 155, ".cc": 420}  # "about 150" and "about 400"
MAX_TEST_LINES = 650
# Files that are longer for a reason. This list only gets shorter.
LONGER = {}


def tracked(*patterns):
    names = subprocess.run(["git", "-c", "safe.directory=*", "ls-files", "-co", "--exclude-standard", "--", *patterns],
                           cwd=SOURCE, check=True, capture_output=True, text=True).stdout.split("\n")
    return [n for n in names if n and (SOURCE / n).is_file()]


def reachable(room):
    rooms, todo = {room}, [room]
    while todo:
        for other in MAY_INCLUDE[todo.pop()]:
            if other not in rooms:
                rooms.add(other)
                todo.append(other)
    return rooms


class Style(unittest.TestCase):
    def test_rooms_include_only_what_they_may(self):
        wrong = []
        for name in tracked("src/*.h", "src/*.cc"):
            room = name.split("/")[1]
            self.assertIn(room, MAY_INCLUDE, f"{name}: a room that the design does not have")
            allowed = reachable(room)
            for number, line in enumerate((SOURCE / name).read_text().split("\n"), 1):
                found = re.match(r'#include "([a-z_]+)/', line)
                if not found:
                    continue
                target = found.group(1)
                if target not in MAY_INCLUDE or target not in allowed:
                    wrong.append(f"{name}:{number}: {room} may not include {target}")
        self.assertEqual(wrong, [])

    def test_backends_do_not_know_each_other_and_have_the_same_files(self):
        for room, backends in BACKENDS.items():
            for backend in backends:
                folder = SOURCE / "src" / room / backend
                if not folder.is_dir():
                    continue
                for name in CORRESPONDING.get(room, []):
                    self.assertTrue((folder / name).is_file(), f"{folder}: has no {name}, which its siblings have")
                others = "|".join(b for b in backends if b != backend) or "-"
                for path in sorted(folder.glob("*.[hc]*")):
                    found = re.search(rf'#include "{room}/({others})/', path.read_text())
                    self.assertIsNone(found, f"{path}: includes another backend")

    def test_heavy_headers_stay_in_sources(self):
        wrong = [f"{name}: {line}" for name in tracked("src/*.h", "apps/*.h")
                 for line in (SOURCE / name).read_text().split("\n") if HEAVY.match(line)]
        self.assertEqual(wrong, [])

    def test_headers_begin_with_pragma_once(self):
        wrong = [n for n in tracked("src/*.h", "apps/*.h") if not (SOURCE / n).read_text().startswith("#pragma once\n")]
        self.assertEqual(wrong, [])

    def test_length(self):
        too_long = []
        for name in tracked("src/*.h", "src/*.cc", "apps/*.h", "apps/*.cc"):
            lines = (SOURCE / name).read_text().count("\n")
            limit = LONGER.get(name, MAX_LINES[Path(name).suffix])
            if name.endswith("_test.cc") or Path(name).name.startswith("test_"):
                limit = MAX_TEST_LINES
            if lines > limit:
                too_long.append(f"{name}: {lines} lines, at most {limit}")
        self.assertEqual(too_long, [])
        gone = [n for n in LONGER if not (SOURCE / n).is_file() or
                (SOURCE / n).read_text().count("\n") <= MAX_LINES[Path(n).suffix]]
        self.assertEqual(gone, [], "take these out of LONGER")

    def test_nothing_of_one_machine_is_committed(self):
        wrong = []
        path = re.compile(r"(^|[^A-Za-z0-9_.$-])/(work|root|home/[a-z]+)/")
        for name in tracked():
            data = (SOURCE / name).read_bytes()
            if re.fullmatch(r"docs/images/[a-z-]+\.png", name):
                self.assertLess(len(data), 200_000, name)
                continue
            if b"\0" in data[:4096]:
                wrong.append(f"{name}: binary")
                continue
            if name == "tests/style/style_test.py":
                continue
            for number, line in enumerate(data.decode("utf-8", "replace").split("\n"), 1):
                if path.search(line):
                    wrong.append(f"{name}:{number}: {line.strip()[:80]}")
        self.assertEqual(wrong, [])

    def test_lock_files_name_no_host(self):
        for name in tracked("*package-lock.json"):
            lock = json.loads((SOURCE / name).read_text())
            hosts = [k for k, v in lock.get("packages", {}).items() if "resolved" in v]
            self.assertEqual(hosts, [], name)


if __name__ == "__main__":
    unittest.main()
