"""th exec and th attach on a real desk."""

import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import threading
import time
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from cluster import BIN, ClusterTest, Refused, http, processes_of, wait_for  # noqa: E402


class Exec(ClusterTest):
    def setUp(self):
        super().setUp()
        self.cluster.slice("demo", 2)
        self.job = self.cluster.submit("--slice", "demo", "--gpus", 2, "--", "sleep", "1000")
        self.cluster.wait_job(self.job, ("running",))

    def th(self, *args, **kwargs):
        return subprocess.run([BIN / "th", "--state", self.cluster.state, *map(str, args)], capture_output=True, timeout=60, **kwargs)

    def start(self, *args, **kwargs):
        return subprocess.Popen([BIN / "th", "--state", self.cluster.state, *map(str, args)], stdin=subprocess.PIPE,
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE, **kwargs)

    def test_commands(self):
        # Output of both kinds, exit status, the rank's environment and folder.
        done = self.th("exec", f"{self.job}.1", "--", "sh", "-c", "echo out $RANK; echo err >&2; pwd; exit 7")
        self.assertEqual((done.returncode, done.stderr), (7, b"err\n"))
        self.assertEqual(done.stdout.splitlines()[0], b"out 1")
        rank = self.cluster.rank_pids(self.job)[1]
        self.assertEqual(done.stdout.decode().splitlines()[1], os.readlink(f"/proc/{rank}/cwd"))
        user = self.th("exec", self.job, "--", "id", "-u").stdout.decode().strip()
        self.assertEqual(int(user), os.stat(f"/proc/{rank}").st_uid)
        killed = self.th("exec", self.job, "--", "sh", "-c", "kill -KILL $$")
        self.assertEqual(killed.returncode, 128 + 9)
        told = self.th("--json", "exec", self.job, "--", "true")
        self.assertEqual(json.loads(told.stdout)["exit_code"], 0)

        # stdin ends, and what is much comes whole both ways.
        self.assertEqual(self.th("exec", self.job, "--", "wc", "-c", input=b"x" * 1_000_000).stdout.strip(), b"1000000")
        many = bytes(range(256)) * (16 << 12)
        done = self.th("exec", self.job, "--", "cat", input=many)
        self.assertTrue(done.stdout == many, f"{len(done.stdout)} of {len(many)} bytes came back: {done.stderr}")

        # What cannot be.
        done = self.th("exec", self.job, "--", "no-such-program")
        self.assertEqual(done.returncode, 1)
        self.assertIn(b"no-such-program", done.stderr)
        self.assertIn(b"has no rank 9", self.th("exec", f"{self.job}.9", "--", "true").stderr)
        self.assertIn(b"does not exist", self.th("exec", "job-99", "--", "true").stderr)
        self.assertIn(b"no command", self.th("exec", self.job).stderr)

    def test_a_slow_reader_slows_the_writer_and_loses_nothing(self):
        session = self.start("exec", self.job, "--", "sh", "-c", "head -c 50000000 /dev/zero; echo end >&2")
        time.sleep(2)
        held = sum(int(re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{p}/status").read_text())[1])
                   for p in processes_of(self.cluster.state) if "th-" in Path(f"/proc/{p}/comm").read_text())
        self.assertLess(held, 400_000, "KiB resident while nobody reads")
        out, err = session.communicate(timeout=60)
        self.assertEqual((len(out), err, session.returncode), (50_000_000, b"end\n", 0))

    def test_it_ends_with_its_job_its_person_and_its_controller(self):
        # The job.
        session = self.start("exec", self.job, "--", "sh", "-c", "echo here; sleep 1000")
        self.assertEqual(session.stdout.readline(), b"here\n")
        # The person: all that it started goes.
        other = self.start("exec", self.job, "--", "sh", "-c", "trap '' HUP; sleep 1001 & echo $!; wait")
        pid = int(other.stdout.readline())
        other.kill()
        other.communicate()
        wait_for("the orphan to end", lambda: not Path(f"/proc/{pid}").exists(), 20)
        self.cluster.th("cancel", self.job)
        out, err = session.communicate(timeout=30)
        self.assertEqual(session.returncode, 128 + 9)
        self.assertIn(b"its rank has ended", err)
        refused = self.th("exec", self.job, "--", "true")
        self.assertEqual(refused.returncode, 1)
        self.assertIn(b"does not run", refused.stderr)

        # The controller.
        job = self.cluster.submit("--slice", "demo", "--gpus", 2, "--", "sleep", "1000")
        self.cluster.wait_job(job, ("running",))
        session = self.start("exec", job, "--", "sh", "-c", "echo $$; sleep 1000")
        pid = int(session.stdout.readline())
        self.cluster.kill_controld()
        out, err = session.communicate(timeout=30)
        self.assertEqual(session.returncode, 3)
        self.assertIn(b"the connection was lost (the controller or the node may have been started anew)", err)
        wait_for("its process to end", lambda: not Path(f"/proc/{pid}").exists(), 20)
        self.cluster.start_controld()
        self.assertEqual(self.cluster.job(job)["state"], "running", "the job itself goes on")
        self.assertEqual(wait_for("the node", lambda: self.th("exec", job, "--", "echo", "again").stdout, 20), b"again\n")

    def test_a_shell_on_a_terminal(self):
        master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 101, 0, 0))
        session = subprocess.Popen([BIN / "th", "--state", self.cluster.state, "attach", f"{self.job}.0"], stdin=slave, stdout=slave,
                                   stderr=subprocess.PIPE, preexec_fn=lambda: (os.setsid(), fcntl.ioctl(0, termios.TIOCSCTTY, 0)))
        text = bytearray()

        def read():
            while True:
                try:
                    text.extend(os.read(master, 4096))
                except OSError:
                    return
        reader = threading.Thread(target=read, daemon=True)
        reader.start()

        def say(line, want):
            mark = len(text)
            os.write(master, line.encode())
            return wait_for(f"{want} after {line!r} in {bytes(text)!r}", lambda: re.search(want, text[mark:].decode(errors="replace")), 20)
        say("tty\r", r"/dev/pts/\d+")
        say("stty size\r", r"33 101")
        say("echo rank=$RANK,\r", r"rank=0,")
        fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", 44, 88, 0, 0))
        say("sleep 1; stty size\r", r"44 88")
        say("sleep 500\r", r"sleep 500")
        time.sleep(0.5)
        os.write(master, b"\x03")  # Ctrl-C is the shell's, not th's
        say("echo code=$?,\r", r"code=130,")
        os.write(master, b"\x1d")
        self.assertEqual(session.wait(20), 0)
        self.assertIn(b"left the session", session.stderr.read())
        session.stderr.close()
        os.close(slave)
        os.close(master)
        left = self.start("exec", "-t", self.job, "--", "sh", "-c", "exit 5")
        left.communicate(timeout=30)
        self.assertEqual(left.returncode, 5)

    def test_who_may_and_what_is_refused(self):
        opened = self.cluster.api("POST", f"/api/v1/jobs/{self.job}/exec", {"argv": ["true"]})
        url = self.cluster.url + f"/api/v1/exec/{opened['id']}"
        admin = {"Authorization": f"Bearer {self.cluster.key()}"}
        socket = {"Upgrade": "websocket", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ=="}
        self.assertEqual(http("GET", url)[0], 401)
        self.assertEqual(http("GET", url, headers=admin)[0], 400)
        self.assertEqual(http("GET", url, headers={**admin, **socket, "Origin": "http://elsewhere"})[0], 403)
        self.assertEqual(http("GET", self.cluster.url + "/api/v1/exec/exec-00", headers={**admin, **socket})[0], 404)
        self.cluster.api("POST", "/api/v1/tenants", {"name": "others"})
        stranger = self.cluster.api("POST", "/api/v1/keys", {"name": "stranger", "tenant": "others", "role": "admin"})["key"]
        for path, method in ((f"/api/v1/jobs/{self.job}/exec", "POST"), (f"/api/v1/exec/{opened['id']}", "GET")):
            with self.assertRaises(Refused) as refused:
                self.cluster.api(method, path, {} if method == "POST" else None, headers=socket, key=stranger)
            self.assertEqual(refused.exception.status, 404, "another tenant's job does not exist")
        viewer = self.cluster.api("POST", "/api/v1/keys", {"name": "looker", "role": "viewer"})["key"]
        for path, method in ((f"/api/v1/jobs/{self.job}/exec", "POST"), (f"/api/v1/exec/{opened['id']}", "GET")):
            with self.assertRaises(Refused) as refused:
                self.cluster.api(method, path, {} if method == "POST" else None, headers=socket, key=viewer)
            self.assertEqual(refused.exception.status, 403)
        for body in ({"argv": "true"}, {"argv": [""]}, {"argv": ["a\0b"]}, {"rows": 0}, {"terminal": 1}, {"rank": "0"}, {"cmd": []}):
            with self.assertRaises(Refused) as refused:
                self.cluster.api("POST", f"/api/v1/jobs/{self.job}/exec", body)
            self.assertEqual((refused.exception.status, json.loads(refused.exception.body)["field"]), (400, next(iter(body))))


if __name__ == "__main__":
    unittest.main()
