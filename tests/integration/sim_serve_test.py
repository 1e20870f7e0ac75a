"""th-sim serve: a person's way through the API of a simulated fleet of 131,072 GPUs in virtual time."""

import http.client
import json
import os
import signal
import subprocess
import time
import unittest
from pathlib import Path

BIN = Path(os.environ["TH_BIN"])


class SimServe(unittest.TestCase):
    def setUp(self):
        self.process = subprocess.Popen([BIN / "th-sim", "serve", "--preset", "hyperscale-131k", "--port", "0",
                                         "--speed", "60", "--load", "40", "--json"], stdout=subprocess.PIPE, text=True)
        self.addCleanup(self.process.kill)
        self.start = json.loads(self.process.stdout.readline())

    def ask(self, method, path, body=None, key=None):
        connection = http.client.HTTPConnection(self.start["url"].removeprefix("http://"), timeout=60)
        connection.request(method, path, None if body is None else json.dumps(body),
                           {"Authorization": "Bearer " + (key or self.start["key"])})
        response = connection.getresponse()
        text = response.read()
        return response.status, json.loads(text) if text else None

    def ok(self, method, path, body=None):
        status, answer = self.ask(method, path, body)
        self.assertEqual(status, 200, answer)
        return answer

    def wait_for(self, what, look, seconds=90):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            found = look()
            if found:
                return found
            time.sleep(0.25)
        self.fail(f"no {what} within {seconds} s")

    def test_a_gang_of_8192_gpus_comes_up_in_virtual_time(self):
        self.assertEqual((self.start["gpus"], self.start["hosts"], self.start["simulated"]), (131072, 16384, True))
        self.assertEqual(self.ask("GET", "/api/v1/fleet/use", key="wrong")[0], 401)
        self.assertIs(self.ok("GET", "/health")["simulated"], True)

        fleet = self.ok("GET", "/api/v1/fleet/map")
        hosts = [host for rack in fleet["racks"] for host in rack["hosts"]]
        self.assertEqual((fleet["gpus"], len(hosts), len(set(hosts))), (131072, 16384, 16384))
        before = self.ok("GET", "/api/v1/fleet/use")
        self.assertEqual((len(before["hosts"]), len(before["gpus_by_host"])), (16384, 16384))
        self.assertEqual(before["gpus_used"], sum(int(d, 36) for d in before["gpus_by_host"]))
        self.assertIs(before["simulated"], True)

        asked = {"name": "mine", "gpus": 8192, "series": "ND_H100_v5", "duration_ns": 24 * 3600 * 10**9}
        offer = self.ok("POST", "/api/v1/offers", asked)
        self.assertEqual((offer["gpus"], len(offer["hosts"])), (8192, 1024))
        self.ok("POST", "/api/v1/slices", asked)
        self.ok("POST", "/api/v1/slices/mine/commit", {})
        ready = self.wait_for("ready slice", lambda: (s := self.ok("GET", "/api/v1/slices/mine"))["state"] == "ready" and s)
        self.assertEqual(len(ready["nodes"]), 1024)
        index = {host: i for i, host in enumerate(hosts)}
        use = self.ok("GET", "/api/v1/fleet/use")
        mine = {use["hosts"][index[share["host"]]] for share in ready["offer"]["hosts"]}
        self.assertLessEqual(mine, {"u", "s", "x"})
        self.assertIn("u", mine)
        self.assertGreater(use["time_ns"], before["time_ns"] + 20 * 10**9)  # booting takes at least 20 virtual seconds

        job = self.ok("POST", "/api/v1/jobs", {"name": "train", "slice": "mine", "gpus": 8192, "ntasks": 1024,
                                               "ntasks_per_node": 1, "command": ["simulated-training", "3600000"]})
        progress = self.wait_for("progress", lambda: self.ok("GET", f"/api/v1/jobs/{job['id']}")["progress"])
        self.assertIs(progress["simulated"], True)
        self.assertGreater(progress["loss"], 0)
        host = self.ok("GET", f"/api/v1/hosts/{ready['offer']['hosts'][0]['host']}")
        self.assertEqual({g["slice"] for g in host["gpus"]}, {"mine"})
        self.ok("DELETE", f"/api/v1/jobs/{job['id']}")
        self.wait_for("cancelled job", lambda: self.ok("GET", f"/api/v1/jobs/{job['id']}")["state"] == "cancelled")

        free = next(h for h, letter in zip(hosts, self.ok("GET", "/api/v1/fleet/use")["hosts"]) if letter == "f")
        self.ok("POST", f"/api/v1/hosts/{free}/drain", {"reason": "by hand"})
        self.assertEqual(self.ok("GET", "/api/v1/fleet/use")["hosts"][index[free]], "d")
        self.ok("DELETE", "/api/v1/slices/mine")
        self.wait_for("released slice", lambda: self.ok("GET", "/api/v1/slices/mine")["state"] == "released")

        self.process.send_signal(signal.SIGTERM)
        self.assertEqual(self.process.wait(30), 0)
        result = json.loads(self.process.stdout.read().strip().split("\n")[-1])
        self.assertIs(result["simulated"], True)
        self.assertGreater(result["virtual_hours"], 0)

    def test_what_cannot_be_is_refused(self):
        for flags, word in ((["--preset", "nothing"], "nothing"), (["--speed", "0"], "speed"), (["--load", "101"], "load"),
                            (["--port", "70000"], "port")):
            run = subprocess.run([BIN / "th-sim", "serve", *flags], capture_output=True, text=True, timeout=60)
            self.assertEqual(run.returncode, 2, run.stderr)
            self.assertIn(word, run.stderr)


if __name__ == "__main__":
    unittest.main()
