"""Slurm nodes that are off until a job needs them: slurmctld calls `th slurm resume`, th-controld leases a host for each, slurmd starts; when
they are idle they go again. Real Slurm, th-controld and th-node; the machine in which a node's slurmd runs is made of namespaces. Needs root."""

import os
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path

BIN, SOURCE = Path(os.environ["TH_BIN"]), Path(os.environ["TH_SOURCE"])
TESTBED = SOURCE / "tools/testbed"
sys.path.insert(0, str(SOURCE / "tests/integration"))
from cluster import wait_for  # noqa: E402


@unittest.skipUnless(os.geteuid() == 0, "namespaces need root")
class Power(unittest.TestCase):
    def setUp(self):
        scratch = tempfile.TemporaryDirectory(prefix="th-power-")
        self.addCleanup(scratch.cleanup)
        os.chmod(scratch.name, 0o711)
        self.folder = Path(scratch.name) / "testbed"
        subprocess.run([TESTBED, "up", "slurm-elastic", self.folder], check=True, timeout=300)
        self.addCleanup(subprocess.run, [TESTBED, "down", "slurm", self.folder], check=True, timeout=60)
        self.addCleanup(self.show_logs)
        (self.folder / "th").mkdir(mode=0o711)

    def show_logs(self):
        if self._outcome.result.errors or self._outcome.result.failures:
            for name in ("power.log", "slurmctld.log", "c1-slurmd.out"):
                log = self.folder / "log" / name
                print(f"--- {name}", *(log.read_text().splitlines()[-25:] if log.exists() else []), sep="\n")

    def on(self, *argv, status=0, seconds=100):
        done = subprocess.run([TESTBED, "run", self.folder, "ctl", *map(str, argv)], text=True, timeout=seconds, capture_output=True,
                              env={**os.environ, "TH_STATE": str(self.folder / "th"), "TH_BIN": str(BIN)})
        self.assertEqual(done.returncode, status, done.stdout + done.stderr)
        return (done.stdout + done.stderr).strip()

    def th(self, *argv, **options):
        return self.on(BIN / "th", *argv, **options)

    def live_slices(self):
        return [line.split()[0] for line in self.th("slice", "list").splitlines()[1:]
                if line.split()[1] in ("starting", "ready", "degraded", "releasing")]

    def states(self):
        return dict(line.split() for line in self.on("sinfo", "-h", "-N", "-p", "cloud", "-o", "%N %t").splitlines())

    def test_nodes_come_when_a_job_needs_them_and_go_again(self):
        self.assertIn("controller", self.th("slurm", "resume", "--series", "LOCAL", "c1", status=3).lower())
        self.th("up", "--fleet", SOURCE / "recipes/fleet/desk.yaml")
        self.assertEqual(self.states(), {"c1": "idle~", "c2": "idle~"})
        began = time.time()
        self.on("srun", "-N1", "-p", "batch", "true")
        srun_s = time.time() - began

        script = self.folder / "job.sh"
        script.write_text(f"#!/bin/bash\ndate +%s.%N > {self.folder}/started\nsrun hostname > {self.folder}/names\n")
        began = time.time()
        self.on("sbatch", "-p", "cloud", "-N2", "--ntasks-per-node=1", "--output=/dev/null", script)
        wait_for("the batch job on nodes that were off", lambda: (self.folder / "names").exists() and
                 len((self.folder / "names").read_text().split()) == 2, 90)
        sbatch_s = float((self.folder / "started").read_text()) - began
        self.assertEqual(sorted((self.folder / "names").read_text().split()), ["c1", "c2"])
        self.assertEqual(sorted(self.live_slices()), ["slurm-c1", "slurm-c2"])

        wait_for("the idle nodes to be given back", lambda: self.live_slices() == [], 60, 0.5)
        wait_for("the nodes to be off", lambda: set(self.states().values()) == {"idle~"}, 60, 0.5)
        self.assertFalse((self.folder / "c1.json").exists() or (self.folder / "c2.json").exists())
        began = time.time()
        self.assertEqual(self.on("srun", "-N1", "-p", "cloud", "-w", "c2", "hostname"), "c2")
        off_s = time.time() - began
        print(f"\nfrom submission to start: sbatch on two nodes that were off {sbatch_s:.2f} s, srun on one that was off and its end "
              f"{off_s:.2f} s, srun on one that was up and its end {srun_s:.2f} s; load {os.getloadavg()[0]:.1f}", flush=True)
        self.th("down")

    def test_what_cannot_be_had_leaves_nothing(self):
        self.th("up", "--fleet", SOURCE / "recipes/fleet/desk.yaml")
        self.assertIn("host list 'c[1-'", self.th("slurm", "resume", "--series", "LOCAL", "c[1-", status=1))
        self.assertIn("'LOCL'", self.th("slurm", "resume", "--series", "LOCL", "c1", status=1))
        self.assertIn("node c", self.th("slurm", "resume", "--series", "LOCAL", "c[1-9]", status=1))  # the desk has four hosts
        text = self.th("slurm", "resume", "--series", "LOCAL", "--start", "/bin/false", "c[1-2]", status=1)
        self.assertIn("node c1: /bin/false c1 r", text)
        wait_for("nothing to be left", lambda: self.live_slices() == [], 30)
        self.assertEqual(self.th("slurm", "suspend", "c[1-9]"), "")  # none is there: nothing to do
        written = self.th("slurm", "topology", "--out", self.folder / "spool")
        self.assertIn("gres.conf", written)
        self.assertIn("SwitchName=core Switches=leaf[1-2]", (self.folder / "spool/topology.conf").read_text())
        self.th("down")


if __name__ == "__main__":
    unittest.main()
