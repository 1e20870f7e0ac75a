"""Frameworks and Linpack as jobs of the desk: Open MPI, torch and hpcc run for real on its nodes, which share this machine."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

SOURCE = Path(os.environ["TH_SOURCE"])
sys.path.insert(0, str(SOURCE / "tests/integration"))
from cluster import ClusterTest  # noqa: E402


class Launch(ClusterTest):
    @classmethod
    def setUpClass(cls):
        subprocess.run([SOURCE / "tools/install.sh", "openmpi-bin", "hpcc", "libopenblas0-pthread", "python3-torch"], check=True)

    def setUp(self):
        super().setUp()
        folder = tempfile.TemporaryDirectory(prefix="th-launch-")
        self.addCleanup(folder.cleanup)
        self.logs = folder.name
        os.chmod(self.logs, 0o777)

    def test_linpack_recipe(self):
        recipe = Path(self.logs) / "hpl.yaml"
        recipe.write_text((SOURCE / "recipes/hpl.yaml").read_text().replace('"60"', '"0.5"').replace("mpi/", f"{SOURCE}/recipes/mpi/"))
        job = self.cluster.th_json("submit", "--wait", recipe)
        self.assertEqual(job["state"], "succeeded", self.cluster.log_tail(job["id"]))
        self.assertGreater(job["result"]["hpl_gflop_per_s"], 0)
        self.assertIn("Rmax (PFlop/s)", self.cluster.th("logs", job["id"]).stdout)

    def test_torchrun_over_two_nodes(self):
        self.cluster.th("slice", "create", "wide", "--gpus", 4, "--series", "LOCAL", "--for", "1h", "--spread")
        # Debian's torch 1.13 with its Python 3.11 cannot read its own defaults of --redirects and --tee.
        job = self.cluster.th_json("launch", "torchrun", "--slice", "wide", "--wait", "--retries", 0, "--env", "GLOO_SOCKET_IFNAME=lo",
                                   "--env", "OMP_NUM_THREADS=1", "--workdir", "/tmp", "--", "--redirects", "2", "--tee", "1",
                                   "--log_dir", f"{self.logs}/log", shutil.copy(SOURCE / "tools/torch_ddp.py", self.logs))
        self.assertEqual(job["state"], "succeeded", self.cluster.log_tail(job["id"]))
        self.assertEqual((len(job["ranks"]), job["gpus"]), (2, 4))
        self.assertIn("torch: 4 ranks", self.cluster.th("logs", job["id"]).stdout)

    def test_mpirun_over_two_nodes(self):
        self.cluster.th("slice", "create", "wide", "--gpus", 4, "--series", "LOCAL", "--for", "1h", "--spread")
        sizes = ["sh", "-c", "echo $OMPI_COMM_WORLD_RANK of $OMPI_COMM_WORLD_SIZE, local $OMPI_COMM_WORLD_LOCAL_RANK"]
        job = self.cluster.th_json("launch", "mpirun", "--slice", "wide", "--wait", "--retries", 0, "--", *sizes)
        self.assertEqual(job["state"], "succeeded", self.cluster.log_tail(job["id"]))
        log = self.cluster.th("logs", job["id"]).stdout
        for line in ("0 of 4, local 0", "1 of 4, local 1", "2 of 4, local 0", "3 of 4, local 1"):
            self.assertIn(line, log)
        refused = self.cluster.th("launch", "mpirun", "--slice", "wide", "--wait", "--retries", 0, "--", "sh", "-c", "exit 3", check=False)
        self.assertNotEqual(refused.returncode, 0)

    def test_generated_and_refused(self):
        self.cluster.slice("demo", 4)
        found = self.cluster.th("launch", "deepspeed", "--slice", "demo", "--global-batch", 8, "--out", self.logs, "--", "train.py")
        self.assertIn("generated, not run here", found.stdout)
        config = json.loads((Path(self.logs) / "ds_config.json").read_text())
        self.assertEqual((config["train_batch_size"], config["gradient_accumulation_steps"]), (8, 2))
        found = self.cluster.th_json("launch", "megatron", "--slice", "demo", "--", "pretrain_gpt.py")
        self.assertIn("--tensor-model-parallel-size 2", " ".join(found["command"]))
        self.assertFalse(found["tried"])
        for words, wanted in (((("horovod", "--slice", "demo", "--", "x")), "torchrun, mpirun, deepspeed or megatron"),
                              (("torchrun", "--slice", "nosuch", "--", "x"), "nosuch"),
                              (("torchrun", "--", "x"), "--slice NAME"),
                              (("torchrun", "--slice", "demo"), "arguments are missing"),
                              (("torchrun", "--slice", "demo", "--nodes", "9", "--", "x"), "slice demo has 2"),
                              (("megatron", "--slice", "demo", "--pipeline-parallel", "3", "--", "x"), "does not divide the 4 GPUs")):
            done = self.cluster.th("launch", *words, check=False)
            self.assertEqual(done.returncode, 1, words)
            self.assertIn(wanted, done.stderr)


if __name__ == "__main__":
    unittest.main()
