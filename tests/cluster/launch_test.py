"""Frameworks and Linpack as jobs of the desk: Open MPI, torch and hpcc run for real on its nodes, which share this machine."""

import os
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

    def test_linpack_recipe(self):
        with tempfile.TemporaryDirectory() as folder:
            recipe = Path(folder) / "hpl.yaml"
            recipe.write_text((SOURCE / "recipes/hpl.yaml").read_text().replace('"60"', '"0.5"').replace("mpi/", f"{SOURCE}/recipes/mpi/"))
            job = self.cluster.th_json("submit", "--wait", recipe)
        self.assertEqual(job["state"], "succeeded", self.cluster.log_tail(job["id"]))
        self.assertGreater(job["result"]["hpl_gflop_per_s"], 0)
        self.assertIn("Rmax (PFlop/s)", self.cluster.th("logs", job["id"]).stdout)


if __name__ == "__main__":
    unittest.main()
