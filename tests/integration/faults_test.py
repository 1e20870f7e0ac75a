"""Faults that the cluster survives: every one with kill -9 on real processes."""

import json
import os
import re
import signal
import socket
import threading
import time
import unittest
from pathlib import Path

from cluster import TINY, ClusterTest, alive, http, wait_for


class Faults(ClusterTest):
    def deploy(self, c, recipe=TINY):
        job = c.submit("--slice", "demo", "--gpus", 4, recipe)
        c.wait_job(job)
        c.th("deploy", recipe.stem, "--name", "demo-chat", "--slice", "demo")
        wait_for("the deployment", lambda: c.api("GET", "/api/v1/deployments/demo-chat")["state"] == "ready", 30)
        key = c.th_json("key", "create", "someone")["key"]
        wait_for("the gateway to know the deployment", lambda: self.complete(c, key)[0] == 200, 10)
        return key

    @staticmethod
    def complete(c, key, **more):
        return http("POST", c.gateway_url + "/v1/completions",
                    {"model": "demo-chat", "prompt": "In the beginning", "max_tokens": 4, **more}, timeout=60,
                    headers={"Authorization": f"Bearer {key}"})

    def test_the_controller_dies_while_a_job_trains(self):
        c = self.cluster
        c.slice("demo", 8)
        key = self.deploy(c)
        job = c.submit("--slice", "demo", "--gpus", 4, c.recipe("long", steps=100000))
        c.wait_step(job, 5)
        ranks = c.rank_pids(job)
        self.assertEqual(len(ranks), 4)
        replica = c.api("GET", "/api/v1/deployments/demo-chat")["job"]
        replica_pids = c.rank_pids(replica)
        answers, stop = [], threading.Event()

        def ask():
            while not stop.is_set():
                answers.append(self.complete(c, key)[0])
        asking = threading.Thread(target=ask)
        asking.start()
        c.kill_controld()
        time.sleep(1.5)
        during = len(answers)
        time.sleep(1.5)
        self.assertGreater(len(answers), during, "the gateway answered nothing while the controller was away")
        c.start_controld()
        found = c.wait_job(job, ("running",))
        self.assertEqual(c.rank_pids(job), ranks)
        c.wait_step(job, found["progress"]["step"] + 20)
        stop.set()
        asking.join()
        self.assertEqual(set(answers), {200})
        self.assertEqual(c.job(job)["attempt"], 1, "the gang was started twice")
        self.assertEqual(c.rank_pids(job), ranks)
        saved = [m["step"] for m in c.api("GET", f"/api/v1/jobs/{job}/metrics")["items"] if m["event"] == "checkpoint"]
        self.assertEqual(saved, list(range(10, saved[-1] + 1, 10)), "a line of the metrics was lost or doubled")
        self.assertEqual(c.rank_pids(replica), replica_pids, "the replica was started again")
        metrics = c.api("GET", f"/api/v1/jobs/{job}/metrics")["items"]
        steps = [m["step"] for m in metrics if m["event"] == "progress"]
        self.assertEqual(steps, sorted(set(steps)), "a progress line was lost or doubled")

        def counted():
            usage = c.api("GET", "/api/v1/usage")["tokens"]
            return sum(t["requests"] for t in usage if t["deployment"] == "demo-chat")
        expected = len(answers) + 1
        wait_for(f"usage of {expected} requests", lambda: counted() >= expected, 20)
        time.sleep(0.5)
        self.assertEqual(counted(), expected)

    def test_the_gateway_dies_and_usage_is_counted_once(self):
        c = self.cluster
        c.slice("demo", 4)
        key = self.deploy(c)
        c.kill_controld()
        for _ in range(20):
            self.assertEqual(self.complete(c, key)[0], 200)
        c.gateway.send_signal(signal.SIGKILL)
        c.gateway.wait()
        c.start_gateway()
        self.assertEqual(self.complete(c, key)[0], 200, "it starts on its last configuration")
        c.start_controld()
        count = lambda: sum(t["requests"] for t in c.api("GET", "/api/v1/usage")["tokens"])
        wait_for("22 requests", lambda: count() >= 22, 20)
        time.sleep(1)
        self.assertEqual(count(), 22)

    def test_a_rank_dies(self):
        c = self.cluster
        c.slice("demo", 4)
        job = c.submit("--slice", "demo", "--gpus", 4, TINY)
        wait_for("a checkpoint", lambda: any(
            m["event"] == "checkpoint" for m in c.api("GET", f"/api/v1/jobs/{job}/metrics")["items"]), 60)
        os.kill(c.rank_pids(job)[2], signal.SIGKILL)
        wait_for("the second attempt", lambda: c.job(job)["attempt"] == 2, 30)
        done = c.wait_job(job)
        events = c.api("GET", f"/api/v1/jobs/{job}/metrics")["items"]
        resumed = [m["step"] for m in events if m["event"] == "resume"]
        self.assertEqual(len(resumed), 1)
        self.assertGreater(resumed[0], 0)
        story = json.dumps(c.api("GET", f"/api/v1/why/{job}")["timeline"])
        self.assertIn("rank 2", story)
        self.assertRegex(story, r"SIGKILL|signal 9")
        self.assertRegex(story, r"steps? (were )?lost|lost \d+ steps?")
        node = next(r["node"] for r in done["ranks"] if r["rank"] == 2)
        self.assertIn(node, story)

    def test_a_rank_that_dies_too_often_fails_the_job(self):
        c = self.cluster
        job = c.submit("--gpus", 2, "--retries", 1, "--", "sh", "-c", "[ $RANK = 0 ] || kill -9 $$; sleep 60")
        failed = c.wait_job(job, ("failed",), 60)
        self.assertEqual(failed["attempt"], 2)

    def test_a_node_dies(self):
        c = self.cluster
        c.slice("demo", 4)
        job = c.submit("--slice", "demo", "--gpus", 4, TINY)
        c.wait_step(job, 5)
        before = c.node_pids()
        vm, pid = sorted(before.items())[0]
        ranks = c.rank_pids(job)
        os.kill(pid, signal.SIGKILL)
        wait_for("its ranks to end with it", lambda: sum(alive(p) for p in ranks.values()) <= 2, 5)
        wait_for("the node to be down", lambda: any(
            "down" in e["what"] for e in c.api("GET", "/api/v1/why/demo")["timeline"]), 25)
        done = c.wait_job(job, seconds=120)
        self.assertGreaterEqual(done["attempt"], 2)
        self.assertNotIn(vm, c.node_pids())

    def test_200_clients_at_once(self):
        c = self.cluster
        c.slice("demo", 4)
        key = self.deploy(c)
        answers = []

        def client(i):
            answers.append(self.complete(c, key, stream=i % 2 == 0, max_tokens=8))
        clients = [threading.Thread(target=client, args=(i,)) for i in range(200)]
        for t in clients:
            t.start()
        for t in clients:
            t.join()
        self.assertEqual({s for s, _ in answers}, {200}, [a for a in answers if a[0] != 200][:3])
        self.assertEqual(sum(text.rstrip().endswith("[DONE]") for _, text in answers), 100)
        status = Path(f"/proc/{c.gateway.pid}/status").read_text()
        peak_kib = int(status.split("VmHWM:")[1].split()[0])
        self.assertLess(peak_kib, 256 * 1024, "the gateway's memory")

    def test_a_client_that_goes_away_stops_its_generation(self):
        c = self.cluster
        c.slice("demo", 4)
        # 4000 tokens take seconds, and the likeliest token of a model that has hardly learned is never the end of the text.
        key = self.deploy(c, c.recipe("wordy", seq=4096, steps=2, batch=1, every=0))
        body = json.dumps({"model": "demo-chat", "prompt": "And", "max_tokens": 4000, "temperature": 0,
                           "stream": True}).encode()
        replica = c.api("GET", "/api/v1/deployments/demo-chat")["url"]

        def count(name):
            text = http("GET", replica + "/metrics")[1]
            return int(float(re.search(rf"(?m)^th_serve_{name} (.*)$", text)[1]))
        before = count("cancelled_total")
        with socket.create_connection(("127.0.0.1", c.gateway_port)) as s:
            s.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                      b"Authorization: Bearer " + key.encode() + b"\r\nContent-Length: " + str(len(body)).encode()
                      + b"\r\n\r\n" + body)
            self.assertIn(b" 200 ", s.recv(100))
            self.assertEqual(count("sequences_running"), 1)
        wait_for("it to be cancelled", lambda: count("cancelled_total") == before + 1, 5)
        self.assertEqual(count("sequences_running"), 0)

    def test_a_second_daemon_and_a_taken_port_are_refused(self):
        import subprocess
        from cluster import BIN, DESK, Cluster
        c = self.cluster
        second = subprocess.run([BIN / "th-controld", "--state", c.state, "--fleet", DESK, "--port", "0"], timeout=20,
                                capture_output=True, text=True)
        self.assertNotEqual(second.returncode, 0)
        self.assertIn(str(c.controld.pid), second.stderr)
        other = Cluster()
        taken = subprocess.run([BIN / "th-controld", "--state", other.state, "--fleet", DESK, "--port", str(c.port)],
                               timeout=20, capture_output=True, text=True)
        self.assertNotEqual(taken.returncode, 0)
        self.assertIn(str(c.port), taken.stderr)
        self.assertFalse((Path(other.state) / "admin.key").exists())
        self.assertFalse((Path(other.state) / "fleet.yaml").exists())
        fresh = Path(other.state) / "fresh"
        taken = subprocess.run([BIN / "th-controld", "--state", fresh, "--fleet", DESK, "--port", str(c.port)],
                               timeout=20, capture_output=True, text=True)
        self.assertNotEqual(taken.returncode, 0)
        self.assertFalse(fresh.exists())
        self.assertEqual(other.stop(), [])


if __name__ == "__main__":
    unittest.main()
