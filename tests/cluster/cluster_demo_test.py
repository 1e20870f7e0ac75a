"""make cluster-demo in its short form, without Linpack. Needs root."""

import json
import os
import subprocess
import tempfile
import unittest
from pathlib import Path

SOURCE = Path(os.environ["TH_SOURCE"])


@unittest.skipUnless(os.geteuid() == 0, "namespaces need root")
class ClusterDemo(unittest.TestCase):
    def test_a_job_outlives_a_node(self):
        with tempfile.TemporaryDirectory(prefix="th-cluster-demo-") as folder:
            os.chmod(folder, 0o711)
            done = subprocess.run([SOURCE / "tools/cluster_demo.py", "--without-hpl"], capture_output=True, text=True, timeout=500,
                                  env={**os.environ, "TH_CLUSTER_DEMO_FOLDER": f"{folder}/demo"})
            self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
            result = json.loads(done.stdout.strip().split("\n")[-1])
            self.assertEqual((result["nodes"], result["ranks"], result["node_killed"]), (4, 4, "n4"))
            self.assertGreaterEqual(result["resumed_from_step"], 100)
            self.assertEqual(result["last_step"], 400)
            self.assertIn("torch: 3 ranks", done.stdout)
            self.assertRegex(done.stdout, r"nodes that were off: [0-9.]+ s from submission to start")
            self.assertEqual(os.listdir(folder), [])


if __name__ == "__main__":
    unittest.main()
