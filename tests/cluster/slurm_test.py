"""The Slurm testbed comes up, runs ranks of th-train by srun and mpirun and gangs by our launcher, and goes down without a trace.
Needs root."""

import json
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
        subprocess.run([SOURCE / "tools/install.sh", "openmpi-bin", "hpcc", "libopenblas0-pthread"], check=True)
        cls.scratch = tempfile.TemporaryDirectory(prefix="th-slurm-")
        os.chmod(cls.scratch.name, 0o711)
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

    def test_linpack(self):
        folder = Path(self.folder) / "hpl"
        folder.mkdir()
        text = self.on("ctl", "salloc", "-N1", "-n2", f"--chdir={folder}", "/usr/bin/python3", SOURCE / "recipes/mpi/hpl.py",
                       "--seconds", "0.5", "--rpeak-gflop-per-s", "200", "--site", "nowhere", seconds=200)
        result = json.loads(next(line for line in text.splitlines() if line.startswith("{")))
        self.assertEqual(result["cores"], 2)
        self.assertGreater(result["hpl_efficiency"], 0.02)
        dgemm = (result["dgemm_before_gflop_per_s"] + result["dgemm_after_gflop_per_s"]) / 2
        self.assertAlmostEqual(result["hpl_gflop_per_s"] / dgemm, result["hpl_efficiency"], delta=0.05)
        self.assertAlmostEqual(2 / 3 * result["n"] ** 3 / result["seconds"] / 1e9 / result["hpl_gflop_per_s"], 1, delta=0.3)
        self.assertRegex(text, r"- +Thunderhead slice, nowhere +2 +0\.\d+ +0\.0002000 +-")

    def launcher_test(self, *argv, **env):
        jobs = Path(self.folder) / "launcher"
        jobs.mkdir(exist_ok=True)
        token = self.on("ctl", "scontrol", "token", "username=root", "lifespan=3600").strip().removeprefix("SLURM_JWT=")
        return subprocess.Popen([TESTBED, "run", self.folder, "ctl", f"{BIN}/tests/th_launch_slurm_test", *argv], text=True,
                                stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                env={**os.environ, "TH_SLURM_URL": "http://10.77.0.1:6820", "TH_SLURM_TOKEN": token,
                                     "TH_SLURM_FOLDER": str(jobs), **env}), jobs

    def test_launcher(self):
        process, _ = self.launcher_test()
        text = process.communicate(timeout=120)[0]
        self.assertEqual(process.returncode, 0, text)
        self.assertIn("[  SKIPPED ] 1 test,", text)  # the next one

    def th(self, *argv, status=0, seconds=120):
        done = subprocess.run([TESTBED, "run", self.folder, "ctl", f"{BIN}/th", *map(str, argv)], text=True, timeout=seconds,
                              capture_output=True, env={**os.environ, "TH_STATE": f"{self.folder}/th"})
        self.assertEqual(done.returncode, status, done.stdout + done.stderr)
        return done.stderr + done.stdout

    def test_controller_runs_gangs_under_slurm(self):
        folder = Path(self.folder)
        (folder / "th").mkdir(mode=0o711)
        fleet = folder / "fleet.yaml"
        fleet.write_text("name: testbed\nsites:\n  - id: s\n    racks:\n      - id: r\n        power_budget_w: 300\n        leaf: leaf1\n"
                         "        hosts:\n          - {id: n1, series: LOCAL}\n          - {id: n2, series: LOCAL}\n"
                         "switches:\n  - {id: leaf1, tier: leaf}\n")
        launcher = folder / "launcher.yaml"
        launcher.write_text("slurm:\n  url: http://10.77.0.1:6820\n  user: root\n  token_file: token\n  partition: batch\n  account: lab\n")
        self.assertIn("token file", self.th("up", "--fleet", fleet, "--launcher", launcher, status=1))  # there is none yet
        token = folder / "token"
        token.touch(0o600)
        token.write_text(self.on("ctl", "scontrol", "token", "username=root", "lifespan=3600"))
        self.th("up", "--fleet", fleet, "--launcher", launcher)
        try:
            self.th("slice", "create", "demo", "--gpus", 4, "--series", "LOCAL", "--for", "1h")
            job = json.loads(self.th("--json", "submit", "--slice", "demo", "--gpus", 4, "--wait", "--workdir", "/", "--", "sh", "-c",
                                     "echo rank $RANK of $WORLD_SIZE on $(hostname)").splitlines()[-1])
            log = self.th("logs", job["id"])
            for rank, node in enumerate(("n1", "n1", "n2", "n2")):
                self.assertIn(f"rank {rank} of 4 on {node}", log)
            self.th("submit", "--slice", "demo", "--gpus", 1, "--wait", "--retries", 0, "--workdir", "/", "--", "sh", "-c", "exit 7", status=7)
            job = json.loads(self.th("--json", "submit", "--slice", "demo", "--detach", "--gpus", 2, "--workdir", "/", "--", "sleep",
                                     "600").splitlines()[-1])["id"]
            wait_for("Slurm to run it", lambda: f"th:{job}.1 R" in self.on("ctl", "squeue", "-h", "-o", "%j %t"))
            self.th("cancel", job)
            wait_for("Slurm to have ended it", lambda: f"th:{job}.1" not in self.on("ctl", "squeue", "-h", "-o", "%j %t"))
            self.assertIn("Slurm's own sbatch", self.th("sbatch", "-p", "demo", "-n", 1, "--wait", "--wrap", "true", status=1) + self.th("jobs"))
        finally:
            self.th("down")

    def test_launcher_loses_a_node(self):
        process, jobs = self.launcher_test("--gtest_filter=*ALostNode*", TH_SLURM_KILLS="1")
        end = time.monotonic() + 60
        while not (jobs / "up").exists() and time.monotonic() < end and process.poll() is None:
            time.sleep(0.1)
        subprocess.run([TESTBED, "kill", self.folder, "n4"], check=True)
        text = process.communicate(timeout=150)[0]
        self.assertEqual(process.returncode, 0, text)
        self.assertIn("[  PASSED  ] 1 test", text)
        subprocess.run([TESTBED, "boot", self.folder, "n4"], check=True)
        self.on("ctl", "bash", "-c", "until [ $(sinfo -h -t idle -o %D) = 4 ]; do sleep 0.3; done", seconds=60)


if __name__ == "__main__":
    unittest.main()
