"""Every command that the README and docs/ show is run here, in the order in which it stands.

A fenced block marked `console` holds commands after "$ "; the lines between are what one may expect to see and are not compared.
All blocks of one file run in one shell, with build/release in PATH and a state folder and ports of their own. `make` targets are
only looked up: they have tests of their own, and this test is one of them."""

import os
import re
import shlex
import socket
import subprocess
import tempfile
import unittest
from pathlib import Path

SOURCE, BIN = Path(os.environ["TH_SOURCE"]), Path(os.environ["TH_BIN"])


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def commands(path):
    for block in re.findall(r"^```console\n(.*?)^```", path.read_text(), re.M | re.S):
        lines = block.split("\n")
        for i, line in enumerate(lines):
            if line.startswith("$ "):
                command = line[2:]
                while command.endswith("\\"):
                    i += 1
                    command = command[:-1] + lines[i].strip()
                yield command


class Docs(unittest.TestCase):
    def test_links_lead_somewhere(self):
        broken = []
        for page in [SOURCE / "README.md", *sorted((SOURCE / "docs").rglob("*.md"))]:
            for target in re.findall(r"\]\(([^)#]+)", page.read_text()):
                if "://" not in target and not (page.parent / target).exists():
                    broken.append(f"{page.relative_to(SOURCE)}: {target}")
        self.assertEqual(broken, [])

    def test_every_page_is_in_the_index(self):
        index = (SOURCE / "docs/README.md").read_text()
        missing = [str(p.relative_to(SOURCE / "docs")) for p in (SOURCE / "docs").rglob("*.md")
                   if p.name != "README.md" and f"({p.relative_to(SOURCE / 'docs')})" not in index]
        self.assertEqual(missing, [])

    def test_commands_run(self):
        targets = re.findall(r"^([a-z-]+(?: [a-z-]+)*):", (SOURCE / "Makefile").read_text(), re.M)
        targets = {t for line in targets for t in line.split()}
        ran = 0
        for page in [SOURCE / "README.md", *sorted((SOURCE / "docs").rglob("*.md"))]:
            found = list(commands(page))
            script = []
            for command in found:
                words = command.split()
                if words[0] == "make":
                    self.assertIn(words[1], targets, f"{page.name}: {command}")
                elif words[0] != "git" and "th demo" not in command:
                    script.append(command)
            if script:
                with self.subTest(page.name):
                    self.run_page(page, script)
            ran += len(found)
        self.assertGreater(ran, 5, "no commands found: the pages or this test changed their form")

    def run_page(self, page, script):
        with tempfile.TemporaryDirectory(prefix="th-docs-") as state:
            os.chmod(state, 0o711)
            ports = [free_port(), free_port()]
            lines = ["set -e", "trap 'th down >/dev/null 2>&1 || true' EXIT",
                     f'th() {{ [ "$1" = up ] && set -- "$@" --port {ports[0]} --gateway-port {ports[1]}; command th "$@"; }}']
            for command in script:
                lines += [f"echo {shlex.quote('+ ' + command)} >&2", command]
            inherited = {k: v for k, v in os.environ.items() if not k.startswith("TH_")}
            env = {**inherited, "PATH": f"{BIN}:{os.environ['PATH']}", "TH_STATE": state}
            done = subprocess.run(["bash", "-c", "\n".join(lines)], cwd=SOURCE, env=env, capture_output=True, text=True,
                                  stdin=subprocess.DEVNULL, timeout=280)
            self.assertEqual(done.returncode, 0, f"{page.name}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}")


if __name__ == "__main__":
    unittest.main()
