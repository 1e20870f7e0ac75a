"""A desk that speaks TLS by its own authority: every program of it, and who is refused."""

import json
import os
import re
import shutil
import socket
import ssl
import subprocess
import unittest
import urllib.error
import urllib.request
from pathlib import Path

from cluster import BIN, DESK, Cluster, alive, wait_for


class Desk(Cluster):
    """Brought up and taken down by th itself."""

    def up(self, *options):
        up = self.th_json("up", "--fleet", DESK, "--port", self.port, "--gateway-port", self.gateway_port, *options)
        self.url, self.gateway_url = up["url"], up["gateway_url"]
        return up

    def pid(self, program):
        return json.loads((self.state / f"{program}.json").read_text())["pid"]


def get(url, authority=None, headers=None):
    context = ssl.create_default_context(cafile=authority)
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers or {}), timeout=10, context=context) as answer:
        return answer.status, answer.read().decode()


class Tls(unittest.TestCase):
    def setUp(self):
        self.desk = Desk()

    def tearDown(self):
        self.desk.th("down", check=False)
        self.assertEqual(self.desk.stop(), [], "processes left behind")
        shutil.rmtree(self.desk.state, ignore_errors=True)

    def test_an_address_that_others_reach_is_refused_without_tls(self):
        done = self.desk.th("up", "--fleet", DESK, "--address", "0.0.0.0", "--port", 0, "--gateway-port", 0, check=False)
        self.assertEqual(done.returncode, 1)
        self.assertIn("address 0.0.0.0 without TLS", done.stderr)
        self.assertIn("--tls auto", done.stderr)
        token = self.desk.state / "gateway.token"
        token.write_text("0" * 64)
        gateway = subprocess.run([BIN / "th-gateway", "--controller", "http://127.0.0.1:1", "--token-file", token, "--state",
                                  self.desk.state, "--address", "0.0.0.0", "--port", "0"], capture_output=True, text=True, timeout=30)
        self.assertEqual(gateway.returncode, 1)
        self.assertIn("address 0.0.0.0 without TLS", gateway.stdout + gateway.stderr)

    def test_a_slice_and_a_job_by_tls(self):
        desk = self.desk
        up = desk.up("--tls", "auto")
        self.assertTrue(up["url"].startswith("https://127.0.0.1:"), up)
        self.assertTrue(up["gateway_url"].startswith("https://127.0.0.1:"), up)
        authority = desk.state / "authority.pem"
        for url in (up["url"], up["gateway_url"]):
            self.assertEqual(get(url + "/health", authority)[0], 200)
            with self.assertRaises(urllib.error.URLError) as refused:
                get(url + "/health")
            self.assertIsInstance(refused.exception.reason, ssl.SSLCertVerificationError)
            self.assertEqual(get(url.replace("127.0.0.1", "localhost") + "/health", authority)[0], 200)
        key = {"Authorization": f"Bearer {desk.key()}"}
        self.assertIn("thunderhead_", get(up["url"] + "/metrics", authority, key)[1])
        self.says_so_to_who_speaks_plain_http()
        self.keeps_its_keys_to_itself()
        self.cookies_are_for_tls_alone(authority)

        desk.slice()
        node = json.loads(next(desk.state.glob("vms/*/node.json")).read_text())
        self.assertTrue(node["controller"].startswith("https://"))
        self.assertEqual(node["authority"], authority.read_text())
        told = desk.th("submit", desk.recipe("by-tls", steps=20), "--slice", "demo")
        self.assertIn("loss", told.stdout + told.stderr, "the log comes by TLS")

        other = desk.state / "other.pem"
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout",
                        desk.state / "other.key", "-out", other, "-subj", "/CN=other", "-days", "2"], check=True, capture_output=True)
        refused = desk.th("--ca", other, "fleet", check=False)
        self.assertEqual(refused.returncode, 3)
        self.assertIn("the certificate of 127.0.0.1 is refused", refused.stderr)

        self.goes_on_by_tls_after_a_restart()

    def says_so_to_who_speaks_plain_http(self):
        for port in (self.desk.port, self.desk.gateway_port):
            with socket.create_connection(("127.0.0.1", port), timeout=5) as plain:
                plain.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
                answer = plain.recv(4096).decode()
            self.assertTrue(answer.startswith("HTTP/1.1 400 "), answer)
            self.assertIn("https://", answer)

    def cookies_are_for_tls_alone(self, authority):
        """Also when it is taken back: a browser keeps one that is not the same."""
        def cookie(method, body, headers):
            request = urllib.request.Request(self.desk.url + "/api/v1/session", json.dumps(body).encode(), headers, method=method)
            with urllib.request.urlopen(request, timeout=10, context=ssl.create_default_context(cafile=authority)) as answer:
                return answer.headers["Set-Cookie"]
        given = cookie("POST", {"key": self.desk.key()}, {})
        taken = cookie("DELETE", {}, {"Cookie": given.split(";")[0], "X-Th-Csrf": "1"})
        for text in (given, taken):
            self.assertIn("; Path=/; HttpOnly; SameSite=Strict; Max-Age=", text)
            self.assertTrue(text.endswith("; Secure"), text)
        self.assertIn("Max-Age=0;", taken)

    def keeps_its_keys_to_itself(self):
        modes = {f.name: oct(f.stat().st_mode & 0o777) for f in (self.desk.state / "tls").iterdir()}
        for name in ("ca.key", "controld.key", "gateway.key"):
            self.assertEqual(modes[name], "0o600", name)
        for name in ("ca.crt", "controld.crt", "gateway.crt"):
            shown = subprocess.run(["openssl", "x509", "-in", self.desk.state / "tls" / name, "-noout", "-text"], check=True,
                                   capture_output=True, text=True).stdout
            self.assertIn("prime256v1", shown)
            self.assertIn("CA:TRUE, pathlen:0" if name == "ca.crt" else "IP Address:127.0.0.1", shown)
        subprocess.run(["openssl", "verify", "-CAfile", self.desk.state / "authority.pem", self.desk.state / "tls/controld.crt",
                        self.desk.state / "tls/gateway.crt"], check=True, capture_output=True)

    def goes_on_by_tls_after_a_restart(self):
        """Without --tls: the state folder has an authority. Nodes that live go on with the controller that comes back."""
        desk = self.desk
        nodes, old = desk.node_pids(), desk.pid("controld")
        self.assertTrue(nodes)
        os.kill(old, 9)
        wait_for("the controller to end", lambda: not alive(old))
        refused = desk.th("up", "--tls", "off", "--port", desk.port, check=False)
        self.assertEqual(refused.returncode, 1)
        self.assertTrue(re.search("nodes of this state dial https://.*; start with TLS as before", refused.stderr), refused.stderr)
        self.assertTrue(desk.up()["url"].startswith("https://"))
        desk.th("submit", desk.recipe("again", steps=5), "--slice", "demo")
        self.assertEqual(desk.node_pids(), nodes)


if __name__ == "__main__":
    unittest.main()
