"""The training engine as people run it: th-train bench, and the recipe of GPT-2 as a job of the controller."""

import json
import re
import subprocess
import tempfile
import unittest
from pathlib import Path

from cluster import BIN, SOURCE, ClusterTest


def bench(*args):
    return subprocess.run([BIN / "th-train", "bench", *map(str, args), "--json"], capture_output=True, text=True, timeout=300)


class Bench(unittest.TestCase):
    def measured(self, *args):
        done = bench(*args)
        self.assertEqual(done.returncode, 0, done.stderr)
        return json.loads(done.stdout.splitlines()[-1])

    def test_state_is_that_of_the_paper_and_losses_agree(self):
        first = None
        for stage, want in enumerate((16, 4 + 12 / 2, 2 + 14 / 2, 16 / 2)):
            out = self.measured("--params", "1.2e7", "--ranks", 2, "--dtype", "bf16", "--zero", stage, "--batch", 2, "--seq", 16, "--steps", 2)
            self.assertAlmostEqual(out["model_state_bytes_per_rank"] / out["parameters"], want, delta=0.05 * want)
            first = first or out["losses"]
            self.assertEqual(out["losses"], first, f"stage {stage}")
            self.assertLess(out["losses"][-1], out["losses"][0])

    def test_files_hold_what_has_no_room(self):
        with tempfile.TemporaryDirectory() as folder:
            args = ("--params", "6e7", "--zero", 3, "--ranks", 2, "--dtype", "bf16", "--batch", 1, "--seq", 16, "--steps", 1)
            offload = ("--offload", "file", "--offload-folder", folder, "--memory-limit", "600MiB")
            out = self.measured(*args, *offload)
            self.assertLess(out["peak_rss_bytes_per_rank"], 600 << 20)
            self.assertEqual(out["losses"], self.measured(*args)["losses"])
            self.assertGreater(out["offload_bytes_per_step"], 0)
            self.assertGreater(out["dd_gb_per_s"], 0)
            self.assertEqual(list(Path(folder).iterdir()), [])

    def test_the_floor_is_of_the_same_run(self):
        out = self.measured("--params", "1.2e7", "--batch", 2, "--seq", 32, "--steps", 2)
        self.assertGreater(out["gemm_ms"], 0)
        self.assertGreater(out["optimizer_floor_ms"], 0)
        self.assertGreaterEqual(out["floor_ms"], out["gemm_ms"])

    def test_bad_input_is_named(self):
        for args, status, what in [
                (("--model", "gpt3"), 2, "no model 'gpt3'; there are gpt2-124m"),
                (("--params", "10"), 2, "want 10 million"),
                (("--dtype", "fp8"), 2, "want 'float32' or 'bfloat16'"),
                (("--params", "1e8", "--memory-limit", "500MiB"), 2, "memory limit 500.0 MiB: a rank needs.*use ZeRO stage 3"),
                (("--params", "1.2e7", "--zero", 3, "--ranks", 2, "--offload", "file", "--offload-folder", "/proc"), 1, "offload-|rank")]:
            done = bench(*args)
            self.assertEqual(done.returncode, status, done.stderr)
            self.assertRegex(done.stderr, what)


class Gpt2(ClusterTest):
    def test_the_recipe_trains_as_a_job(self):
        text = (SOURCE / "recipes/train/gpt2-124m.yaml").read_text().replace("../data/", f"{SOURCE}/recipes/data/")
        text = re.sub(r"(?m)^  steps: .*$", "  steps: 2", text)
        with tempfile.TemporaryDirectory() as folder:
            recipe = Path(folder) / "gpt2-124m.yaml"
            recipe.write_text(text)
            c = self.cluster
            c.slice("gpt", 2)
            done = c.wait_job(c.submit("--slice", "gpt", "--gpus", 2, recipe), seconds=240)
        self.assertLess(done["result"]["last_loss"], done["result"]["first_loss"])
        self.assertAlmostEqual(done["result"]["first_loss"], 10.9, delta=0.4)  # ln 50257 is 10.82
        files = {f["name"]: f["bytes"] for f in c.api("GET", "/api/v1/models/gpt2-124m")["files"]}
        # 123,653,376 parameters: GPT-2's with 64 positions in place of 1,024.
        self.assertAlmostEqual(files["model.safetensors"], 4 * (124_439_808 - 960 * 768), delta=100_000)


if __name__ == "__main__":
    unittest.main()
