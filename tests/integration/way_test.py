"""The whole way of a request, with real processes: slice, gang, model, deployment, text, reasons, money."""

import json
import os
import pwd
import stat
import unittest
from pathlib import Path

from cluster import SOURCE, TINY, ClusterTest, Refused, alive, http, processes_of, wait_for


class Way(ClusterTest):
    def test_a_slice_trains_a_model_and_serves_it(self):
        c = self.cluster
        made = c.slice("demo", 4)
        self.assertEqual(made["state"], "ready")
        self.assertEqual(len(made["nodes"]), 2)
        self.assertEqual({n["state"] for n in made["nodes"]}, {"ready"})
        self.assertEqual(made["offer"]["price_microusd"], 4 * made["offer"]["microusd_per_gpu_hour"])
        self.assertEqual(len({n["leaf"] for n in made["nodes"]}), 1, "two hosts of one rack fit: one leaf")

        job = c.submit("--slice", "demo", "--gpus", 4, TINY)
        done = c.wait_job(job)
        result = done["result"]
        self.assertLess(result["last_loss"], result["first_loss"])
        self.assertEqual(len(done["ranks"]), 4)
        self.assertEqual({r["exit_code"] for r in done["ranks"]}, {0})
        model = c.api("GET", "/api/v1/models/llama-tiny")
        for name in ("config.json", "model.safetensors", "tokenizer.json"):
            self.assertIn(name, [f["name"] for f in model["files"]])
            self.assertTrue((Path(model["path"]) / name).is_file())

        c.th("deploy", "llama-tiny", "--name", "demo-chat", "--slice", "demo")
        wait_for("the deployment to be ready",
                 lambda: c.api("GET", "/api/v1/deployments/demo-chat")["state"] == "ready", 30)
        key = c.th_json("key", "create", "someone")["key"]
        body = {"model": "demo-chat", "prompt": "In the beginning", "max_tokens": 16}
        bearer = {"Authorization": f"Bearer {key}"}
        azure = c.gateway_url + "/openai/deployments/demo-chat/completions?api-version=2024-10-21"
        wait_for("the gateway to know it", lambda: http("POST", azure, body, headers={"api-key": key})[0] == 200, 10)
        status, text = http("POST", c.gateway_url + "/v1/completions", body, headers=bearer)
        self.assertEqual(status, 200, text)
        self.assertEqual(json.loads(text)["usage"]["completion_tokens"], 16)
        status, text = http("POST", c.gateway_url + "/v1/chat/completions",
                            {"model": "demo-chat", "messages": [{"role": "user", "content": "And God said"}],
                             "max_tokens": 8, "stream": True}, headers=bearer)
        self.assertEqual(status, 200, text)
        self.assertTrue(text.rstrip().endswith("data: [DONE]"), text[-200:])

        wait_for("usage to arrive", lambda: sum(t["completion_tokens"] for t in c.api("GET", "/api/v1/usage")["tokens"]) == 40)
        why = c.api("GET", f"/api/v1/why/{job}")
        self.assertGreaterEqual(len(why["timeline"]), 3)
        self.assertGreater(why["cost_microusd"], 0)

        c.th("slice", "release", "demo")
        wait_for("the slice to be gone", lambda: c.api("GET", "/api/v1/slices/demo")["state"] == "released", 20)
        wait_for("its nodes to end", lambda: not c.node_pids(), 10)
        usage = c.api("GET", "/api/v1/usage")
        self.assertEqual(usage["microusd"], sum(i["microusd"] for i in usage["items"]))
        again = c.api("GET", "/api/v1/usage")
        self.assertEqual(again["microusd"], usage["microusd"], "a released slice costs no more")

    def test_any_command_gets_the_rendezvous_environment(self):
        c = self.cluster
        script = SOURCE / "tests/integration/torchrun_style.py"
        job = c.submit("--gpus", 4, "--name", "hello", "--", "python3", script)
        c.wait_job(job, seconds=60)
        text = c.th("logs", job).stdout
        for rank in range(4):
            self.assertIn(f"rank {rank} of 4", text)
        self.assertEqual(text.count("sum of ranks 6"), 4, text)
        wait_for("its slice of its own to be released", lambda: not c.node_pids(), 20)
        self.assertEqual(c.th("logs", job).stdout, text, "logs are kept after the node is gone")

    def test_ranks_run_without_privileges(self):
        if os.getuid() != 0:
            self.skipTest("not run as root: ranks run as the user who started the controller")
        c = self.cluster
        job = c.submit("--gpus", 1, "--", "id", "-u")
        c.wait_job(job, seconds=60)
        self.assertEqual(c.th("logs", job).stdout.strip(), str(pwd.getpwnam("nobody").pw_uid))

    def test_secrets_stay_secret(self):
        c = self.cluster
        c.slice("demo", 4)
        job = c.submit("--slice", "demo", "--gpus", 1, "--", "env")
        c.wait_job(job, seconds=60)
        secrets = [c.key(), (c.state / "gateway.token").read_text().strip(), c.th_json("key", "create", "k")["key"]]
        secrets += [json.loads(f.read_text())["token"] for f in c.state.glob("vms/*/node.json")]
        self.assertEqual(len(secrets), 5)
        holders = 0
        for path in c.state.rglob("*"):
            if not path.is_file():
                continue
            data = path.read_bytes()
            mode = stat.S_IMODE(path.stat().st_mode)
            for secret in secrets:
                if secret.encode() in data:
                    holders += 1
                    self.assertEqual(mode & 0o077, 0, f"{path} holds a secret and others may read it")
                    self.assertNotIn(path.suffix, (".db", ".db-wal", ".log"), f"{path} holds a secret in clear")
        self.assertGreaterEqual(holders, 4, "the search finds what is there")

    def test_exit_codes_signals_and_cancel_are_told(self):
        c = self.cluster
        c.slice("demo", 2)
        job = c.submit("--slice", "demo", "--gpus", 1, "--retries", 0, "--", "sh", "-c", "exit 7")
        failed = c.wait_job(job, ("failed",))
        self.assertEqual(failed["ranks"][0]["exit_code"], 7)
        job = c.submit("--slice", "demo", "--gpus", 2, "--", "sleep", "300")
        c.wait_job(job, ("running",))
        pids = wait_for("both ranks", lambda: len(c.rank_pids(job)) == 2 and c.rank_pids(job)).values()
        c.th("cancel", job)
        c.wait_job(job, ("cancelled",))
        wait_for("the ranks to end", lambda: not any(alive(p) for p in pids))

    def test_a_job_that_cannot_start_says_why_and_when(self):
        c = self.cluster
        c.slice("all", 8)
        job = c.submit("--gpus", 2, "--", "true")
        why = wait_for("a reason", lambda: c.api("GET", f"/api/v1/why/{job}"))
        self.assertEqual(why["state"], "pending")
        self.assertTrue(why["reason"]["text"])
        self.assertGreater(why["estimated_start_ns"], 0)
        self.assertTrue(why["smallest_change"])
        c.th("slice", "release", "all")
        c.wait_job(job, seconds=40)

    def test_drain_keeps_a_host_out(self):
        c = self.cluster
        hosts = [h["id"] for r in c.api("GET", "/api/v1/fleet")["racks"] for h in r["hosts"]]
        c.th("nodes", "drain", hosts[0], "--reason", "a fan is loud")
        made = c.slice("six", 6)
        self.assertNotIn(hosts[0], [n["host"] for n in made["nodes"]])
        with self.assertRaises(AssertionError) as refused:
            c.slice("two", 2)
        self.assertIn("a fan is loud", str(refused.exception))
        c.th("nodes", "resume", hosts[0])
        c.slice("two", 2)


if __name__ == "__main__":
    unittest.main()
