"""Who may ask for what: every route with every key (table.txt), against a real controller and gateway; and that nothing of one
tenant can be reached by another's keys, that a revoked key fails at once, that an invitation is good once."""

import contextlib
import http.client
import json
import os
import re
import sys
import threading
import time
import unittest
import urllib.parse
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "integration"))
from cluster import SOURCE, Cluster, ClusterTest, Refused, wait_for  # noqa: E402

HERE = Path(__file__).parent
POLICY = "hold: 1h\naccounts:\n  - {name: alpha}\n"
ROLES = ("viewer", "member", "operator", "admin")
COLUMNS = (["stranger", "expired", "revoked", "inference"] +
           [f"alpha-{who}" for who in ("viewer", "member", "neighbour", "operator", "admin")] +
           [f"beta-{who}" for who in ROLES] + ["operator", "admin"])
DAY_NS = 86_400_000_000_000
PASSWORD = "correct horse battery"
HEADER = '{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
MODEL = f"""mkdir model && printf '{{}}' > model/config.json && printf '{{}}' > model/tokenizer.json &&
printf '\\{len(HEADER):03o}\\0\\0\\0\\0\\0\\0\\0%sdata' '{HEADER}' > model/model.safetensors &&
echo '{{"event":"result","model_dir":"model"}}' >> "$TH_METRICS"
"""


def read_table():
    """[(method, path, {column: verdict}, what is made anew)]"""
    rows = []
    for line in (HERE / "table.txt").read_text().split("\n"):
        if not line.strip() or line.startswith("#"):
            continue
        line, _, anew = line.partition("->")
        method, path, *verdicts = line.split()
        verdicts = "".join(verdicts)
        assert len(verdicts) == len(COLUMNS), line
        rows.append((method, path, dict(zip(COLUMNS, verdicts)), anew.strip()))
    return rows


def routes_of_source():
    """What the routers are given: (method, path)."""
    found = set()
    for file in sorted((SOURCE / "src/control").glob("*.cc")) + sorted((SOURCE / "src/access").glob("*.cc")):
        text = file.read_text()
        found |= {("GET", path) for path in re.findall(r'\bread\(\s*router,\s*"([^"]+)"', text)}
        found |= set(re.findall(r'\b(?:write|add)\(\s*router,\s*"([A-Z]+)",\s*"([^"]+)"', text))
        found |= set(re.findall(r'\brouter\.add\(\s*"([A-Z]+)",\s*"([^"]+)"', text))
    text = (SOURCE / "src/gateway/gateway.cc").read_text()
    found |= {("POST", "gateway" + path) for path in re.findall(r'complete_by\("([^"]+)"', text)}
    found |= {(method, "gateway" + path) for method, path in re.findall(r'router\.add\("([A-Z]+)",\s*"([^"]+)"', text)}
    return found


def shape(path):
    return re.sub(r"\{[^}]*\}", "{}", path)


class AccessTest(ClusterTest):
    maxDiff = None

    def setUp(self):
        self.cluster = Cluster(policy=POLICY).start()
        self.count = 0
        self.keys = {"stranger": None, "admin": self.cluster.key()}
        self.api("POST", "/api/v1/tenants", {"name": "beta"})
        make = self.make_key
        self.keys["operator"] = make("platform-operator", "", "operator", ["api"])["key"]
        for role in ROLES:
            self.keys[f"alpha-{role}"] = make(f"alpha-{role}", "alpha", role)["key"]
            self.keys[f"beta-{role}"] = make(f"beta-{role}", "beta", role)["key"]
        self.keys["alpha-neighbour"] = make("alpha-neighbour", "alpha", "member")["key"]
        self.keys["inference"] = make("alpha-bot", "alpha", "admin", ["inference"])["key"]
        self.keys["expired"] = make("alpha-late", "alpha", "admin", expires_ns=time.time_ns() + 1_500_000_000)["key"]
        revoked = make("alpha-gone", "alpha", "admin")
        self.keys["revoked"] = revoked["key"]
        self.api("DELETE", f"/api/v1/keys/{revoked['id']}")
        time.sleep(1.6)  # until that one has expired

    # requests
    def api(self, method, path, body=None, who="admin", **more):
        return self.cluster.api(method, path, body, key=self.keys[who], **more)

    def ask(self, method, path, body=None, who="stranger", headers=None, read_s=0.0):
        """(status, text): of a stream, what came within read_s."""
        at_gateway = path.startswith("gateway/")
        url = urllib.parse.urlsplit(self.cluster.gateway_url if at_gateway else self.cluster.url)
        connection = http.client.HTTPConnection(url.hostname, url.port, timeout=20)
        headers = dict(headers or {})
        if self.keys.get(who):
            headers["Authorization"] = f"Bearer {self.keys[who]}"
        connection.request(method, path.removeprefix("gateway"), None if body is None else json.dumps(body), headers)
        answer = connection.getresponse()
        text = b""
        if "event-stream" in answer.getheader("Content-Type", ""):
            end = time.monotonic() + read_s
            with contextlib.suppress(OSError):
                while (left := end - time.monotonic()) > 0:
                    connection.sock.settimeout(left) if connection.sock else answer.fp.raw._sock.settimeout(left)
                    piece = answer.read1(65536)
                    if not piece:
                        break
                    text += piece
        else:
            text = answer.read()
        connection.close()
        return answer.status, text.decode()

    def make_key(self, name, tenant, role, scopes=("api", "inference"), **more):
        return self.api("POST", "/api/v1/keys", {"name": name, "tenant": tenant, "role": role, "scopes": list(scopes), **more})

    def fresh(self, prefix):
        self.count += 1
        return f"{prefix}-{self.count}"

    # things of alpha's member
    def new_slice(self):
        return self.api("POST", "/api/v1/slices", {
            "name": self.fresh("alpha-slice"), "gpus": 1, "series": "LOCAL", "duration_ns": 3_600_000_000_000,
            "start_ns": time.time_ns() + (10 + self.count) * DAY_NS}, who="alpha-member")["name"]

    def new_job(self):
        return self.api("POST", "/api/v1/jobs", {"name": self.fresh("alpha-job"), "gpus": 1, "command": ["true"],
                                                 "begin_ns": time.time_ns() + DAY_NS}, who="alpha-member")["id"]

    def new_deployment(self):
        return self.api("POST", "/api/v1/deployments", {"name": self.fresh("alpha-chat"), "model": "alpha-model",
                                                        "slice": self.things["slice"]}, who="alpha-member")["name"]

    def new_key(self):
        return self.make_key(self.fresh("alpha-key"), "alpha", "viewer")["id"]

    def new_invitation(self, field="id", **more):
        return self.api("POST", "/api/v1/invitations", {"tenant": "alpha", "role": "viewer", **more})[field]

    def new_code(self):
        return self.new_invitation("code")

    def new_user(self):
        made = self.ask("POST", "/api/v1/invitations/take", {"code": self.new_code(), "name": self.fresh("alpha-user")})
        return json.loads(made[1])["user"]

    def new_reset(self):
        return self.api("POST", f"/api/v1/users/{self.things['user']}/reset", {})["code"]

    def new_project(self):
        name = self.fresh("alpha-project")
        self.api("POST", "/api/v1/tenants", {"name": name, "parent": "alpha", "kind": "project"})
        return name

    def new_application(self):
        # Ten a minute are taken: those before are older by the time of a minute or fail the test loudly.
        def applied():
            status, text = self.ask("POST", "/api/v1/applications", {"name": self.fresh("alpha-app"), "contact": "alpha@x",
                                                                    "why": "alpha", "tenant": "alpha"})
            return json.loads(text)["id"] if status == 200 else None
        return wait_for("an application to be taken", applied, 70, 1)

    def new_reservation(self):
        name = self.fresh("alpha-class")
        self.api("POST", "/api/v1/reservations", {"name": name, "hosts": ["r1h1"], "accounts": ["alpha"],
                                                  "start_ns": time.time_ns() + (500 + self.count) * DAY_NS, "duration_ns": 3_600_000_000_000})
        return name

    def new_cap(self):
        name = self.fresh("cap")
        self.api("POST", "/api/v1/power-caps", {"name": name, "watts": 100_000, "duration_ns": 3_600_000_000_000})
        return name

    def alpha_model(self):
        job = self.api("POST", "/api/v1/jobs", {"name": "alpha-train", "gpus": 1, "command": ["sh", "-c", MODEL],
                                                "register": "alpha-model"}, who="alpha-member")["id"]
        self.cluster.wait_job(job)
        return "alpha-model"

    def make_things(self):
        self.things = {"slice": self.new_slice(), "host": "r2h2", "vm": "alpha-0", "data": "none", "file": "", "problem": "not_found", "exec": "exec-0"}
        self.things["file"] = re.search(r'"/console/([^"]+\.css)"', self.ask("GET", "/")[1]).group(1)
        self.things["model"] = self.alpha_model()
        for name in ("job", "deployment", "key", "invitation", "user", "project", "application", "reservation", "cap"):
            self.things[name] = getattr(self, f"new_{name}")()
        self.things["code"] = ""
        self.things["passkey"] = "none"  # keys of nobody in particular have none

    BODIES = {
        "/api/v1/shutdown": {"nodes": "neither"},  # it comes to be read, and is refused as what it is
        "/api/v1/hosts/{host}/drain": {"reason": "a test"},
        "/api/v1/offers": {"name": "o", "gpus": 1, "series": "LOCAL", "duration_ns": 3_600_000_000_000},
        "/api/v1/slices": {"name": "o", "gpus": 0},
        "/api/v1/slices/{slice}/resize": {"gpus": 2},
        "/api/v1/jobs": {"name": "j", "gpus": 0},
        "/api/v1/jobs/estimate": {"name": "j", "gpus": 1, "command": ["true"]},
        "/api/v1/jobs/{job}/steps": {"name": "j", "gpus": 1, "command": ["true"]},
        "/api/v1/jobs/{job}/exec": {"rows": 0},
        "/api/v1/deployments": {"name": "big", "model": "alpha-model", "gpus": 32},
        "/api/v1/session": lambda test, who: {"key": test.keys[who] or "none"},
        "/api/v1/keys": lambda test, who: {"name": test.fresh("alpha-k"), "tenant": "alpha"},
        "/api/v1/tenants": lambda test, who: {"name": test.fresh("alpha-t"), "parent": "alpha"},
        "/api/v1/tenants/{project}": lambda test, who: {"max_gpus": 3},
        "/api/v1/session/reset": lambda test, who: {"code": test.new_reset(), "password": PASSWORD},
        "/api/v1/users/{user}/role": {"tenant": "alpha", "role": "viewer"},
        "/api/v1/invitations": {"tenant": "alpha"},
        "/api/v1/invitations/take": lambda test, who: {"code": test.new_code(), "name": test.fresh("alpha-joined")},
        "/api/v1/applications": {"name": "a"},
        "/api/v1/applications/{application}/review": {"accept": False},
        "gateway/v1/completions": {"model": "{deployment}", "prompt": "p"},
        "gateway/v1/chat/completions": {"model": "{deployment}", "messages": [{"role": "user", "content": "p"}]},
        "gateway/openai/deployments/{deployment}/completions": {"prompt": "p"},
        "gateway/openai/deployments/{deployment}/chat/completions": {"messages": [{"role": "user", "content": "p"}]},
    }

    def attempt(self, method, path, who, anew):
        """The verdict that the servers give."""
        things = dict(self.things)
        if anew:
            things[anew] = getattr(self, f"new_{anew}")()
        body = self.BODIES.get(path, {} if method == "POST" else None) if method != "DELETE" else None
        body = body(self, who) if callable(body) else body
        if body and body.get("model") == "{deployment}":
            body = {**body, "model": things["deployment"]}
        full = path.format(**things) + ("?api-version=2024-10-21" if path.startswith("gateway/openai") else "")
        status, text = self.ask(method, full, body, who)
        if status in (401, 403) or (path.startswith("/api/v1/node/") and status == 503):
            return "-", status, text
        # What is named in the body is not there for that key either; a model that is not, is no refusal of the route.
        return ("0" if status == 404 and "data/none" not in full else "+"), status, text

    def test_table(self):
        self.make_things()
        known = {(method, shape(path)) for method, path, _, _ in read_table()}
        known |= {("GET", shape("/api/v1/stacks/{}")), ("GET", "/api/v1/why/{}")}
        routes = {(method, shape(path)) for method, path in routes_of_source()}
        self.assertEqual(sorted(routes - known), [], "routes that the table has not")
        patterns = [re.sub(r"\{\}", r"[^/]+", re.escape(path).replace(r"\{\}", "{}")) + "$" for _, path in routes]
        gone = [path for _, path, _, _ in read_table() if not any(re.match(p, shape(path)) for p in patterns)]
        self.assertEqual(gone, [], "lines without a route")
        self.assertGreater(len(routes), 60)
        wait_for("the gateway to know the deployment",
                 lambda: self.ask("GET", f"gateway/v1/models/{self.things['deployment']}", who="alpha-member")[0] == 200)
        wrong, tried = [], 0
        for method, path, verdicts, anew in read_table():
            for who, want in verdicts.items():
                tried += 1
                # A refused caller changes nothing, so that what is there can be asked for again.
                got, status, text = self.attempt(method, path, who, anew if want == "+" else "")
                if got != want:
                    wrong.append(f"{method} {path} by {who}: {got} ({status}), want {want}: {text[:160]}")
                self.assertLess(status, 500 if status != 503 else 600, f"{method} {path} by {who}: {text}")
        print(f"{tried} attempts on {len(routes)} routes", file=sys.stderr)
        self.assertEqual("\n".join(wrong), "")

    def test_nothing_of_one_tenant_reaches_another(self):
        self.make_things()
        ids = {self.things[name] for name in ("job", "key", "user", "invitation", "application")}
        alphas = self.api("GET", "/api/v1/slices", who="alpha-member")["items"]
        ids |= {item["id"] for item in alphas} | {node["name"] for item in alphas for node in item["nodes"]}
        self.assertGreaterEqual(len(ids), 6)

        def leaks(text):
            return sorted({word for word in re.findall(r"[a-z0-9][a-z0-9-]*", text) if word in ids or "alpha" in word})
        gets = [path.format(**self.things) for method, path, _, _ in read_table()
                if method == "GET" and "{" not in path and not path.startswith("gateway/health")]
        for who in ("stranger", "beta-viewer", "beta-admin"):
            for path in gets:
                _, text = self.ask("GET", path + ("?api-version=2024-10-21" if "openai" in path else ""), who=who)
                self.assertEqual(leaks(text), [], f"GET {path} by {who}: {text[:400]}")
        for path in ("/api/v1/slices", "/api/v1/jobs", "/api/v1/events"):  # the same words are there for who may see them
            _, text = self.ask("GET", path, who="alpha-viewer", headers={"Last-Event-ID": "0"}, read_s=1)
            self.assertNotEqual(leaks(text), [], path)
        # From the first event on, and live.
        for last in ("0", ""):
            later = threading.Timer(0.3, self.new_job)
            later.start()
            _, text = self.ask("GET", "/api/v1/events", who="beta-admin", headers={"Last-Event-ID": last} if last else {}, read_s=1.5)
            later.join()
            self.assertEqual(leaks(text), [], text[:400])
        # Not by what is refused either, nor by naming it where something else is asked for.
        beta = {"who": "beta-member"}
        job = {"name": "beta-job", "gpus": 1, "command": ["true"]}
        slice_of_alpha = self.things["slice"]
        for body in ({**job, "slice": slice_of_alpha}, {**job, "account": "alpha"},
                     {**job, "dependency": f"afterok:{self.things['job'][4:]}"}, {**job, "dependency": f"afterok:{self.things['job']}"},
                     {**job, "stage": {"m": str(self.cluster.state / "models/alpha-model/1")}},
                     {**job, "stage": {"m": str(self.cluster.state / "admin.key")}}):
            with self.assertRaises(Refused) as refused:
                self.api("POST", "/api/v1/jobs", body, **beta)
            self.assertIn(refused.exception.status, (400, 403, 404), body)
        # What is in the way is told without its name.
        wait_for("all GPUs to be free", lambda: "thunderhead_gpus_used 0" in self.ask("GET", "/metrics")[1])
        busy = self.api("POST", "/api/v1/slices", {"name": "alpha-all", "gpus": 8, "series": "LOCAL", "duration_ns": 3_600_000_000_000},
                        who="alpha-member")["id"]
        ids.add(busy)
        waits = self.api("POST", "/api/v1/jobs", {**job, "name": "beta-waits"}, **beta)["id"]
        change = lambda who: str(self.api("GET", f"/api/v1/why/{waits}", who=who)["smallest_change"])
        wait_for("the reason", lambda: busy in change("admin"), 10)
        self.assertIn("another's slice", change("beta-member"))
        self.assertEqual(leaks(self.ask("GET", f"/api/v1/why/{waits}", who="beta-member")[1]), [])
        # Names are each tenant's own, and an idempotency key is each caller's.
        first = self.api("POST", "/api/v1/slices", {"name": "same", "gpus": 1, "series": "LOCAL", "duration_ns": 3_600_000_000_000,
                                                     "start_ns": time.time_ns() + 300 * DAY_NS}, who="alpha-member", headers={"Idempotency-Key": "once"})
        second = self.api("POST", "/api/v1/slices", {"name": "same", "gpus": 1, "series": "LOCAL", "duration_ns": 3_600_000_000_000,
                                                      "start_ns": time.time_ns() + 310 * DAY_NS}, headers={"Idempotency-Key": "once"}, **beta)
        self.assertNotEqual(first["id"], second["id"])
        self.assertEqual(self.api("GET", "/api/v1/slices/same", **beta)["id"], second["id"])
        self.assertEqual(self.api("GET", "/api/v1/slices/same", who="alpha-viewer")["id"], first["id"])

    def test_a_key_ends_at_once(self):
        self.make_things()
        deployment = self.things["deployment"]
        made = self.make_key("alpha-short", "alpha", "member")
        self.keys["short"] = made["key"]
        chat = f"gateway/v1/models/{deployment}"
        wait_for("the gateway to know the key", lambda: self.ask("GET", chat, who="short")[0] == 200)
        session = self.ask("POST", "/api/v1/session", {"key": made["key"]})
        self.assertEqual(session[0], 200)
        told = self.api("DELETE", f"/api/v1/keys/{made['id']}", who="alpha-admin")
        self.assertTrue(told["gateways_told"])
        self.assertEqual(self.ask("GET", chat, who="short")[0], 401)
        self.assertEqual(self.ask("GET", "/api/v1/jobs", who="short")[0], 401)
        keys = {key["id"]: key for key in self.api("GET", "/api/v1/keys", who="alpha-admin")["items"]}
        self.assertTrue(keys[made["id"]]["revoked"])
        self.assertEqual([key["id"] for key in keys.values() if key["name"] == "alpha-short" and not key["revoked"]], [],
                         "its session is over as well")
        # A removed user's keys end with the user.
        taken = json.loads(self.ask("POST", "/api/v1/invitations/take", {"code": self.new_code(), "name": "alpha-eve"})[1])
        self.keys["eve"] = taken["key"]
        self.assertEqual(self.ask("GET", "/api/v1/jobs", who="eve")[0], 200)
        self.assertTrue(self.api("DELETE", f"/api/v1/users/{taken['user']}", who="alpha-admin")["gateways_told"])
        self.assertEqual(self.ask("GET", "/api/v1/jobs", who="eve")[0], 401)
        self.assertEqual(self.ask("GET", chat, who="eve")[0], 401)

    def test_an_invitation_is_good_once(self):
        take = lambda code, name: self.ask("POST", "/api/v1/invitations/take", {"code": code, "name": name})
        code = self.new_code()
        status, text = take(code, "alpha-ann")
        self.assertEqual(status, 200, text)
        ann = json.loads(text)
        self.assertEqual((ann["name"], ann["role"], ann["tenant"]), ("alpha-ann", "viewer", "alpha"))
        self.keys["ann"] = ann["key"]
        self.assertEqual(self.api("GET", "/api/v1/session", who="ann")["user"], ann["user"])
        self.assertEqual(take(code, "alpha-bob")[0], 403, "a second time")
        self.assertEqual(take("0" * 64, "alpha-bob")[0], 403, "a code that is none")
        short = self.new_invitation("code", expires_ns=time.time_ns() + 300_000_000)
        time.sleep(0.4)
        self.assertEqual(take(short, "alpha-bob")[0], 403, "too late")
        named = self.new_invitation("code", name="alpha-cid")
        self.assertEqual(take(named, "alpha-bob")[0], 403, "for another")
        made = self.api("POST", "/api/v1/invitations", {"tenant": "alpha", "role": "viewer"})
        self.api("DELETE", f"/api/v1/invitations/{made['id']}", who="alpha-admin")
        self.assertEqual(take(made["code"], "alpha-bob")[0], 403, "taken back")
        self.assertEqual(take(self.new_code(), "alpha-ann")[0], 409, "a name that is taken")
        # With a quota: a project of her own, which the queue keeps to.
        quota = self.new_invitation("code", role="member", max_gpus=2)
        dora = json.loads(take(quota, "dora")[1])
        self.assertEqual(dora["tenant"], "alpha-dora")
        self.keys["dora"] = dora["key"]
        slice = {"name": "d", "series": "LOCAL", "duration_ns": 3_600_000_000_000}
        with self.assertRaises(Refused) as refused:
            self.api("POST", "/api/v1/slices", {**slice, "gpus": 4}, who="dora")
        self.assertIn("alpha-dora", refused.exception.body)
        self.cluster.kill_controld()  # and after a restart
        self.cluster.start_controld()
        with self.assertRaises(Refused):
            self.api("POST", "/api/v1/slices", {**slice, "gpus": 4}, who="dora")
        self.assertEqual(take(quota, "dora-2")[0], 403)
        self.assertEqual(self.api("POST", "/api/v1/slices", {**slice, "gpus": 2}, who="dora")["account"], "alpha-dora")

    def test_limits_of_a_tenant_are_changed_by_who_is_above_it(self):
        def change(name, body, who):
            status, text = self.ask("PATCH", f"/api/v1/tenants/{name}", body, who)
            return status, json.loads(text)
        self.assertEqual(change("beta", {"max_gpus": 2}, "beta-admin")[0], 403, "its own limits")
        self.assertEqual(change("alpha", {"max_gpus": 2}, "admin")[0], 409, "that one is of policy.yaml")
        for body, field in (({"shares": 0}, "shares"), ({"shares": None}, "shares"), ({"max_gpus": -1}, "max_gpus"),
                            ({"budget_microusd": "1"}, "budget_microusd"), ({"gpus": 1}, "gpus")):
            status, problem = change("beta", body, "admin")
            self.assertEqual((status, problem.get("field")), (400, field), problem)
        self.assertEqual(change("beta", {}, "admin")[0], 400)
        status, beta = change("beta", {"max_gpus": 2, "budget_microusd": 9_000_000, "shares": 4}, "admin")
        self.assertEqual((status, beta["max_gpus"], beta["budget_microusd"], beta["shares"]), (200, 2, 9_000_000, 4))
        slice = {"name": "b", "series": "LOCAL", "duration_ns": 3_600_000_000_000, "gpus": 4}
        with self.assertRaises(Refused) as refused:
            self.api("POST", "/api/v1/slices", slice, who="beta-member")
        self.assertIn("beta", refused.exception.body)
        self.cluster.kill_controld()
        self.cluster.start_controld()
        with self.assertRaises(Refused):
            self.api("POST", "/api/v1/slices", slice, who="beta-member")
        self.assertEqual(change("beta", {"max_gpus": None}, "admin")[1]["budget_microusd"], 9_000_000)
        self.assertEqual(self.api("POST", "/api/v1/slices", slice, who="beta-member")["account"], "beta")

    def test_a_slice_is_for_a_tenant_below(self):
        project = self.new_project()
        slice = {"name": "s", "series": "LOCAL", "duration_ns": 3_600_000_000_000, "gpus": 1, "account": project}
        for who in ("beta-member", "beta-admin"):
            for path in ("offers", "slices"):
                self.assertEqual(self.ask("POST", f"/api/v1/{path}", slice, who)[0], 404, "it does not exist for them")
        self.assertEqual(self.ask("POST", "/api/v1/slices", {**slice, "account": "no spaces"}, "alpha-member")[0], 400)
        self.assertEqual(self.ask("POST", "/api/v1/slices", slice, "alpha-viewer")[0], 403)
        self.api("PATCH", f"/api/v1/tenants/{project}", {"max_gpus": 2}, who="alpha-admin")
        self.assertEqual(self.ask("POST", "/api/v1/offers", slice, "alpha-viewer")[0], 200)
        self.assertEqual(self.ask("POST", "/api/v1/offers", {**slice, "gpus": 4}, "alpha-viewer")[0], 429, "the quota of that one")
        self.assertEqual(self.api("POST", "/api/v1/slices", slice, who="alpha-member")["account"], project)

    def test_a_forgotten_password(self):
        taken = json.loads(self.ask("POST", "/api/v1/invitations/take",
                                    {"code": self.new_code(), "name": "alpha-ann", "password": PASSWORD})[1])
        self.keys["ann"] = taken["key"]
        def code(who, want=200, **more):
            status, text = self.ask("POST", "/api/v1/users/alpha-ann/reset", more, who)
            self.assertEqual(status, want, text)
            return json.loads(text).get("code")
        def take(code, password="another horse battery"):
            return self.ask("POST", "/api/v1/session/reset", {"code": code, "password": password})[0]
        def sign_in(password):
            return self.ask("POST", "/api/v1/session", {"name": "alpha-ann", "password": password})[0]
        late = code("alpha-admin", expires_ns=time.time_ns() + 200_000_000)
        code("alpha-admin", 400, expires_ns=time.time_ns() + 8 * DAY_NS)
        time.sleep(0.3)
        self.assertEqual(take(late), 403, "too late")
        replaced, good = code("alpha-admin"), code("alpha-admin")
        self.assertEqual(take(replaced), 403)
        self.assertEqual(take(good, "short"), 400)
        self.assertEqual(sign_in(PASSWORD), 200, "until another one is set")
        self.assertEqual(take(good), 200)
        self.assertEqual((sign_in(PASSWORD), sign_in("another horse battery"), take(good)), (401, 200, 403))
        sessions = [k for k in self.api("GET", "/api/v1/keys")["items"] if k["user"] == taken["user"] and k["scopes"] == ["console"]]
        self.assertEqual(len(sessions), 2, "that of the reset and the one after it")
        self.assertEqual(self.ask("GET", "/api/v1/jobs", who="ann")[0], 200, "a key is no password")
        # Nobody takes over a user who may more, nor comes to more by a code from before.
        before = code("alpha-admin")
        self.api("POST", "/api/v1/users/alpha-ann/role", {"tenant": "beta", "role": "viewer"})
        self.assertEqual(take(before), 403)
        code("alpha-admin", 403)
        code("beta-admin", 403)
        kept = code("admin")
        self.assertNotIn(kept, json.dumps(self.api("GET", "/api/v1/audit")))
        self.cluster.kill_controld()
        self.cluster.start_controld()
        self.assertEqual(take(kept, "the third of the horses"), 200)
        self.assertEqual(sign_in("the third of the horses"), 200)

    def test_whoever_guesses_keys_of_the_gateway_has_to_wait(self):
        chat = "gateway/v1/chat/completions"
        wait_for("the gateway to know its keys", lambda: self.ask("GET", "gateway/v1/models", who="alpha-member")[0] == 200)
        self.keys["wrong"] = "0" * 64
        answers = [self.ask("POST", chat, {}, "wrong") for _ in range(700)]
        self.assertEqual({status for status, _ in answers}, {401, 429})
        self.assertEqual([status for status, _ in answers[:400]], [401] * 400)
        refused = next(text for status, text in answers if status == 429)
        self.assertEqual(json.loads(refused)["error"]["code"], "rate_limit_exceeded")
        connection = http.client.HTTPConnection(*self.cluster.gateway_url.removeprefix("http://").split(":"), timeout=20)
        for _ in range(3):  # a try may come free in the meantime
            connection.request("GET", "/v1/models", headers={"api-key": "0" * 64})
            answer = connection.getresponse()
            answer.read()
            if answer.status == 429:
                break
        self.assertGreater(int(answer.getheader("Retry-After")), 0)
        connection.close()
        self.assertEqual(self.ask("GET", "gateway/v1/models", who="alpha-member")[0], 200, "a right key, from the same address")
        self.assertEqual(self.ask("GET", "gateway/v1/models")[0], 401, "none is no guess")

    def test_the_cookie_and_pages_of_other_sites(self):
        connection = http.client.HTTPConnection("127.0.0.1", self.cluster.port, timeout=20)
        connection.request("POST", "/api/v1/session", json.dumps({"key": self.keys["alpha-member"]}))
        answer = connection.getresponse()
        answer.read()
        cookie = answer.getheader("Set-Cookie")
        for part in ("HttpOnly", "SameSite=Strict", "Path=/"):
            self.assertIn(part, cookie)
        connection.close()
        session = {"Cookie": "a=b; " + cookie.split(";")[0]}
        self.assertEqual(self.ask("GET", "/api/v1/session", headers=session)[0], 200)
        job = {"name": "alpha-page", "gpus": 1, "command": ["true"], "begin_ns": time.time_ns() + DAY_NS}
        post = lambda **headers: self.ask("POST", "/api/v1/jobs", job, headers={**session, **{k.replace("_", "-"): v for k, v in headers.items()}})[0]
        self.assertEqual(post(), 403)
        self.assertEqual(post(X_Th_Csrf="1", Origin="http://evil.example"), 403)
        self.assertEqual(post(X_Th_Csrf="1", Origin=self.cluster.url), 200)
        self.assertEqual(post(X_Th_Csrf="1"), 200)
        secret = cookie.split(";")[0].split("=")[1]
        self.keys["cookie"] = secret
        self.assertEqual(self.ask("GET", "/api/v1/jobs", who="cookie")[0], 401, "a session is no key")
        self.assertEqual(self.ask("DELETE", "/api/v1/session", headers={**session, "X-Th-Csrf": "1"})[0], 200)
        self.assertEqual(self.ask("GET", "/api/v1/session", headers=session)[0], 401)

    def test_the_audit_log_has_it_all_and_no_secret(self):
        made = self.make_key("alpha-audited", "alpha", "member")
        self.keys["audited"] = made["key"]
        job = self.new_job()
        self.ask("DELETE", f"/api/v1/jobs/{job}", who="alpha-neighbour")
        self.ask("POST", "/api/v1/keys", {"name": "x"}, who="audited")
        self.ask("POST", "/api/v1/jobs", {"name": "x"})
        code = self.new_code()
        self.ask("POST", "/api/v1/invitations/take", {"code": code, "name": "alpha-zoe"})
        rows = self.api("GET", "/api/v1/audit")["items"]
        find = lambda **want: [r for r in rows if all(r[k] == v for k, v in want.items())]
        self.assertTrue(find(who="alpha-member", status=200, method="POST", path="/api/v1/jobs"))
        self.assertTrue(find(who="alpha-neighbour", status=403, path=f"/api/v1/jobs/{job}"))
        self.assertTrue(find(who="alpha-audited", key=made["id"], status=403, path="/api/v1/keys"))
        self.assertTrue(find(who="", status=401, path="/api/v1/jobs"))
        self.assertTrue(all(r["peer"].startswith("127.0.0.1:") for r in rows))
        text = json.dumps(rows)
        for secret in (made["key"], code, *filter(None, self.keys.values())):
            self.assertNotIn(secret, text)
        # A tenant's operator sees its tenant's; pages meet without a gap; exports say the same.
        own = self.api("GET", "/api/v1/audit", who="alpha-operator")["items"]
        self.assertEqual({r["tenant"] for r in own}, {"alpha"})
        self.assertEqual(self.api("GET", "/api/v1/audit", who="beta-operator")["items"], [])
        paged, after = [], ""
        while after is not None:
            page = self.api("GET", f"/api/v1/audit?limit=2&after={after or 0}", who="alpha-operator")
            paged, after = paged + page["items"], page["next"]
        self.assertEqual(paged, own)
        lines = self.ask("GET", "/api/v1/audit?format=jsonl", who="alpha-operator")[1].splitlines()
        self.assertEqual([json.loads(line) for line in lines], own)
        csv = self.ask("GET", "/api/v1/audit?format=csv&who=alpha-neighbour", who="alpha-operator")[1]
        self.assertEqual(csv.count("\r\n"), 2, csv)
        # Durable with what it tells of.
        self.cluster.kill_controld()
        self.cluster.start_controld()
        self.assertEqual(self.api("GET", "/api/v1/audit?what=" + job)["items"], [r for r in rows if job in r["path"] + r["summary"]])

    def test_the_command_line(self):
        th = self.cluster.th
        self.assertIn("gamma", th("tenant", "create", "gamma", "--max-gpus", 2).stdout)
        invited = self.cluster.th_json("invite", "--tenant", "gamma", "--role", "admin", "--expires", "1h")
        joined = self.cluster.th_json("join", invited["code"], "gina")
        os.environ["TH_KEY"] = joined["key"]
        try:
            self.assertIn("gamma", th("tenant", "list").stdout)
            self.assertNotIn("alpha", th("tenant", "list").stdout)
            applied = self.cluster.th_json("apply", "--name", "hugo", "--contact", "h@x", "--why", "work", "--tenant", "gamma")
            self.assertIn("hugo", th("application", "list").stdout)
            accepted = self.cluster.th_json("application", "accept", applied["id"], "--role", "viewer")
            self.cluster.th_json("join", accepted["invitation"]["code"], "hugo")
            self.assertIn("viewer of gamma", th("user", "list").stdout)
            th("user", "role", "hugo", "member")
            self.assertIn("member of gamma", th("user", "list").stdout)
            key = self.cluster.th_json("key", "create", "bot", "--scope", "inference", "--role", "viewer", "--expires", "1d")
            self.assertEqual(key["scopes"], ["inference"])
            self.assertIn("inference", th("key", "list").stdout)
            reset = self.cluster.th_json("user", "reset", "hugo", "--expires", "1h")
            self.assertEqual(reset["link"], "/#reset=" + reset["code"])
            self.assertIn("/#reset=", th("user", "reset", "hugo").stdout)
            self.assertNotEqual(th("tenant", "set", "gamma", "--max-gpus", 8, check=False).returncode, 0, "its own limits")
            th("key", "revoke", key["id"])
            th("user", "remove", "hugo")
            self.assertIn("/api/v1/users/hugo", th("audit", "--what", "users").stdout)
            self.assertNotEqual(th("key", "create", "x", "--tenant", "alpha", check=False).returncode, 0)
        finally:
            del os.environ["TH_KEY"]
        self.assertNotEqual(th("tenant", "remove", "alpha", check=False).returncode, 0)
        self.assertIn("at once: 8, budget: $50", th("tenant", "set", "gamma", "--max-gpus", 8, "--budget", 50).stdout)
        self.assertIn("no limit", th("tenant", "set", "gamma", "--max-gpus", "none").stdout)
        self.assertNotEqual(th("tenant", "set", "gamma", check=False).returncode, 0)
        made = self.cluster.th_json("slice", "create", "g", "--gpus", 1, "--series", "LOCAL", "--for", "1h", "--start", "now+2days", "--account", "gamma")
        self.assertEqual(made["account"], "gamma")
        th("slice", "release", "g")
        th("tenant", "remove", "gamma")
        self.assertNotEqual(th("--key", joined["key"], "tenant", "list", check=False).returncode, 0)


if __name__ == "__main__":
    unittest.main()
