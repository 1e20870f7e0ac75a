"""`th demo --json`: the main job, from nothing to text out of a model that was just trained; and nothing left after it."""

import json
import os
import subprocess
import tempfile
import time
import unittest
from pathlib import Path

from cluster import BIN, SOURCE, processes_of


class Demo(unittest.TestCase):
    def test_the_main_job(self):
        with tempfile.TemporaryDirectory(prefix="th-demo-test-") as folder:
            os.chmod(folder, 0o711)
            start = time.monotonic()
            # It is nobody else's controller, whatever the environment names.
            env = {**os.environ, "TMPDIR": folder, "TH_URL": "http://127.0.0.1:9", "TH_KEY": "wrong",
                   "TH_GATEWAY_URL": "http://127.0.0.1:9"}
            done = subprocess.run([BIN / "th", "demo", "--json"], cwd=SOURCE, capture_output=True, text=True,
                                  stdin=subprocess.DEVNULL, env=env, timeout=500)
            seconds = time.monotonic() - start
            self.assertEqual(done.returncode, 0, done.stdout[-3000:] + done.stderr[-5000:])
            result = json.loads(done.stdout.strip().split("\n")[-1])
            train = result["train"]
            self.assertLess(train["last_loss"], train["first_loss"] - 2)
            self.assertLess(train["val_bits_per_byte"], 0.95 * train["bigram_bits_per_byte"], "clearly better than a bigram")
            self.assertGreater(train["steps"], 50)
            self.assertGreater(train["tokens_per_s"], 0)
            self.assertGreater(len(result["serve"]["completion"]), 20)
            self.assertGreater(result["serve"]["tokens_per_s"], 0)
            self.assertEqual(result["offer"]["gpus"], 4)
            self.assertGreater(result["usage"]["microusd"], 0)
            self.assertLessEqual(result["seconds"], seconds + 1)
            self.assertEqual(processes_of(folder), [])
            self.assertEqual(list(Path(folder).iterdir()), [], "files left")


if __name__ == "__main__":
    unittest.main()
