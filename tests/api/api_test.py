"""docs/api/openapi.yaml against a real desk: every operation is tried, its answer and its refusals are validated against the
document (valijson, by schema-check), writes are repeated under an idempotency key, and nothing that is described is left out."""

import base64
import json
import os
import re
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "integration"))
import sign_in_test  # noqa: E402
from cluster import BIN, SOURCE, ClusterTest, wait_for  # noqa: E402

SECOND = 10**9
HOUR = 3600 * SECOND
PASSWORD, OTHER = sign_in_test.PASSWORD, sign_in_test.OTHER
# What reads though it is a POST, and what the programs repeat by other means (docs/protocols.md).
NO_IDEMPOTENCY = {"/api/v1/offers", "/api/v1/jobs/estimate", "/api/v1/recipes/check", "/api/v1/node/{vm}/sync", "/api/v1/node/{vm}/log"}


def strict(schema):
    """The same schema; objects may have what is described and nothing else."""
    if isinstance(schema, list):
        return [strict(s) for s in schema]
    if not isinstance(schema, dict):
        return schema
    out = {k: strict(v) for k, v in schema.items()}
    if isinstance(out.get("properties"), dict) and "object" in out.get("type", ""):
        out.setdefault("additionalProperties", False)
    return out


class Api(ClusterTest):
    def setUp(self):
        super().setUp()
        status, _, text = self.send("GET", "/api/v1/openapi.json", key=None)
        self.assertEqual(status, 200)
        self.document = json.loads(text)
        self.assertEqual(self.document["openapi"], "3.1.0")
        components = self.cluster.state / "components.json"
        components.write_text(json.dumps(strict(self.document["components"])))
        self.checker = subprocess.Popen([BIN / "schema-check", "--components", components], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, text=True)
        self.answered, self.refused = set(), set()

    def tearDown(self):
        self.checker.stdin.close()
        self.checker.wait(10)
        self.checker.stdout.close()
        super().tearDown()

    def send(self, method, path, body=None, key="admin", headers=None, read=None):
        """read: bytes to read of an answer that does not end."""
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        request = urllib.request.Request(self.cluster.url + path, data, {"Content-Type": "application/json"}, method=method)
        if key:
            request.add_header("Authorization", f"Bearer {self.cluster.key() if key == 'admin' else key}")
        for name, value in (headers or {}).items():
            request.add_header(name, value)
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.status, answer.headers, (answer.read() if read is None else answer.read1(read)).decode()
        except urllib.error.HTTPError as refusal:
            return refusal.code, refusal.headers, refusal.read().decode()

    def validate(self, schema, value, what):
        self.checker.stdin.write(json.dumps({"schema": strict(schema), "value": value}) + "\n")
        self.checker.stdin.flush()
        self.assertEqual(self.checker.stdout.readline().rstrip("\n"), "", f"{what}: {json.dumps(value)[:2000]}")

    def call(self, method, route, status=200, body=None, query="", key="admin", headers=None, read=None, code=None, field=None, **params):
        """One request of the operation, and its answer held against the document. Returns what was answered."""
        operation = self.document["paths"][route][method.lower()]
        what = f"{method} {route}"
        path = route
        for name, value in params.items():
            path = path.replace("{" + name + "}", value)
        self.assertNotIn("{", path)
        got, head, text = self.send(method, path + query, body, key, headers, read)
        self.assertEqual(got, status, f"{what}: {text}")
        content_type = head["Content-Type"].split(";")[0]
        if status >= 300:
            self.assertEqual(content_type, "application/problem+json", what)
            problem = json.loads(text)
            self.validate({"$ref": "#/components/schemas/Problem"}, problem, what)
            self.assertIn("default", operation["responses"], what)
            self.assertEqual((problem["status"], problem["type"]), (status, "/api/v1/problems/" + problem["code"]))
            if code:
                self.assertEqual(problem["code"], code, text)
            if field:
                self.assertEqual(problem.get("field"), field, text)
            self.refused.add((method, route))
            return problem
        described = operation["responses"]["200"]["content"]
        self.assertIn(content_type, described, what)
        self.answered.add((method, route))
        if content_type != "application/json":
            return text
        value = json.loads(text)
        self.validate(described["application/json"]["schema"], value, what)
        if body is not None and not isinstance(body, bytes):
            self.validate(operation["requestBody"]["content"]["application/json"]["schema"], body, what + " (request)")
        return value

    def write(self, method, route, body=None, secrets=(), key="admin", headers=None, **params):
        """A command; its repeat under the same key changes nothing, and another one under it is refused."""
        idempotency = {"Idempotency-Key": base64.b64encode(os.urandom(9)).decode(), **(headers or {})}
        parameters = self.document["paths"][route][method.lower()].get("parameters", [])
        self.assertIn({"$ref": "#/components/parameters/idempotencyKey"}, parameters, f"{method} {route}")
        first = self.call(method, route, body=body, headers=idempotency, key=key, **params)
        again = self.call(method, route, body=body, headers=idempotency, key=key, **params)
        self.assertEqual(again, {**first, **dict.fromkeys(secrets)}, f"{method} {route}: a repeat answers the same")
        self.call(method, route, 400, body=b"{\"another\": 1}", headers=idempotency, key=key, code="invalid_argument", **params)
        return first

    def refuse_strangers(self):
        """Every operation that needs a key says so, to no key and to a wrong one."""
        for route, item in self.document["paths"].items():
            names = re.findall(r"{(\w+)}", route)
            for method in (m.upper() for m in item if m != "parameters"):
                security = item[method.lower()].get("security", self.document["security"])
                if not security:
                    continue
                for key in (None, "wrong"):
                    # A node that is not known must not end itself: it is told to try again.
                    status = 503 if "nodeToken" in security[0] else 401
                    body = b"{}" if method in ("POST", "PUT", "PATCH") else None
                    self.call(method, route, status, body=body, key=key, **{n: "none" for n in names})

    def pages(self, route, least, **params):
        """A list by pages of one is the list."""
        whole = self.call("GET", route, **params)["items"]
        self.assertGreaterEqual(len(whole), least, route)
        after, items = "", []
        while after is not None:
            page = self.call("GET", route, query="?limit=1" + (f"&after={after}" if after else ""), **params)
            items += page["items"]
            self.assertLessEqual(len(page["items"]), 1)
            after = page["next"]
        self.assertEqual(len(items), len(whole), route)
        backwards = self.call("GET", route, query=f"?limit={least}&order=desc", **params)["items"]
        name = lambda item: [item.get(key) for key in ("id", "name", "version", "step", "start_ns")]
        self.assertEqual([name(i) for i in backwards], [name(i) for i in whole[::-1][:least]], route)
        self.call("GET", route, 400, query="?order=up", field="order", **params)
        self.call("GET", route, 400, query="?limit=0", field="limit", **params)

    def parts_of(self, route):
        """What has ended, and what has not, are the list."""
        ids = lambda query: {item["id"]: item["state"] for item in self.call("GET", route, query=query)["items"]}
        over = {"succeeded", "failed", "cancelled", "released", "expired"}
        whole = ids("")
        self.assertEqual(ids("?state=ended"), {i: state for i, state in whole.items() if state in over}, route)
        self.assertEqual(ids("?state=active"), {i: state for i, state in whole.items() if state not in over}, route)
        self.assertTrue(set(whole.values()) & over, route)
        self.call("GET", route, 400, query="?state=over", field="state")

    def test_every_operation_answers_and_refuses_as_described(self):
        self.refuse_strangers()
        self.platform()
        self.slices()
        self.jobs()
        self.programs()
        self.call("POST", "/api/v1/shutdown", 400, body={"node": True}, code="invalid_argument", field="node")
        self.write_shutdown()
        everything = {(m.upper(), route) for route, item in self.document["paths"].items() for m in item if m != "parameters"}
        self.answered |= {("GET", route) for route, item in self.document["paths"].items()
                          if "101" in item.get("get", {}).get("responses", {})}  # tests/integration/exec_test.py upgrades
        self.answered |= {(m, route) for m, route in everything if "/oidc/" in route}  # AtAProvider
        self.assertEqual(everything - self.answered, set(), "described and never answered")
        without = {("GET", "/api/v1/session/oidc/callback"), ("GET", "/api/v1/session/methods"), ("GET", "/health"), ("GET", "/metrics"), ("GET", "/api/v1/openapi.json")}
        self.assertEqual(everything - self.refused - without, set(), "described and never refused")
        for method, route in everything:
            if method == "GET" or route in NO_IDEMPOTENCY:
                continue
            self.assertIn({"$ref": "#/components/parameters/idempotencyKey"},
                          self.document["paths"][route][method.lower()].get("parameters", []), f"{method} {route}")

    def platform(self):
        self.call("GET", "/health", key=None)
        self.assertIn("thunderhead", self.call("GET", "/metrics", key=None))
        self.call("GET", "/api/v1/openapi.json", key=None)
        for code in self.document["components"]["schemas"]["Code"]["enum"]:
            told = self.problem_type(code)
            self.assertEqual(told["code"], code)
        self.problem_type("none", 404)
        self.call("GET", "/api/v1/fleet")
        self.call("GET", "/api/v1/fleet/map")
        self.call("GET", "/api/v1/fleet/use")
        self.call("GET", "/api/v1/hosts/{host}", host="r2h2")
        self.call("GET", "/api/v1/hosts/{host}", 404, host="none", code="not_found")
        self.write("POST", "/api/v1/hosts/{host}/drain", {"reason": "a fan"}, host="r2h2")
        self.call("POST", "/api/v1/hosts/{host}/drain", 404, body={}, host="none", code="not_found")
        self.write("POST", "/api/v1/hosts/{host}/resume", host="r2h2")
        self.call("POST", "/api/v1/hosts/{host}/resume", 404, host="none", code="not_found")
        self.pages("/api/v1/accounts", 1)
        reservation = {"name": "patches", "hosts": ["r2h2"], "duration_ns": HOUR, "start_ns": 4 * 10**18, "maintenance": True}
        self.write("POST", "/api/v1/reservations", reservation)
        self.call("POST", "/api/v1/reservations", 409, body=reservation, code="already_exists")
        self.pages("/api/v1/reservations", 1)
        self.write("DELETE", "/api/v1/reservations/{name}", name="patches")
        self.call("DELETE", "/api/v1/reservations/{name}", 404, name="patches")
        cap = {"name": "heat", "watts": 100, "duration_ns": HOUR, "start_ns": 4 * 10**18}
        self.write("POST", "/api/v1/power-caps", cap)
        self.call("POST", "/api/v1/power-caps", 400, body={**cap, "name": "cold", "watts": -1}, field="watts")
        self.pages("/api/v1/power-caps", 1)
        self.write("DELETE", "/api/v1/power-caps/{name}", name="heat")
        self.call("DELETE", "/api/v1/power-caps/{name}", 404, name="heat")
        self.pages("/api/v1/stacks", 1)
        self.call("GET", "/api/v1/stacks/{name}", name=self.call("GET", "/api/v1/stacks")["items"][0]["name"])
        self.call("GET", "/api/v1/stacks/{name}", 404, name="none")
        self.call("POST", "/api/v1/stacks", 400, body={"yaml": "{"}, code="invalid_argument")
        self.write("POST", "/api/v1/stacks", {"yaml": "name: mine\nversion: \"1\"\nabout: a test\n"})
        key = self.write("POST", "/api/v1/keys", {"name": "ann"}, secrets=["key"])
        self.call("POST", "/api/v1/keys", 400, body={"name": "no spaces"}, field="name")
        self.pages("/api/v1/keys", 2)
        self.write("DELETE", "/api/v1/keys/{id}", id=key["id"])
        self.call("GET", "/api/v1/fleet", 401, key=key["key"], code="unauthenticated")
        self.session()
        self.access()
        self.call("DELETE", "/api/v1/keys/{id}", 404, id="key-99")

    def session(self):
        """Signing in gives a cookie; a write with it needs the header that no other site's page can send."""
        self.assertEqual(self.call("GET", "/api/v1/session")["role"], "admin")
        self.call("POST", "/api/v1/session", 401, body={"key": "wrong"}, key=None, code="unauthenticated")
        status, head, text = self.send("POST", "/api/v1/session", {"key": self.cluster.key()}, key=None)
        self.assertEqual(status, 200, text)
        self.call("POST", "/api/v1/session", body={"key": self.cluster.key()}, key=None)
        cookie = {"Cookie": head["Set-Cookie"].split(";")[0]}
        self.call("GET", "/api/v1/session", key=None, headers=cookie)
        self.call("DELETE", "/api/v1/session", 403, key=None, headers=cookie)
        self.call("DELETE", "/api/v1/session", key=None, headers={**cookie, "X-Th-Csrf": "1"})
        self.call("GET", "/api/v1/session", 401, key=None, headers=cookie)
        self.assertFalse(self.call("GET", "/api/v1/session/methods", key=None)["passkey"], "an address is no host name")
        self.call("POST", "/api/v1/session/passkey/begin", 409, key=None, code="failed_precondition")
        self.call("POST", "/api/v1/session/passkey", 400, body={}, key=None, field="challenge")
        self.call("GET", "/api/v1/session/oidc/start", 404, key=None, code="not_found")

    def access(self):
        self.write("POST", "/api/v1/tenants", {"name": "lab", "max_gpus": 2})
        self.call("POST", "/api/v1/tenants", 409, body={"name": "lab"}, code="already_exists")
        self.pages("/api/v1/tenants", 2)
        invited = self.write("POST", "/api/v1/invitations", {"tenant": "lab", "role": "viewer"}, secrets=["code", "link"])
        self.call("POST", "/api/v1/invitations", 400, body={"role": "king"}, field="role")
        self.pages("/api/v1/invitations", 1)
        self.write("DELETE", "/api/v1/invitations/{id}", id=invited["id"])
        self.call("DELETE", "/api/v1/invitations/{id}", 404, id="invitation-99")
        code = self.call("POST", "/api/v1/invitations", body={"tenant": "lab"})["code"]
        self.call("POST", "/api/v1/invitations/take", 403, body={"code": "none", "name": "eve"}, key=None)
        eve = self.write("POST", "/api/v1/invitations/take", {"code": code, "name": "eve"}, secrets=["key"], key=None)["key"]
        self.passwords(eve)
        self.passkeys(eve)
        self.pages("/api/v1/users", 1)
        self.write("POST", "/api/v1/users/{id}/role", {"tenant": "lab", "role": "operator"}, id="eve")
        self.call("POST", "/api/v1/users/{id}/role", 404, body={"tenant": "lab", "role": "viewer"}, id="none")
        self.write("DELETE", "/api/v1/users/{id}", id="eve")
        self.call("DELETE", "/api/v1/users/{id}", 404, id="eve")
        applied = self.write("POST", "/api/v1/applications", {"name": "bob", "contact": "bob@x", "why": "work"}, key=None)
        self.call("POST", "/api/v1/applications", 400, body={"name": "bob", "contact": "", "why": "work"}, field="contact", key=None)
        self.pages("/api/v1/applications", 1)
        self.write("POST", "/api/v1/applications/{id}/review", {"accept": False, "reason": "no room"}, id=applied["id"])
        self.call("POST", "/api/v1/applications/{id}/review", 409, body={"accept": True}, id=applied["id"])
        changed = self.write("PATCH", "/api/v1/tenants/{name}", {"max_gpus": 4, "budget_microusd": None}, name="lab")
        self.assertEqual(changed["max_gpus"], 4)
        self.call("PATCH", "/api/v1/tenants/{name}", 400, body={"shares": 0}, field="shares", name="lab")
        self.write("DELETE", "/api/v1/tenants/{name}", name="lab")
        self.call("DELETE", "/api/v1/tenants/{name}", 404, name="lab")
        self.call("GET", "/api/v1/audit", query="?limit=2")
        self.assertIn("eve", self.call("GET", "/api/v1/audit", query="?format=csv"))
        self.call("GET", "/api/v1/audit", 400, query="?format=xml", field="format")

    def passwords(self, eve):
        self.call("POST", "/api/v1/users/{id}/reset", 404, body={}, id="none")
        code = self.write("POST", "/api/v1/users/{id}/reset", {}, secrets=["code", "link"], id="eve")["code"]
        self.call("POST", "/api/v1/session/reset", 403, body={"code": "none", "password": PASSWORD}, key=None)
        self.call("POST", "/api/v1/session/reset", 400, body={"code": code, "password": "short"}, key=None, field="password")
        self.assertEqual(self.write("POST", "/api/v1/session/reset", {"code": code, "password": PASSWORD}, key=None)["name"], "eve")
        self.call("PUT", "/api/v1/session/password", 400, body={"password": OTHER, "new": 1}, key=eve, field="new")
        self.write("PUT", "/api/v1/session/password", {"old": PASSWORD, "password": OTHER}, key=eve)
        self.call("POST", "/api/v1/session", body={"name": "eve", "password": OTHER}, key=None)

    def passkeys(self, eve):
        """A browser at localhost, since a passkey is bound to a name."""
        host = {"Host": f"localhost:{self.cluster.port}"}
        device = sign_in_test.Authenticator(self.cluster.state, "localhost", "http://" + host["Host"])
        self.call("POST", "/api/v1/passkeys/begin", 409, code="failed_precondition", headers=host)  # the admin key is nobody's
        begun = self.write("POST", "/api/v1/passkeys/begin", key=eve, headers=host)
        made = {"challenge": begun["challenge"], "name": "laptop", "credential": device.create(begun["publicKey"])}
        self.call("POST", "/api/v1/passkeys", 400, body={}, key=eve, field="challenge", headers=host)
        passkey = self.write("POST", "/api/v1/passkeys", made, key=eve, headers=host)
        self.pages("/api/v1/passkeys", 1, key=eve)
        begun = self.call("POST", "/api/v1/session/passkey/begin", key=None, headers=host)
        shown = {"challenge": begun["challenge"], "credential": device.get(begun["publicKey"])}
        self.assertEqual(self.write("POST", "/api/v1/session/passkey", shown, key=None, headers=host)["name"], "eve")
        self.write("DELETE", "/api/v1/passkeys/{id}", key=eve, id=passkey["id"])
        self.call("DELETE", "/api/v1/passkeys/{id}", 404, key=eve, id=passkey["id"])

    def problem_type(self, code, status=200):
        operation = self.document["paths"]["/api/v1/problems/{code}"]["get"]
        got, _, text = self.send("GET", f"/api/v1/problems/{code}", key=None)
        self.assertEqual(got, status)
        schema = operation["responses"]["200"]["content"]["application/json"]["schema"]
        ok = status == 200
        self.validate(schema if ok else {"$ref": "#/components/schemas/Problem"}, json.loads(text), code)
        (self.answered if ok else self.refused).add(("GET", "/api/v1/problems/{code}"))
        return json.loads(text)

    def slices(self):
        spec = {"name": "demo", "gpus": 2, "series": "LOCAL", "duration_ns": HOUR}
        self.call("POST", "/api/v1/offers", body=spec)
        self.call("POST", "/api/v1/offers", 400, body={**spec, "gpus": 0}, field="gpus")
        self.call("POST", "/api/v1/offers", 422, body={**spec, "gpus": 4000}, code="unsatisfiable")
        self.write("POST", "/api/v1/slices", spec)
        self.call("POST", "/api/v1/slices", 409, body=spec, code="already_exists")
        self.call("POST", "/api/v1/slices", 400, body={**spec, "gpu": 1}, field="gpu")
        self.write("POST", "/api/v1/slices/{name}/commit", name="demo")
        self.call("POST", "/api/v1/slices/{name}/commit", 404, name="none")
        wait_for("the slice", lambda: self.call("GET", "/api/v1/slices/{name}", name="demo")["state"] == "ready", 60)
        self.call("GET", "/api/v1/slices/{name}", 404, name="none")
        self.pages("/api/v1/slices", 1)
        self.pages("/api/v1/nodes", 1)
        self.call("POST", "/api/v1/slices/{name}/resize", 400, body={"gpus": "4"}, field="gpus", name="demo")
        self.write("POST", "/api/v1/slices/{name}/resize", {"gpus": 4}, name="demo")
        wait_for("the larger slice", lambda: self.call("GET", "/api/v1/slices/{name}", name="demo")["gpus"] == 4, 60)
        self.call("GET", "/api/v1/why/{subject}", subject="demo")
        self.call("GET", "/api/v1/why/{subject}", 404, subject="none")
        self.write("POST", "/api/v1/slices", {**spec, "name": "unused"})
        self.write("DELETE", "/api/v1/slices/{name}", name="unused")
        self.call("DELETE", "/api/v1/slices/{name}", 404, name="none")

    def jobs(self):
        spec = {"name": "loop", "slice": "demo", "gpus": 1, "command": ["sh", "-c", "echo hello; sleep 600"], "batch": True}
        self.call("POST", "/api/v1/jobs/estimate", body=spec)
        self.call("POST", "/api/v1/jobs/estimate", 400, body={**spec, "gpus": -1}, field="gpus")
        loop = self.write("POST", "/api/v1/jobs", spec)["id"]
        self.call("POST", "/api/v1/jobs", 400, body={**spec, "priorty": 1}, field="priorty")
        self.call("POST", "/api/v1/jobs", 404, body={**spec, "slice": "none"})
        self.cluster.wait_job(loop, ("running",))
        self.write("POST", "/api/v1/jobs/{id}/exec", {"argv": ["true"]}, id=loop)
        self.call("POST", "/api/v1/jobs/{id}/exec", 400, body={"rows": 0}, id=loop, field="rows")
        self.call("GET", "/api/v1/exec/{id}", 404, id="exec-0")
        self.call("GET", "/api/v1/jobs/{id}", id="loop")
        self.call("GET", "/api/v1/jobs/{id}", 404, id="none")
        self.call("GET", "/api/v1/why/{subject}", subject=loop)
        step = self.write("POST", "/api/v1/jobs/{id}/steps", {"name": "step", "gpus": 1, "command": ["true"]}, id=loop)
        self.cluster.wait_job(step["id"])
        self.call("POST", "/api/v1/jobs/{id}/steps", 404, body={"name": "step", "gpus": 1, "command": ["true"]}, id="none")
        wait_for("its output", lambda: "hello" in self.call("GET", "/api/v1/jobs/{id}/logs", id=loop), 20)
        self.call("GET", "/api/v1/jobs/{id}/logs", id=loop, query="?follow=1", read=100)
        self.call("GET", "/api/v1/jobs/{id}/logs", 400, id=loop, query="?rank=x", field="rank")
        self.write("DELETE", "/api/v1/jobs/{id}", id=loop)
        self.call("DELETE", "/api/v1/jobs/{id}", 404, id="none")
        self.cluster.wait_job(loop, ("cancelled",))
        trained = self.cluster.submit("--slice", "demo", self.cluster.recipe("llama", steps=20))
        self.cluster.wait_job(trained)
        self.pages("/api/v1/jobs", 3)
        self.parts_of("/api/v1/jobs")
        self.parts_of("/api/v1/slices")
        here = self.call("GET", "/api/v1/jobs", query="?slice=demo")["items"]
        self.assertEqual({job["slice"] for job in here}, {"demo"})
        self.call("GET", "/api/v1/jobs", 404, query="?slice=none")
        self.pages("/api/v1/jobs/{id}/metrics", 2, id=trained)
        self.call("GET", "/api/v1/jobs/{id}/metrics", 404, id="none")
        self.call("GET", "/api/v1/usage")
        self.serving()
        self.events()

    def serving(self):
        model = self.call("GET", "/api/v1/models/{name}", name="llama")
        self.call("GET", "/api/v1/models/{name}", 404, name="none")
        self.write("POST", "/api/v1/models", {"name": "copy", "path": model["path"]})
        self.call("POST", "/api/v1/models", 400, body={"name": "copy", "path": "here"}, field="path")
        self.pages("/api/v1/models", 2)
        made = self.cluster.th_json("data", "add", "words", SOURCE / "src/base", "--vocab-size", 300)
        self.write("POST", "/api/v1/data", {"name": "again", "path": made["path"]})
        self.call("POST", "/api/v1/data", 400, body={"name": "again", "path": "here"}, field="path")
        self.call("GET", "/api/v1/data/{name}", name="again@1")
        self.call("GET", "/api/v1/data/{name}", 404, name="none")
        self.pages("/api/v1/data", 2)
        self.write("POST", "/api/v1/deployments", {"name": "chat", "model": "llama", "slice": "demo"})
        self.call("POST", "/api/v1/deployments", 400, body={"name": "other", "model": "llama", "gpus": 99}, field="gpus")
        wait_for("the deployment",
                 lambda: self.call("GET", "/api/v1/deployments/{name}", name="chat")["state"] == "ready", 60)
        self.call("GET", "/api/v1/deployments/{name}", 404, name="none")
        self.pages("/api/v1/deployments", 1)
        self.gateway()
        self.console()
        self.write("DELETE", "/api/v1/deployments/{name}", name="chat")
        self.call("DELETE", "/api/v1/deployments/{name}", 404, name="none")

    def console(self):
        """What the console asks beside what everyone asks."""
        self.assertEqual(self.call("GET", "/api/v1/session")["gateway_url"], self.cluster.gateway_url)
        self.call("POST", "/api/v1/recipes/check", body={"yaml": "name: x\ngpus: 1\ncommand: [true]\n"})
        self.call("POST", "/api/v1/recipes/check", 400, body={"yaml": "name: x\ngpu: 1\n"}, code="invalid_argument")
        self.call("GET", "/api/v1/deployments/{name}/load", name="chat")
        self.call("GET", "/api/v1/deployments/{name}/load", 404, name="none")
        self.pages("/api/v1/usage/hours", 1)
        hours, total = self.call("GET", "/api/v1/usage/hours")["items"], self.call("GET", "/api/v1/usage")
        self.assertAlmostEqual(sum(h["gpu_seconds"] for h in hours), total["gpu_seconds"], delta=30)  # it runs on in the meantime
        self.assertEqual([sum(h[name] for h in hours) for name in ("requests", "prompt_tokens", "completion_tokens")], [1, 3, 4])
        self.assertTrue(all(h["start_ns"] % HOUR == 0 for h in hours))
        self.call("GET", "/api/v1/usage/hours", 400, query="?since_ns=x", field="since_ns")
        self.write("POST", "/api/v1/session/inference-key", secrets=["key"])

    def gateway(self):
        token = (self.cluster.state / "gateway.token").read_text().strip()
        config = self.call("GET", "/api/v1/gateway/config", key=token)
        self.assertEqual([d["name"] for d in config["deployments"]], ["chat"])
        self.call("GET", "/api/v1/gateway/config", 400, key=token, query="?have=x", field="have")
        record = {"seq": 1, "time_ns": 1, "key_id": "key-2", "deployment": "chat", "prompt_tokens": 3, "completion_tokens": 4}
        usage = {"journal": "test", "records": [record]}
        self.assertEqual(self.write("POST", "/api/v1/gateway/usage", usage, key=token)["acked_seq"], 1)
        self.call("POST", "/api/v1/gateway/usage", 400, key=token, body={"journal": "test", "records": 1}, field="records")
        tokens = self.call("GET", "/api/v1/usage")["tokens"]
        self.assertEqual([t["completion_tokens"] for t in tokens], [4])

    def events(self):
        """A stream that was cut goes on after the last id that was seen."""
        def read(last, want):
            text = ""
            request = urllib.request.Request(self.cluster.url + "/api/v1/events", headers={
                "Authorization": f"Bearer {self.cluster.key()}", "Last-Event-ID": last})
            with urllib.request.urlopen(request, timeout=20) as stream:
                self.assertEqual(stream.headers["Content-Type"], "text/event-stream")
                while text.count("\n\n") < want:
                    text += stream.read1(65536).decode()
            return [dict(line.split(": ", 1) for line in e.split("\n")) for e in text.split("\n\n")[:-1] if "id: " in e]
        everything = read("0", 20)
        ids = [int(e["id"]) for e in everything]
        self.assertEqual(ids, sorted(set(ids)))
        later = read(everything[9]["id"], 5)
        self.assertEqual(later[:5], everything[10:15])
        for event in everything:
            self.assertIn("time_ns", json.loads(event["data"]))
        self.call("GET", "/api/v1/events", headers={"Last-Event-ID": "0"}, read=100)
        self.call("GET", "/api/v1/events", 400, headers={"Last-Event-ID": "first"})

    def programs(self):
        node = next(iter((self.cluster.state / "vms").iterdir()))
        token = json.loads((node / "node.json").read_text())["token"]
        report = {"boot_id": "another", "have_generation": 0, "tasks": []}
        self.call("POST", "/api/v1/node/{vm}/sync", key=token, vm=node.name, body=report)
        self.call("POST", "/api/v1/node/{vm}/sync", 400, key=token, vm=node.name, body={**report, "tasks": 1}, field="tasks")
        job = self.cluster.submit("--slice", "demo", "--gpus", "4", "--", "sleep", "600")
        self.cluster.wait_job(job, ("running",))
        self.call("GET", "/api/v1/node/{vm}/sessions/{id}", 400, key=token, vm=node.name, id="exec-0")
        places = self.call("GET", "/api/v1/jobs/{id}", id=job)["ranks"]
        rank = next(r["rank"] for r in places if r["node"] == node.name)
        query = f"?task={job}.1.{rank}&offset=0"
        self.assertEqual(self.call("POST", "/api/v1/node/{vm}/log", key=token, vm=node.name, body=b"said\n", query=query),
                         {"next_offset": 5})
        self.assertEqual(self.call("POST", "/api/v1/node/{vm}/log", key=token, vm=node.name, body=b"said\n", query=query),
                         {"next_offset": 5}, "a repeat is harmless")
        self.call("POST", "/api/v1/node/{vm}/log", 400, key=token, vm=node.name, body=b"", field="task")
        self.call("DELETE", "/api/v1/jobs/{id}", id=job)

    def write_shutdown(self):
        self.call("POST", "/api/v1/shutdown", body={"nodes": True}, headers={"Idempotency-Key": "the end"})
        self.cluster.controld.wait(60)


class AtAProvider(sign_in_test.ByProvider):
    """What browsers get on the way to a real provider of OpenID Connect and back."""
    test_by_a_provider = test_a_provider_that_is_away_is_told = None

    def test_its_routes_answer_as_described(self):
        browser = self.cluster.browser()
        document = json.loads(browser.open(browser.url + "/api/v1/openapi.json")[1])
        described = {name: document["paths"]["/api/v1/session/oidc/" + name]["get"]["responses"] for name in ("start", "callback")}

        def check(name, status, answer):
            got, text, headers, _ = answer
            self.assertEqual(got, status, text)
            content = described[name][str(status) if str(status) in described[name] else f"{status // 100}XX"].get("content")
            self.assertIn((headers["Content-Type"] or "").split(";")[0], content or [""])
            return headers
        headers = check("start", 302, browser.open(browser.url + "/api/v1/session/oidc/start", follow=False))
        self.assertTrue(headers["Location"].startswith(self.issuer))
        back = self.at_the_provider(browser, "ada", invitation=self.cluster.invite())
        check("callback", 200, browser.open(back))
        self.assertEqual(browser.session()["name"], "ada")
        check("callback", 401, browser.open(back))
        self.end_provider()
        check("start", 503, self.cluster.browser().open(browser.url + "/api/v1/session/oidc/start", follow=False))


if __name__ == "__main__":
    import unittest
    unittest.main()
