"""The Slurm testbed comes up, runs ranks of th-train by srun and mpirun, and goes down without a trace. Needs root."""

import os
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

BIN, SOURCE = Path(os.environ["TH_BIN"]), Path(os.environ["TH_SOURCE"])
TESTBED = SOURCE / "tools/testbed"
RECIPE = (SOURCE / "recipes/train/llama-tiny.yaml").read_text().replace("../data", str(SOURCE / "recipes/data"))


def processes_with(text):
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and text.encode() in (entry / "environ").read_bytes() + (entry / "cmdline").read_bytes():
                found.append((entry.name, (entry / "cmdline").read_bytes()))
        except OSError:
            continue
    return [f for f in found if int(f[0]) != os.getpid()]


@unittest.skipUnless(os.geteuid() == 0, "namespaces need root")
class Slurm(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        subprocess.run([SOURCE / "tools/install.sh", "openmpi-bin"], check=True)
        cls.scratch = tempfile.TemporaryDirectory(prefix="th-slurm-")
        cls.folder = f"{cls.scratch.name}/testbed"
        subprocess.run([TESTBED, "up", "slurm", cls.folder], check=True, timeout=300)

    @classmethod
    def tearDownClass(cls):
        subprocess.run([TESTBED, "down", "slurm", cls.folder], check=True, timeout=60)
        left = processes_with(cls.folder)
        mounts = [m for m in Path("/proc/mounts").read_text().splitlines() if cls.folder in m]
        cls.scratch.cleanup()
        if left or mounts:
            raise AssertionError(f"left behind: {left} {mounts}")

    def on(self, machine, *argv, seconds=120, **env):
        done = subprocess.run([TESTBED, "run", self.folder, machine, *argv], text=True, timeout=seconds, capture_output=True,
                              env={**os.environ, "OMP_NUM_THREADS": "1", **env})
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        return done.stdout + done.stderr

    def job(self, name):
        folder = Path(self.folder) / name
        folder.mkdir()
        (folder / "recipe.yaml").write_text(RECIPE.replace("steps: 120", "steps: 20"))
        return folder

    def test_srun_on_all_nodes(self):
        self.assertEqual(sorted(self.on("ctl", "srun", "-N4", "hostname").split()), ["n1", "n2", "n3", "n4"])

    def test_what_is_emulated_can_be_asked_for(self):
        self.assertIn("CUDA_VISIBLE_DEVICES=0,1", self.on("ctl", "srun", "--gpus-per-node=2", "env"))
        self.assertIn("testbed", self.on("ctl", "sacctmgr", "-nP", "show", "cluster"))

    def test_trainer_under_srun(self):
        text = self.on("ctl", "srun", "-N3", "-n4", "-D", self.job("srun"), f"{BIN}/th-train", "run", "recipe.yaml")
        self.assertIn("4 ranks", text)
        self.assertIn("step    20/20", text)

    def test_trainer_under_mpirun_in_a_job(self):
        text = self.on("ctl", "salloc", "-N2", "-n4", "mpirun", "--allow-run-as-root", "-wdir", self.job("mpirun"),
                       f"{BIN}/th-train", "run", "recipe.yaml", OMPI_MCA_btl="self,tcp")
        self.assertIn("4 ranks", text)
        self.assertIn("step    20/20", text)

    def test_trainer_under_mpirun_alone(self):
        text = self.on("n1", "mpirun", "--allow-run-as-root", "--oversubscribe", "-n", "2", "-wdir", self.job("alone"),
                       f"{BIN}/th-train", "run", "recipe.yaml")
        self.assertIn("2 ranks", text)


if __name__ == "__main__":
    unittest.main()
