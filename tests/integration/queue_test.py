"""Accounts, QOS, reservations and resizing on a real desk cluster with a policy file."""

import time
import unittest

from cluster import Cluster, ClusterTest, Refused, wait_for

POLICY = """
accounts:
  - {name: lab, max_gpus: 8}
  - {name: course, max_gpus: 2, budget: "0.30", budget_period: 1d}
qos:
  - {name: urgent, priority: 1000, preempts: [normal]}
  - {name: normal, priority: 500, grace: 5s}
"""

# Counts to 40 in tenths of a second from where its last checkpoint was, and saves one when it is told to end.
COUNTER = r"""
import json, os, signal, sys, time
from pathlib import Path
saved = Path("step")
step = int(saved.read_text()) if saved.exists() else 0
out = open(os.environ.get("TH_METRICS", "/dev/null"), "a", buffering=1)
def save(*_):
    saved.write_text(str(step))
    out.write(json.dumps({"event": "checkpoint", "step": step}) + "\n")
    sys.exit(1)
signal.signal(signal.SIGTERM, save)
print("from", step, flush=True)
while step < 40:
    time.sleep(0.1)
    step += 1
"""


class QueueTest(ClusterTest):
    def setUp(self):
        self.cluster = Cluster(policy=POLICY).start()

    def submit(self, name, gpus, **more):
        return self.cluster.api("POST", "/api/v1/jobs", {
            "name": name, "gpus": gpus, "command": ["python3", "-c", COUNTER], "duration_ns": 600 * 10**9, **more})["id"]

    def test_a_higher_qos_preempts_and_the_job_goes_on_from_its_checkpoint(self):
        c = self.cluster
        low = self.submit("low", 8, account="lab")
        wait_for("each rank of low counts", lambda: c.log_tail(low).count("from 0") == 8, 30)
        time.sleep(1)  # some way beyond the first step
        high = self.submit("high", 2, account="lab", qos="urgent", command=["sleep", "2"])
        wait_for("low is preempted", lambda: c.job(low)["preemptions"] == 1, 20)
        c.wait_job(high, seconds=40)
        done = c.wait_job(low, seconds=60)
        self.assertEqual(done["retries_used"], 0)
        self.assertGreaterEqual(done["attempt"], 2)
        self.assertRegex(c.log_tail(low), r"from [1-9]")
        told = [m["what"] for m in c.api("GET", f"/api/v1/why/{low}")["timeline"]]
        self.assertTrue(any("preempted" in t for t in told), told)

    def test_a_training_job_resumes_from_the_step_at_which_it_was_stopped_and_on_fewer_gpus(self):
        c = self.cluster
        c.slice("demo", 4)
        recipe = c.recipe("elastic", steps=1500, every=100000, gpus="4\nslice: demo\ncan_rescale: true\nmin_gpus: 2")
        job = c.submit(recipe)
        steps = lambda event: [m["step"] for m in c.api("GET", f"/api/v1/jobs/{job}/metrics")["items"] if m["event"] == event]
        wait_for("it trains", lambda: steps("progress"), 60)
        self.assertEqual(steps("checkpoint"), [])
        shrinking = c.th_json("slice", "resize", "demo", "--gpus", 2)
        self.assertIn(2, (shrinking["gpus"], shrinking["resizing_to_gpus"]))
        wait_for("it is smaller", lambda: c.api("GET", "/api/v1/slices/demo")["gpus"] == 2, 30)
        resumed = wait_for("it resumes", lambda: steps("resume"), 60)
        self.assertEqual(resumed, steps("checkpoint"))  # of the step at which it was told to end
        self.assertGreaterEqual(resumed[0], 1)
        now = c.job(job)
        self.assertEqual((now["attempt"], now["preemptions"], now["retries_used"], now["lost_steps"]), (2, 1, 0, 0))
        wait_for("it goes on", lambda: steps("progress")[-1] > resumed[0], 60)
        c.th("slice", "resize", "demo", "--gpus", "4")
        time.sleep(1)
        self.assertEqual(c.job(job)["attempt"], 2, "it has not saved a checkpoint since")
        c.api("DELETE", f"/api/v1/jobs/{job}")
        c.wait_job(job, ("cancelled",))

    def test_a_training_job_grows_with_its_slice_at_a_checkpoint(self):
        c = self.cluster
        c.slice("demo", 4)
        recipe = c.recipe("elastic", steps=1500, every=20, gpus="4\nslice: demo\ncan_rescale: true\nmin_gpus: 2")
        job = c.submit(recipe)
        wait_for("it runs", lambda: c.job(job)["state"] == "running", 60)
        c.th("slice", "resize", "demo", "--gpus", "2")
        wait_for("it goes on with two", lambda: c.job(job)["attempt"] == 2 and c.job(job)["state"] == "running", 60)
        self.assertEqual(len(c.job(job)["ranks"]), 2)
        c.th("slice", "resize", "demo", "--gpus", "4")
        wait_for("it goes on with four", lambda: c.job(job)["attempt"] == 3 and c.job(job)["state"] == "running", 90)
        now = c.job(job)
        self.assertEqual((len(now["ranks"]), now["lost_steps"], now["retries_used"]), (4, 0, 0))
        c.api("DELETE", f"/api/v1/jobs/{job}")
        c.wait_job(job, ("cancelled",))

    def test_before_an_eviction_a_training_job_saves_its_step_and_goes_on_elsewhere(self):
        c = self.cluster
        c.slice("demo", 4)
        job = c.submit(c.recipe("evicted", steps=1500, every=100000, gpus="4\nslice: demo"))
        steps = lambda event: [m["step"] for m in c.api("GET", f"/api/v1/jobs/{job}/metrics")["items"] if m["event"] == event]
        wait_for("it trains", lambda: steps("progress"), 60)
        node = c.job(job)["ranks"][0]["node"]
        (c.state / "vms" / node / "notice.json").write_text('{"kind": "preempt", "in_s": 30}')
        told = time.monotonic()
        resumed = wait_for("it resumes", lambda: steps("resume"), 60)
        self.assertLess(time.monotonic() - told, 30, "before the VM would have been taken")
        self.assertEqual(resumed, steps("checkpoint"))
        now = c.job(job)
        self.assertEqual((now["attempt"], now["lost_steps"], now["retries_used"]), (2, 0, 0))
        self.assertNotIn(node, {rank["node"] for rank in now["ranks"]})
        self.assertFalse((c.state / "vms" / node).exists())
        c.api("DELETE", f"/api/v1/jobs/{job}")
        c.wait_job(job, ("cancelled",))

    def test_a_job_that_saves_its_work_is_moved_so_that_a_gang_can_start(self):
        c = self.cluster
        keeps = COUNTER.replace("    step += 1\n", "    step += 1\n    if step == 5:\n"
                                "        out.write(json.dumps({'event': 'checkpoint', 'step': step}) + '\\n')\n")
        fleet = c.th_json("fleet")
        leaves = {}
        for rack in fleet["racks"]:
            leaves.setdefault(rack["leaf"], []).extend(h["id"] for h in rack["hosts"])
        (_, first), (_, second) = sorted(leaves.items())
        # One job on each leaf, each of one host: then no leaf is free as a whole.
        for host in first[1:]:
            c.th("nodes", "drain", host, "--reason", "for the test")
        jobs = [self.submit(f"small{i}", 2, account="lab", command=["python3", "-c", keeps.replace("40", "4000")]) for i in range(2)]
        for job in jobs:
            wait_for("it runs", lambda: c.job(job)["state"] == "running", 30)
        for host in first[1:]:
            c.th("nodes", "resume", host)
        on = {job: next(n["host"] for n in c.api("GET", "/api/v1/nodes")["items"] if n["name"] == c.job(job)["ranks"][0]["node"])
              for job in jobs}
        self.assertEqual(sorted(host in first for host in on.values()), [False, True], on)
        gang = self.submit("gang", 4, account="lab", max_switches=1, command=["sleep", "2"])
        c.wait_job(gang, seconds=60)
        moved = [c.job(job) for job in jobs if c.job(job)["preemptions"]]
        self.assertEqual(len(moved), 1)
        wait_for("it goes on elsewhere", lambda: c.job(moved[0]["id"])["state"] == "running", 30)
        self.assertRegex(c.log_tail(moved[0]["id"]), r"from [1-9]")
        told = [m["why"] for m in c.api("GET", f"/api/v1/why/{moved[0]['id']}")["timeline"]]
        self.assertTrue(any(f"so that {gang} can start" in t for t in told), told)

    def test_quotas_budgets_reservations_and_sizes(self):
        c = self.cluster
        key = c.api("POST", "/api/v1/keys", {"name": "ada", "account": "course"})["key"]
        want = {"name": "s", "gpus": 4, "series": "LOCAL", "duration_ns": 3600 * 10**9}
        with self.assertRaises(Refused) as refused:
            c.api("POST", "/api/v1/slices", want, key=key)
        self.assertIn("account course, whose quota is 2", refused.exception.body)
        with self.assertRaises(Refused) as refused:  # two hours of two GPUs at $0.10 are $0.40
            c.api("POST", "/api/v1/slices", {**want, "gpus": 2, "duration_ns": 7200 * 10**9}, key=key)
        self.assertIn("budget is $0.30", refused.exception.body)
        with self.assertRaises(Refused) as refused:
            c.api("POST", "/api/v1/jobs", {"name": "j", "gpus": 1, "command": ["true"], "account": "lab"}, key=key)
        self.assertIn("there is no account 'lab'", refused.exception.body)  # of another tenant: it does not exist

        # Two hosts are kept: what is left is four of the eight GPUs.
        c.th("reservation", "create", "psu", "--hosts", "r1h1,r1h2", "--for", "1h", "--maintenance", "--reason", "new PSU")
        offer = c.api("POST", "/api/v1/offers", {**want, "gpus": 6})
        self.assertGreater(offer["start_ns"], 0)
        self.assertTrue(offer["sooner"])
        waits = self.submit("waits", 6, account="lab")
        wait_for("the reason", lambda: c.api("GET", f"/api/v1/why/{waits}")["reason"]["code"] == "reservation", 10)
        c.th("reservation", "delete", "psu")
        wait_for("it starts", lambda: c.job(waits)["state"] in ("starting", "running"), 30)
        c.api("DELETE", f"/api/v1/jobs/{waits}")
        c.wait_job(waits, ("cancelled",))

        # A cap that two hosts reach: the third waits for its end. It outlives the controller.
        c.th("power", "cap", "heat", "--watts", "140", "--for", "1h", "--reason", "a chiller is repaired")
        c.kill_controld()
        c.start_controld()
        self.assertEqual(c.th_json("power", "list")["items"][0]["watts"], 140)
        with self.assertRaises(Refused) as refused:
            c.api("POST", "/api/v1/slices", {**want, "gpus": 6})
        self.assertIn("power", refused.exception.body)
        c.th("power", "lift", "heat")

        c.slice("grows", 2)
        self.assertEqual(c.th_json("slice", "resize", "grows", "--gpus", 4)["gpus"], 4)
        # Kill the controller in the middle: it goes on with what it had begun.
        wait_for("all is free", lambda: c.api("POST", "/api/v1/slices/grows/resize", {"gpus": 8}), 1)
        c.kill_controld()
        c.start_controld()
        wait_for("it has eight", lambda: c.api("GET", "/api/v1/slices/grows")["gpus"] == 8, 40)
        job = c.submit("--slice", "grows", "--gpus", 8, "--name", "all", "--", "true")
        c.wait_job(job)
        shrunk = c.th_json("slice", "resize", "grows", "--gpus", 2)
        self.assertEqual(shrunk["gpus"], 2)
        wait_for("the others are gone", lambda: len(c.api("GET", "/api/v1/slices/grows")["nodes"]) == 1, 20)
        accounts = {a["name"]: a for a in c.api("GET", "/api/v1/accounts")["items"]}
        self.assertEqual(accounts["default"]["gpus"], 2)
        self.assertGreater(accounts["default"]["cost_microusd"], 0)
        self.assertIn("course", c.th("accounts").stdout)


if __name__ == "__main__":
    unittest.main()
