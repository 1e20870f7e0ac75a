"""People who come in: by password, by a passkey that OpenSSL makes, and by a real provider of OpenID Connect (tests/oidc)."""

import base64
import copy
import hashlib
import http.cookiejar
import json
import os
import re
import select
import shutil
import subprocess
import unittest
import urllib.error
import urllib.parse
import urllib.request

from cluster import SOURCE, Cluster, ClusterTest, http as call

OIDC = SOURCE / "tests/oidc"
PASSWORD, OTHER = "correct horse battery", "a better staple than before"


def b64(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class Browser:
    """Keeps cookies and goes where it is sent, unless that is told."""

    def __init__(self, url):
        self.url, self.cookies = url, http.cookiejar.CookieJar()
        self.follow = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(self.cookies))

        class Stay(urllib.request.HTTPRedirectHandler):
            def redirect_request(self, *_):
                return None
        self.stay = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(self.cookies), Stay)

    def open(self, url, data=None, method=None, headers=None, follow=True):
        """Returns status, text, headers, and the address where it ended."""
        request = urllib.request.Request(url, data, headers or {}, method=method)
        try:
            with (self.follow if follow else self.stay).open(request, timeout=20) as answer:
                return answer.status, answer.read().decode(), answer.headers, answer.url
        except urllib.error.HTTPError as refusal:
            return refusal.code, refusal.read().decode(), refusal.headers, refusal.url

    def api(self, method, path, body=None, want=200, csrf=True):
        headers = {"Content-Type": "application/json", **({"X-Th-Csrf": "1"} if csrf else {})}
        data = None if body is None else json.dumps(body).encode()
        status, text, _, _ = self.open(self.url + "/api/v1" + path, data, method, headers)
        if status != want:
            raise AssertionError(f"{method} {path}: {status}, wanted {want}: {text}")
        return json.loads(text)

    def cookie(self, name):
        return next((c for c in self.cookies if c.name == name), None)

    def session(self):
        return self.api("GET", "/session")


class Authenticator:
    """Holds one passkey on P-256, and does what a browser does with it."""

    def __init__(self, folder, host, origin):
        self.id, self.host, self.origin, self.count = os.urandom(20), host, origin, 0
        self.key = folder / f"{self.id.hex()}.pem"
        subprocess.run(["openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", self.key], check=True)

    def data(self, flags):
        return hashlib.sha256(self.host.encode()).digest() + bytes([flags]) + self.count.to_bytes(4, "big")

    def client(self, kind, challenge):
        return json.dumps({"type": kind, "challenge": challenge, "origin": self.origin, "crossOrigin": False}).encode()

    def create(self, options):
        point = subprocess.run(["openssl", "ec", "-in", self.key, "-pubout", "-outform", "DER"], check=True,
                               capture_output=True).stdout[-64:]
        cose = b"\xa5\x01\x02\x03\x26\x20\x01\x21\x58\x20" + point[:32] + b"\x22\x58\x20" + point[32:]
        auth = self.data(0x45) + bytes(16) + len(self.id).to_bytes(2, "big") + self.id + cose
        attestation = b"\xa3\x63fmt\x64none\x67attStmt\xa0\x68authData\x58" + bytes([len(auth)]) + auth
        return {"id": b64(self.id), "type": "public-key", "response": {
            "clientDataJSON": b64(self.client("webauthn.create", options["challenge"])), "attestationObject": b64(attestation)}}

    def get(self, options):
        self.count += 1
        client, auth = self.client("webauthn.get", options["challenge"]), self.data(0x05)
        signature = subprocess.run(["openssl", "dgst", "-sha256", "-sign", self.key], check=True, capture_output=True,
                                   input=auth + hashlib.sha256(client).digest()).stdout
        return {"id": b64(self.id), "type": "public-key", "response": {
            "clientDataJSON": b64(client), "authenticatorData": b64(auth), "signature": b64(signature)}}


class Desk(Cluster):
    options = ()

    def start_controld(self):
        self.controld = self.spawn("controld.log", "th-controld", "--state", self.state, "--fleet", self.fleet, "--port", self.port,
                                   *self.options)
        self.wait_healthy(self.url + "/health", self.controld)

    def invite(self, **more):
        return self.api("POST", "/api/v1/invitations", {"tenant": "default", "role": "member", **more})["code"]

    def browser(self):
        return Browser(f"http://localhost:{self.port}")

    def come_in(self, name, password=None):
        browser = self.browser()
        taken = browser.api("POST", "/invitations/take",
                            {"code": self.invite(), "name": name, **({"password": password} if password else {})})
        return browser, taken


class SignIn(ClusterTest):
    def setUp(self):
        self.cluster = Desk()
        self.cluster.start_controld()

    def test_by_password(self):
        desk = self.cluster
        weak = desk.browser()
        code = desk.invite()
        for password in ("short", "ada-ada-ada-ada", 7):
            refused = weak.api("POST", "/invitations/take", {"code": code, "name": "ada", "password": password}, want=400)
            self.assertEqual(refused["field"], "password", refused)
        taken = weak.api("POST", "/invitations/take", {"code": code, "name": "ada", "password": PASSWORD})
        self.assertEqual(call("GET", desk.url + "/api/v1/session", headers={"Authorization": f"Bearer {taken['key']}"})[0], 200)
        weak.api("POST", "/invitations/take", {"code": code, "name": "eve", "password": PASSWORD}, want=403)

        desk.kill_controld()
        desk.start_controld()
        first, second = desk.browser(), desk.browser()
        for browser in (first, second):
            shown = browser.api("POST", "/session", {"name": "ada", "password": PASSWORD})
            self.assertEqual((shown["name"], shown["tenant"], shown["role"]), ("ada", "default", "member"))
            self.assertEqual(shown, browser.session())
        cookie = first.cookie("th_session")
        self.assertTrue(cookie.has_nonstandard_attr("HttpOnly"))
        self.assertEqual(cookie.get_nonstandard_attr("SameSite"), "Strict")

        stranger = desk.browser()
        wrong = stranger.api("POST", "/session", {"name": "ada", "password": OTHER}, want=401)
        nobody = stranger.api("POST", "/session", {"name": "bob", "password": OTHER}, want=401)
        self.assertEqual(wrong["detail"], nobody["detail"])
        self.assertIsNone(stranger.cookie("th_session"))

        for path, body in (("/session", {"name": "ada", "password": PASSWORD}), ("/invitations/take", {"code": "x", "name": "y"}),
                           ("/session/reset", {"code": "x", "password": OTHER})):
            answer = stranger.open(stranger.url + "/api/v1" + path, json.dumps(body).encode(), "POST", {"Origin": "http://evil.example"})
            self.assertEqual((answer[0], "another site" in answer[1]), (403, True), "signing in by another site's page")
        first.api("PUT", "/session/password", {"old": PASSWORD, "password": OTHER}, want=403, csrf=False)
        first.api("PUT", "/session/password", {"old": "not the old one", "password": OTHER}, want=401)
        first.api("PUT", "/session/password", {"old": PASSWORD, "password": OTHER})
        self.assertEqual(first.session()["name"], "ada")
        second.api("GET", "/session", want=401)
        second.api("POST", "/session", {"name": "ada", "password": PASSWORD}, want=401)
        second.api("POST", "/session", {"name": "ada", "password": OTHER})
        status, _, headers, _ = first.open(first.url + "/api/v1/session", b"{}", "DELETE", {"X-Th-Csrf": "1"})
        self.assertEqual((status, first.cookie("th_session")), (200, None), "the cookie is taken back")
        self.assertIn("HttpOnly; SameSite=Strict; Max-Age=0", headers["Set-Cookie"])
        first.api("GET", "/session", want=401)
        self.nothing_secret_is_kept_or_told(OTHER, PASSWORD)

    def nothing_secret_is_kept_or_told(self, *passwords):
        desk = self.cluster
        events = subprocess.run(["curl", "-sN", "--max-time", "2", "-H", f"Authorization: Bearer {desk.key()}", "-H", "Last-Event-ID: 0",
                                 desk.url + "/api/v1/events"], capture_output=True, text=True).stdout
        self.assertIn("password_set", events)
        self.assertNotIn("argon2", events)
        for file in desk.state.rglob("*"):
            if file.is_file() and file.stat().st_size < 1 << 26:
                for password in passwords:
                    self.assertNotIn(password.encode(), file.read_bytes(), file)

    def test_whoever_guesses_has_to_wait(self):
        desk = self.cluster
        desk.come_in("ada", PASSWORD)
        browser = desk.browser()
        answers = [browser.open(browser.url + "/api/v1/session", json.dumps({"name": "ada", "password": f"guess {i} of many"}).encode(),
                                "POST") for i in range(12)]
        self.assertEqual([a[0] for a in answers], [401] * 10 + [429] * 2)
        self.assertGreater(int(answers[-1][2]["Retry-After"]), 0)
        self.assertEqual(json.loads(answers[-1][1])["code"], "resource_exhausted")
        browser.api("POST", "/session", {"name": "ada", "password": PASSWORD}, want=429)
        wrong = [call("GET", desk.url + "/api/v1/fleet", headers={"Authorization": "Bearer " + "0" * 64})[0] for _ in range(700)]
        self.assertEqual(set(wrong), {401, 429})
        self.assertEqual(wrong[:400], [401] * 400)
        self.assertTrue(desk.api("GET", "/api/v1/fleet"), "a right key is taken from the same address")

    def test_by_passkey(self):
        desk = self.cluster
        browser, _ = desk.come_in("ada")
        self.assertEqual(browser.api("GET", "/session/methods")["passkey"], True)
        mine = Authenticator(desk.state, "localhost", browser.url)
        begun = browser.api("POST", "/passkeys/begin", {})
        self.assertEqual(begun["publicKey"]["rp"]["id"], "localhost")
        browser.api("POST", "/passkeys", {"challenge": begun["challenge"], "name": "laptop", "credential": mine.create(begun["publicKey"])})
        self.assertEqual([p["name"] for p in browser.api("GET", "/passkeys")["items"]], ["laptop"])
        desk.kill_controld()
        desk.start_controld()

        fresh = desk.browser()
        begun = fresh.api("POST", "/session/passkey/begin", {})
        shown = {"challenge": begun["challenge"], "credential": mine.get(begun["publicKey"])}
        self.assertEqual(fresh.api("POST", "/session/passkey", shown)["name"], "ada")
        self.assertEqual(fresh.session()["name"], "ada")
        desk.browser().api("POST", "/session/passkey", shown, want=401)  # a second time

        def refused(told, **change):
            stranger, wrong = desk.browser(), copy.copy(mine)
            vars(wrong).update(change)
            again = stranger.api("POST", "/session/passkey/begin", {})
            answer = stranger.api("POST", "/session/passkey", {"challenge": again["challenge"], "credential": wrong.get(again["publicKey"])},
                                  want=401)
            self.assertIn(told, answer["detail"])
            self.assertIsNone(stranger.cookie("th_session"))
        refused("for https://evil.example", origin="https://evil.example")
        refused("another host", host="evil.example")
        refused("counter went back", count=0)
        refused("not known here", id=b"unknown")
        refused("signature is wrong", key=Authenticator(desk.state, "localhost", browser.url).key)
        elsewhere = Browser(desk.url)  # by an address
        elsewhere.api("POST", "/session/passkey/begin", {}, want=409)

        fresh.api("DELETE", "/passkeys/" + b64(mine.id))
        refused("not known here")

    def test_answers_carry_the_headers_of_a_careful_server(self):
        for path, want in (("/health", 200), ("/api/v1/fleet", 401), ("/api/v1/nowhere", 404)):
            status, _, headers, _ = self.cluster.browser().open(self.cluster.url + path)
            self.assertEqual(status, want)
            self.assertEqual(headers["X-Content-Type-Options"], "nosniff", path)
            self.assertEqual(headers["X-Frame-Options"], "DENY", path)
            self.assertEqual(headers["Referrer-Policy"], "no-referrer", path)
            self.assertIn("frame-ancestors 'none'", headers["Content-Security-Policy"], path)
            self.assertIsNone(headers["Strict-Transport-Security"], "not without a certificate that was brought")


class ByProvider(ClusterTest):
    def setUp(self):
        if not shutil.which("node") or not (OIDC / "node_modules/oidc-provider").is_dir():
            self.skipTest("no Node.js, or `npm ci` was not run in tests/oidc; make test does both")
        self.cluster = desk = Desk()
        redirect = f"http://localhost:{desk.port}/api/v1/session/oidc/callback"
        self.provider = subprocess.Popen(["node", "provider.mjs"], cwd=OIDC, env={**os.environ, "REDIRECT": redirect},
                                         stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        self.addCleanup(self.end_provider)
        self.assertTrue(select.select([self.provider.stdout], [], [], 30)[0], "the provider did not start")
        self.issuer = self.provider.stdout.readline().strip()
        for algorithm in ("rs256", "es256"):
            (desk.state / f"{algorithm}.secret").write_text(f"desk-{algorithm}-secret\n")
            (desk.state / f"{algorithm}.yaml").write_text(
                f"name: Lab\nissuer: {self.issuer}\nclient_id: desk-{algorithm}\nclient_secret_file: {desk.state}/{algorithm}.secret\n"
                f"redirect_url: {redirect}\n")
        desk.options = ("--oidc", desk.state / "rs256.yaml")
        desk.start_controld()

    def end_provider(self):
        self.provider.kill()
        self.provider.wait()
        self.provider.stdout.close()

    def at_the_provider(self, browser, login, **query):
        """Signs in there. Returns the address that it sends the browser to."""
        status, page, headers, _ = browser.open(f"{browser.url}/api/v1/session/oidc/start?{urllib.parse.urlencode(query)}", follow=False)
        self.assertEqual(status, 302, page)
        where = headers["Location"]
        self.assertTrue(where.startswith(self.issuer + "/auth?"), where)
        self.assertIn("code_challenge_method=S256", where)
        for _ in range(12):
            status, page, headers, _ = browser.open(where, follow=False)
            if status in (302, 303):
                where = urllib.parse.urljoin(where, headers["Location"])
                if where.startswith(browser.url):
                    return where
                continue
            self.assertEqual(status, 200, page)
            action, prompt = re.search(r'action="([^"]+)"', page)[1], re.search(r'name="prompt" value="([^"]+)"', page)[1]
            form = {"prompt": prompt, **({"login": login, "password": "any"} if prompt == "login" else {})}
            status, page, headers, _ = browser.open(urllib.parse.urljoin(where, action), urllib.parse.urlencode(form).encode(), follow=False)
            self.assertIn(status, (302, 303), page)
            where = urllib.parse.urljoin(where, headers["Location"])
        self.fail("the provider goes round in circles")

    def test_by_a_provider(self):
        desk = self.cluster
        self.assertEqual(desk.browser().api("GET", "/session/methods")["oidc"], {"name": "Lab"})
        uninvited = desk.browser()
        status, page, _, _ = uninvited.open(self.at_the_provider(uninvited, "ada"))
        self.assertEqual(status, 403)
        self.assertIn("you were not invited", page)
        uninvited.api("GET", "/session", want=401)

        code, browser = desk.invite(), desk.browser()
        back = self.at_the_provider(browser, "ada", invitation=code)
        status, page, _, _ = browser.open(back)
        self.assertEqual(status, 200, page)
        key = re.search(r"shown this once: ([0-9a-f]{64})", page)[1]
        self.assertEqual(call("GET", desk.url + "/api/v1/session", headers={"Authorization": f"Bearer {key}"})[0], 200)
        self.assertEqual((browser.session()["name"], browser.session()["role"]), ("ada", "member"))
        self.assertEqual(browser.open(back)[0], 401, "the same answer a second time")

        # Known by now, also after the controller was killed and by tokens that are signed otherwise.
        desk.kill_controld()
        desk.options = ("--oidc", desk.state / "es256.yaml")
        desk.start_controld()
        again = desk.browser()
        status, page, _, _ = again.open(self.at_the_provider(again, "ada"))
        self.assertEqual(status, 200, page)
        self.assertIn('http-equiv="refresh" content="0; url=/"', page)
        self.assertEqual(again.session()["user"], browser.session()["user"])

        # The same invitation is used up; another person under the name of the first is refused.
        other = desk.browser()
        self.assertEqual(other.open(self.at_the_provider(other, "eve", invitation=code))[0], 403)
        self.assertEqual(other.open(self.at_the_provider(other, "eve", invitation=desk.invite(), name="ada"))[0], 409)
        other.api("GET", "/session", want=401)

        # An answer that was begun in another browser signs nobody in.
        thief, victim = desk.browser(), desk.browser()
        sent = self.at_the_provider(thief, "mallory", invitation=desk.invite())
        self.assertEqual(victim.open(sent)[0], 401)
        victim.api("GET", "/session", want=401)
        self.assertEqual(victim.open(f"{victim.url}/api/v1/session/oidc/callback?state=x&code=y")[0], 401)

    def test_a_provider_that_is_away_is_told(self):
        self.end_provider()
        browser = self.cluster.browser()
        status, page, _, _ = browser.open(browser.url + "/api/v1/session/oidc/start")
        self.assertEqual(status, 503)
        self.assertIn("the identity provider", page)


if __name__ == "__main__":
    unittest.main()
