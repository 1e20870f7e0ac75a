"""Bad input gets an error that names the thing, what is wrong and what to do, and leaves nothing behind."""

import json
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
        self.assertIn("8", text)  # what is there
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
        self.assertEqual((status, json.loads(text)["error"]["code"]), (400, "invalid_argument"))
        status, text = http("POST", c.url + "/api/v1/slices", {"name": "x", "gpu": 2, "series": "LOCAL"}, headers=key)
        self.assertEqual(status, 400)
        self.assertIn("did you mean 'gpus'", text)
        self.assertEqual(http("GET", c.url + "/api/v1/slices")[0], 401)
        self.assertEqual(http("GET", c.url + "/api/v1/slices", headers={"Authorization": "Bearer wrong"})[0], 401)
        self.assertEqual(http("GET", c.url + "/api/v1/slices/none", headers=key)[0], 404)
        self.assertEqual(http("GET", c.url + "/api/v1/nowhere", headers=key)[0], 404)
        self.assertEqual(http("PATCH", c.url + "/api/v1/slices", headers=key)[0], 405)
        try:
            status = http("POST", c.url + "/api/v1/jobs", b"x" * (64 << 20), headers=key)[0]
        except OSError:
            status = 413  # the connection is closed while we still send
        self.assertEqual(status, 413)
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
        with tempfile.TemporaryDirectory() as folder:
            model = Path(folder)
            (model / "config.json").write_text("{}")
            (model / "tokenizer.json").write_text("{}")
            (model / "model.safetensors").write_bytes(b"\xff" * 64)
            done = subprocess.run([BIN / "th-serve", "--model", model, "--port", "0", "--name", "x"], capture_output=True,
                                  text=True, timeout=20)
            self.assertNotEqual(done.returncode, 0)
            self.assertTrue(done.stderr.strip())


if __name__ == "__main__":
    unittest.main()
