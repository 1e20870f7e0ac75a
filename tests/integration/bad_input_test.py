"""Bad input gets an error that names the thing, what is wrong and what to do, and leaves nothing behind."""

import json
import shutil
import subprocess
import tempfile
import unittest
from pathlib import Path

from cluster import BIN, DESK, SOURCE, TINY, Cluster, ClusterTest, Refused, http, wait_for


class BadInput(ClusterTest):
    def refused(self, *args):
        done = self.cluster.th(*args, check=False)
        self.assertNotEqual(done.returncode, 0, done.stdout)
        return done.stdout + done.stderr

    def nothing_left(self):
        c = self.cluster
        live = [s for s in c.api("GET", "/api/v1/slices")["items"] if s["state"] not in ("released", "failed", "expired")]
        self.assertEqual(live, [])
        self.assertEqual(c.node_pids(), {})

    def test_more_gpus_than_exist(self):
        text = self.refused("slice", "create", "big", "--gpus", 10, "--series", "LOCAL", "--for", "1h")
        self.assertIn("fleet 'desk' has 8 GPUs", text)  # what is there
        self.assertIn("ask for 8 GPUs", text)  # what would fit
        done = self.cluster.th("slice", "create", "big", "--gpus", 10, "--series", "LOCAL", "--for", "1h", "--json", check=False)
        error = json.loads(done.stdout.strip().split("\n")[-1])["error"]
        self.assertEqual(error["code"], "unsatisfiable")
        self.assertIn("LOCA", self.refused("slice", "create", "x", "--gpus", 2, "--series", "LOCA", "--for", "1h"))
        self.assertIn("did you mean 'LOCAL'", self.refused("slice", "create", "x", "--gpus", 2, "--series", "LOCA", "--for", "1h"))
        self.refused("slice", "create", "x", "--gpus", 0, "--series", "LOCAL", "--for", "1h")
        self.refused("slice", "create", "x", "--gpus", -1, "--series", "LOCAL", "--for", "1h")
        self.assertIn("duration", self.refused("slice", "create", "x", "--gpus", 2, "--series", "LOCAL", "--for", "soon"))
        self.nothing_left()

    def test_recipes(self):
        good = TINY.read_text()

        def submit(text, stage=True):
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "r.yaml"
                path.write_text(text.replace("../data/", str(SOURCE / "recipes/data") + "/"))
                return self.refused("submit", path)
        unknown = submit(good.replace("retries:", "retrys:") if "retries:" in good else good + "\nretrys: 2\n")
        self.assertIn("retrys", unknown)
        self.assertIn("did you mean 'retries'", unknown)
        nested = submit(good.replace("steps:", "stesp:"))
        self.assertIn("did you mean 'steps'", nested)
        import re
        self.assertIn("gpus", submit(re.sub(r"(?m)^gpus:.*$", "gpus: four", good)))
        self.assertIn("nowhere.txt", submit(re.sub(r"\S+\.txt$", "nowhere.txt", good, flags=re.M)))
        self.assertIn("none.yaml", self.refused("submit", "none.yaml"))
        self.assertEqual(self.cluster.api("GET", "/api/v1/jobs")["items"], [])
        self.nothing_left()

    def test_fleet_files(self):
        good = DESK.read_text()
        cases = {
            "duplicate id": (good.replace("id: r2", "id: r1"), "r1"),
            "negative power": (good.replace("power_budget_w: ", "power_budget_w: -", 1), "power_budget_w"),
            "unknown key": (good.replace("power_budget_w", "power_budgt_w", 1), "did you mean 'power_budget_w'"),
            "not YAML": ("racks: [", "not YAML"),
        }
        for name, (text, expected) in cases.items():
            with self.subTest(name), tempfile.TemporaryDirectory() as folder:
                self.assertNotEqual(text, good)
                path = Path(folder) / "fleet.yaml"
                path.write_text(text)
                done = subprocess.run([BIN / "th-controld", "--state", Path(folder) / "state", "--fleet", path, "--port", "0"],
                                      capture_output=True, text=True, timeout=20)
                self.assertNotEqual(done.returncode, 0)
                self.assertIn(expected, done.stderr)
                self.assertFalse((Path(folder) / "state").exists())

    def test_requests_of_the_controller(self):
        c = self.cluster
        key = {"Authorization": f"Bearer {c.key()}"}
        status, text = http("POST", c.url + "/api/v1/slices", b"{not json", headers=key)
        self.assertEqual((status, json.loads(text)["code"]), (400, "invalid_argument"))
        status, text = http("POST", c.url + "/api/v1/slices", {"name": "x", "gpu": 2, "series": "LOCAL"}, headers=key)
        self.assertEqual(status, 400)
        self.assertIn("did you mean 'gpus'", text)
        self.assertEqual(http("GET", c.url + "/api/v1/slices")[0], 401)
        self.assertEqual(http("GET", c.url + "/api/v1/slices", headers={"Authorization": "Bearer wrong"})[0], 401)
        self.assertEqual(http("GET", c.url + "/api/v1/slices/none", headers=key)[0], 404)
        self.assertEqual(http("GET", c.url + "/api/v1/nowhere", headers=key)[0], 404)
        self.assertEqual(http("PATCH", c.url + "/api/v1/slices", headers=key)[0], 405)
        status, text = http("POST", c.url + "/api/v1/jobs", b"x" * (2 << 20), headers=key)
        self.assertEqual((status, json.loads(text)["code"]), (413, "invalid_argument"))
        self.assertEqual(http("GET", c.url + "/health")[0], 200)
        self.nothing_left()

    def test_idempotent_writes(self):
        c = self.cluster
        body = {"name": "demo", "gpus": 2, "series": "LOCAL", "duration_ns": 3600 * 10**9}
        first = c.api("POST", "/api/v1/slices", body, headers={"Idempotency-Key": "k1"})
        again = c.api("POST", "/api/v1/slices", body, headers={"Idempotency-Key": "k1"})
        self.assertEqual(first, again)
        with self.assertRaises(Refused) as refused:
            c.api("POST", "/api/v1/slices", {**body, "gpus": 4}, headers={"Idempotency-Key": "k1"})
        self.assertEqual(refused.exception.status, 400)
        self.assertIn("Idempotency-Key", refused.exception.body)
        self.assertEqual(len(c.api("GET", "/api/v1/slices")["items"]), 1)

    def test_requests_of_the_gateway(self):
        c = self.cluster
        key = c.th_json("key", "create", "someone")["key"]
        bearer = {"Authorization": f"Bearer {key}"}
        ask = lambda body, headers=bearer, path="/v1/completions": http("POST", c.gateway_url + path, body, headers=headers)
        wait_for("the gateway to know the key", lambda: ask({"model": "none", "prompt": "x"})[0] == 404, 10)
        self.assertIn("none", ask({"model": "none", "prompt": "x"})[1])
        status, text = ask({"prompt": "x"}, {"api-key": key}, "/openai/deployments/none/completions?api-version=2024-10-21")
        self.assertEqual((status, json.loads(text)["error"]["code"]), (404, "DeploymentNotFound"))
        self.assertEqual(ask({"model": "none", "prompt": "x"}, {"Authorization": "Bearer wrong"})[0], 401)
        self.assertEqual(ask({"model": "none", "prompt": "x"}, {})[0], 401)
        self.assertEqual(ask(b"{not json")[0], 400)
        c.th("key", "revoke", c.api("GET", "/api/v1/keys")["items"][-1]["id"])
        wait_for("the key to be refused", lambda: ask({"model": "none", "prompt": "x"})[0] == 401, 10)

    def test_damaged_models_are_not_served(self):
        c = self.cluster
        c.slice("demo", 2)
        c.wait_job(c.submit("--slice", "demo", TINY))
        good = Path(c.api("GET", "/api/v1/models/llama-tiny")["path"])
        weights = (good / "model.safetensors").read_bytes()
        size = int.from_bytes(weights[:8], "little")
        header = weights[8:8 + size]
        cases = {
            "an empty file": b"",
            "weights cut short": weights[:-1],
            "a header cut short": weights[:8 + size // 2],
            "a header longer than the file": b"\xff" * 8 + weights[8:],
            "a header that is not JSON": weights[:8] + b"x" * size + weights[8 + size:],
            "another type": weights[:8] + header.replace(b'"F32"', b'"I32"', 1) + weights[8 + size:],
            "another tensor": weights[:8] + header.replace(b"model.norm", b"model.morn", 1) + weights[8 + size:],
        }
        for name, forged in cases.items():
            with self.subTest(name), tempfile.TemporaryDirectory() as folder:
                self.assertNotEqual(forged, weights)
                shutil.copytree(good, folder, dirs_exist_ok=True)
                (Path(folder) / "model.safetensors").chmod(0o644)
                (Path(folder) / "model.safetensors").write_bytes(forged)
                done = subprocess.run([BIN / "th-serve", "--model", folder, "--port", "0", "--name", "x"],
                                      capture_output=True, text=True, timeout=20)
                self.assertEqual(done.returncode, 1, done.stderr)
                self.assertIn("model.safetensors", done.stderr)
        c.th("deploy", "llama-tiny", "--name", "whole", "--slice", "demo")  # what was copied is good


if __name__ == "__main__":
    unittest.main()
