"""The official `openai` client (classes OpenAI and AzureOpenAI) against a deployment: tests/openai/run.mjs holds the checks."""

import os
import shutil
import subprocess
import unittest

from cluster import SOURCE, TINY, ClusterTest, http, wait_for


class OpenAiClient(ClusterTest):
    def test_streams_from_a_deployment(self):
        client = SOURCE / "tests/openai"
        if not shutil.which("node") or not (client / "node_modules/openai").is_dir():
            self.skipTest("no Node.js, or `npm ci` was not run in tests/openai; make test does both")
        c = self.cluster
        c.slice("demo", 4)
        c.wait_job(c.submit("--slice", "demo", "--gpus", 4, TINY))
        c.th("deploy", "llama-tiny", "--name", "demo-chat", "--slice", "demo")
        wait_for("the deployment", lambda: c.api("GET", "/api/v1/deployments/demo-chat")["state"] == "ready", 30)
        key = c.th_json("key", "create", "openai")["key"]
        env = {**os.environ, "BASE_URL": c.gateway_url, "KEY": key, "DEPLOYMENT": "demo-chat", "CLIENTS": "200"}
        bearer = {"Authorization": f"Bearer {key}"}
        wait_for("the gateway to know the key", lambda: http("GET", c.gateway_url + "/v1/models", headers=bearer)[0] == 200, 10)
        done = subprocess.run(["node", "run.mjs"], cwd=client, env=env, capture_output=True, text=True, timeout=200)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertRegex(done.stdout, r"\n\d\d+ passed, 0 failed")


if __name__ == "__main__":
    unittest.main()
