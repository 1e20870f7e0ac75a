"""A controller whose VMs come from the azure provider, against the emulator of Azure: no machine is behind them."""

import hashlib
import http.server
import json
import subprocess
import threading
import unittest
import urllib.request
from urllib.parse import urlencode

from cluster import BIN, Cluster, ClusterTest, wait_for

FLEET = """
name: eastus
sites:
  - id: eastus
    racks:
      - id: r1
        power_budget_w: 50000
        leaf: leaf1
        hosts: [{id: h1, series: ND_H100_v5}, {id: h2, series: ND_H100_v5}, {id: h3, series: ND_H100_v5}]
switches:
  - {id: leaf1, tier: leaf}
"""
SECRET = "the-secret-of-the-client"


class Emulator:
    """build/…/azure-emulator, with a clock that runs 100 times faster."""

    def __init__(self):
        self.process = subprocess.Popen([BIN / "azure-emulator", "--speed", "100"], stdout=subprocess.PIPE, text=True)
        lines = []
        while not lines or not lines[-1].startswith("  metadata_url:"):
            lines.append(self.process.stdout.readline())
        self.section = "".join(lines)
        self.url = lines[-1].split()[1]

    def stop(self):
        self.process.terminate()
        self.process.wait(10)
        self.process.stdout.close()

    def sets(self):
        form = urlencode({"grant_type": "client_credentials", "client_id": "client-1", "client_secret": SECRET,
                          "scope": "https://management.azure.com/.default"}).encode()
        with urllib.request.urlopen(self.url + "/tenant-1/oauth2/v2.0/token", form, timeout=10) as answer:
            token = json.load(answer)["access_token"]
        request = urllib.request.Request(
            self.url + "/subscriptions/sub-1/resourceGroups/rg-1/providers/Microsoft.Compute/virtualMachineScaleSets"
            "?api-version=2025-04-01", headers={"Authorization": "Bearer " + token})
        with urllib.request.urlopen(request, timeout=10) as answer:
            assert "not Azure" in answer.headers["X-Emulator"]
            return json.load(answer)["value"]


class Metadata:
    """What the Instance Metadata Service says of one instance."""

    def __init__(self, name, scale_set):
        body = json.dumps({"compute": {"name": name, "vmScaleSetName": scale_set},
                           "network": {"interface": [{"ipv4": {"ipAddress": [{"privateIpAddress": "127.0.0.1"}]}}]}}).encode()

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                good = self.path == "/metadata/instance?api-version=2021-02-01" and self.headers["Metadata"] == "true"
                self.send_response(200 if good else 400)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args):
                pass
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def stop(self):
        self.server.shutdown()
        self.server.server_close()


class AzureTest(ClusterTest):
    def setUp(self):
        self.emulator = Emulator()
        self.addCleanup(self.emulator.stop)
        self.cluster = Cluster()
        c = self.cluster
        (c.state / "given-fleet.yaml").write_text(FLEET)
        (c.state / "secret").write_text(SECRET + "\n")
        self.cloud = c.state / "given-cloud.yaml"
        self.cloud.write_text(self.emulator.section + f"""  client_secret_file: {c.state}/secret
  subnet: /subscriptions/sub-1/resourceGroups/rg-1/providers/Microsoft.Network/virtualNetworks/v/subnets/s
  image: canonical:ubuntu-hpc:2204:latest
  ssh_public_key: ssh-ed25519 AAAA
  controller_url: https://controller.invalid
""")
        c.fleet = c.state / "given-fleet.yaml"
        spawn = c.spawn
        c.spawn = lambda log, program, *args: spawn(
            log, program, *args, *(["--cloud", self.cloud] if program == "th-controld" else []))
        c.start_controld()

    def slice(self, name, gpus):
        self.cluster.api("POST", "/api/v1/slices", {"name": name, "series": "ND_H100_v5", "gpus": gpus, "duration_ns": 3600 * 10**9})
        self.cluster.api("POST", f"/api/v1/slices/{name}/commit", {})

    def test_an_offer_has_what_the_cloud_says(self):
        ask = {"name": "big", "series": "ND_H100_v5", "gpus": 16, "duration_ns": 3600 * 10**9}
        said = self.cluster.api("POST", "/api/v1/offers", {**ask, "zones": ["1"]})["cloud"]
        self.assertEqual(said["microusd_per_vm_hour"], 98_320_000)
        self.assertIn("zone 1", said["where"])
        refused = self.cluster.api("POST", "/api/v1/offers", {**ask, "zones": ["9"]})["cloud"]
        self.assertEqual(refused["code"], "unsatisfiable")

    def test_a_slice_becomes_a_scale_set_that_a_restart_finds_and_a_release_deletes(self):
        c, emulator = self.cluster, self.emulator
        self.slice("big", 16)
        made = wait_for("a scale set of two VMs", emulator.sets, 30)
        self.assertEqual([s["sku"]["capacity"] for s in made], [2])
        self.assertEqual(made[0]["sku"]["name"], "Standard_ND96isr_H100_v5")
        c.kill_controld()
        c.start_controld()
        # Made once, whoever asks; the book is written once all its VMs are there.
        wait_for("its VMs are written down", lambda: "th-ids-00" in emulator.sets()[0]["tags"], 60)
        self.assertEqual(len(emulator.sets()), 1)
        c.api("DELETE", "/api/v1/slices/big")
        wait_for("nothing is left in the cloud", lambda: not emulator.sets(), 120, every=0.5)
        logs = (c.state / "controld.log").read_text() + json.dumps(c.api("GET", "/api/v1/slices"))
        self.assertNotIn(SECRET, logs)
        self.assertNotIn("emulated-token", logs)

    def test_a_node_finds_out_who_it_is_and_dials_in(self):
        """This machine stands in for the VM: the file is what cloud-init would write, but for what is expected of the machine."""
        c = self.cluster
        self.slice("one", 8)
        made = wait_for("a scale set", self.emulator.sets, 30)[0]["name"]
        metadata = Metadata(f"{made}_0", made)
        self.addCleanup(metadata.stop)

        def sha256(text):
            return hashlib.sha256(text.encode()).hexdigest()
        secret = (c.state / "azure-nodes.key").read_text().strip()
        boot = c.state / "azure.json"
        boot.touch(0o600)
        boot.write_text(json.dumps({"controller": c.url, "set_secret": sha256(secret + sha256(secret + made)), "gpus": 8}))
        node = c.spawn("node.log", "th-node", "--azure", boot, "--metadata", metadata.url, "--dir", c.state / "node", "--jobs",
                       c.state / "jobs")
        self.addCleanup(node.kill)
        wait_for("the slice to be ready", lambda: c.api("GET", "/api/v1/slices/one")["state"] == "ready", 60)
        c.api("DELETE", "/api/v1/slices/one")
        self.assertEqual(node.wait(60), 0, "it ends when it is no longer wanted")
        self.assertNotIn(sha256(secret + sha256(secret + made)), (c.state / "node.log").read_text())


if __name__ == "__main__":
    unittest.main()
