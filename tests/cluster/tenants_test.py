"""Jobs of two accounts on one machine, as root: neither reads the other's files, sees or signals its processes, or reaches
its ports; a gang of one account still meets over its nodes, and reaches the controller."""

import json
import os
import shutil
import sys
import tempfile
import unittest
from pathlib import Path

SOURCE = Path(os.environ["TH_SOURCE"])
sys.path.insert(0, str(SOURCE / "tests/integration"))
from cluster import Cluster, ClusterTest, free_port, wait_for  # noqa: E402

POLICY = """
accounts:
  - {name: ours}
  - {name: theirs}
"""

# Listens, keeps a file that its mode lets everybody read, and says where it is.
VICTIM = r"""
import json, os, socket, time
port = int(os.environ["PORT"])
listener = socket.create_server(("127.0.0.1", port))
with open("secret", "w") as f: f.write("of ours")
os.chmod("secret", 0o644)
print(json.dumps({"pid": os.getpid(), "uid": os.getuid(), "folder": os.environ["TH_JOB_DIR"]}), flush=True)
while True:
    connection, _ = listener.accept()
    connection.sendall(b"hello")
    connection.close()
"""

# Tries all of it and tells what it got.
INTRUDER = r"""
import json, os, socket, sys
def of(attempt):
    try:
        return attempt()
    except OSError as error:
        return type(error).__name__
def ask():
    with socket.create_connection(("127.0.0.1", int(os.environ["PORT"])), timeout=5) as s: return s.recv(5).decode()
pid, folder = int(os.environ["VICTIM"]), os.environ["FOLDER"]
print(json.dumps({
    "uid": os.getuid(),
    "file": of(lambda: open(folder + "/secret").read()),
    "folder": of(lambda: sorted(os.listdir(folder))),
    "signal": of(lambda: os.kill(pid, 0)),
    "process": of(lambda: open(f"/proc/{pid}/cmdline").read() != ""),
    "sees": [p for p in os.listdir("/proc") if p.isdigit() and os.stat(f"/proc/{p}").st_uid != os.getuid()],
    "port": of(ask),
    "own": open("/proc/self/cmdline").read() != "" and os.path.isdir(os.getcwd()),
}), flush=True)
"""

# A gang of two nodes meets at its master's port, and asks the controller.
GANG = r"""
import os, socket, time, urllib.request
rank, port = int(os.environ["RANK"]), int(os.environ["MASTER_PORT"])
if rank == 0:
    with socket.create_server((os.environ["MASTER_ADDR"], port)) as listener:
        connection, _ = listener.accept()
        print("rank 0 got", connection.recv(5).decode(), flush=True)
else:
    for _ in range(100):
        try:
            with socket.create_connection((os.environ["MASTER_ADDR"], port)) as s: s.sendall(b"hello")
            break
        except OSError: time.sleep(0.1)
print("controller:", urllib.request.urlopen(os.environ["TH_URL"] + "/health", timeout=10).status, flush=True)
"""


@unittest.skipUnless(os.geteuid() == 0, "users and namespaces of jobs need root")
class Tenants(ClusterTest):
    def setUp(self):
        self.cluster = Cluster(policy=POLICY).start()

    def submit(self, account, program, gpus=1, **more):
        return self.cluster.api("POST", "/api/v1/jobs", {"name": "j", "account": account, "gpus": gpus, "retries": 0,
                                                         "command": ["python3", "-c", program], "duration_ns": 600 * 10**9, **more})["id"]

    def told(self, job):
        lines = [line for line in self.cluster.log_tail(job).split("\n") if line.startswith("{")]
        return json.loads(lines[-1]) if lines else None

    def intrude(self, account, victim, port, **more):
        job = self.submit(account, INTRUDER, env={"PORT": str(port), "VICTIM": str(victim["pid"]), "FOLDER": victim["folder"]}, **more)
        self.assertEqual(self.cluster.wait_job(job, seconds=60)["state"], "succeeded", self.cluster.log_tail(job))
        return self.told(job)

    def test_what_is_one_tenants_is_not_the_others(self):
        port = free_port()
        victim_job = self.submit("ours", VICTIM, env={"PORT": str(port)}, stage={"hosts": "/etc/hosts"})
        victim = wait_for("the victim listens", lambda: self.told(victim_job), 60)
        self.assertGreaterEqual(victim["uid"], 1_900_000_000)

        # A shell beside the rank is what the rank is.
        told = self.cluster.th("exec", victim_job, "--", "sh", "-c", "id -u; cat secret; ls /proc | grep -c '^1$'; true")
        self.assertEqual(told.stdout.split("\n")[:2], [str(victim["uid"]), "of ours0"], told.stderr)

        theirs = self.intrude("theirs", victim, port)
        self.assertNotIn(theirs["uid"], (0, victim["uid"]))
        self.assertEqual((theirs["file"], theirs["folder"]), ("PermissionError", "PermissionError"))
        self.assertEqual((theirs["process"], theirs["sees"]), ("FileNotFoundError", []))
        self.assertEqual(theirs["signal"], "PermissionError")
        self.assertEqual(theirs["port"], "ConnectionRefusedError")
        self.assertTrue(theirs["own"])

        ours = self.intrude("ours", victim, port)  # the same tries by another job of the same tenant
        self.assertEqual((ours["uid"], ours["file"], ours["signal"], ours["process"], ours["port"]),
                         (victim["uid"], "of ours", None, True, "hello"))
        default = self.intrude("default", victim, port)
        self.assertEqual((default["file"], default["port"], default["sees"]), ("PermissionError", "ConnectionRefusedError", []))

        # The same users after a restart of the controller and on new nodes.
        self.cluster.kill_controld()
        self.cluster.start_controld()
        self.assertEqual(self.intrude("ours", victim, port)["uid"], victim["uid"])
        self.assertEqual((self.cluster.state / "jobs/.tenants").read_text(), "0 ours\n1 theirs\n")

    def test_nothing_is_taken_along_that_the_tenant_could_not_read(self):
        """A path that the controller took for harmless leads elsewhere by the time the node copies it, with its rights."""
        models, jobs = self.cluster.state / "models", self.cluster.state / "jobs"
        self.assertEqual(models.stat().st_mode & 0o777, 0o700)
        (models / "of-ours").mkdir()
        (models / "of-ours/weights").write_text("secret")
        folder = jobs / self.submit("ours", "open('plain', 'w').write('secret')")  # of a mode for all, in a folder that is not
        wait_for("the file", (folder / "plain").exists, 60)
        links = Path(tempfile.mkdtemp())
        os.chmod(links, 0o755)
        self.addCleanup(shutil.rmtree, links)
        for name, target in (("model", models / "of-ours"), ("file", folder / "plain"), ("folder", folder), ("state", self.cluster.state)):
            (links / name).symlink_to(target)
            job = self.submit("theirs", "print(1)", stage={"taken": str(links / name)})
            done = self.cluster.wait_job(job, ("failed",), seconds=60)
            self.assertRegex(done["reason"], f"staging {links / name}.*: user 'theirs' may not read it; allow it by chmod")
        ours = self.submit("ours", "print(open('taken').read())", stage={"taken": str(folder / "plain")})
        self.assertEqual(self.cluster.wait_job(ours, seconds=60)["state"], "succeeded")

    def test_a_gang_of_a_tenant_meets_over_its_nodes_and_reaches_the_controller(self):
        self.cluster.th("slice", "create", "wide", "--gpus", 4, "--series", "LOCAL", "--for", "1h", "--spread")
        job = self.submit("ours", GANG, gpus=4, slice="wide", ntasks=2, ntasks_per_node=1)
        done = self.cluster.wait_job(job, seconds=90)
        self.assertEqual(done["state"], "succeeded", self.cluster.log_tail(job))
        self.assertEqual(len({rank["node"] for rank in done["ranks"]}), 2)
        log = self.cluster.log_tail(job)
        self.assertIn("rank 0 got hello", log)
        self.assertIn("controller: 200", log)

    def test_namespaces_go_with_the_last_node(self):
        before = set(Path("/run/thunderhead/net").glob("*")) if Path("/run/thunderhead/net").exists() else set()
        job = self.submit("ours", "print(1)")
        self.assertEqual(self.cluster.wait_job(job, seconds=60)["state"], "succeeded")
        self.cluster.api("POST", "/api/v1/shutdown", {"nodes": True}, timeout=30)
        self.cluster.controld.wait(30)
        wait_for("nothing is left", lambda: set(Path("/run/thunderhead/net").glob("*")) <= before | {Path("/run/thunderhead/net/lock")}, 20)


if __name__ == "__main__":
    unittest.main()
