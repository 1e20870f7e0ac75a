"""The control plane under simulated faults: no rule is broken, planted bugs are found, a run can be repeated."""

import json
import os
import subprocess
import unittest

SIM = os.path.join(os.environ["TH_BIN"], "th-sim")


def run(*arguments, want=0):
    done = subprocess.run([SIM, *arguments, "--json"], capture_output=True, text=True, timeout=120)
    assert done.returncode == want, f"{arguments}: exit {done.returncode}: {done.stdout[-600:]} {done.stderr[-600:]}"
    return json.loads(done.stdout.splitlines()[-1])


class Chaos(unittest.TestCase):
    def test_no_rule_is_broken_and_a_seed_gives_one_run(self):
        first = run("chaos", "--steps", "30000", "--steps-per-round", "10000", "--seed", "3")
        self.assertTrue(first["simulated"])
        self.assertEqual(first["violations"], 0)
        self.assertGreaterEqual(first["steps"], 30000)
        for what in ("faults", "crashes", "restarts", "acknowledged", "leases", "jobs", "preemptions", "resizes", "refused_by_limits", "reservations", "reserved_leases",
                     "usage_records", "gateway_crashes", "deployments", "deployments_ready"):
            self.assertGreater(first[what], 0, what)
        self.assertEqual(run("chaos", "--steps", "30000", "--steps-per-round", "10000", "--seed", "3"), first)
        other = run("chaos", "--steps", "5000", "--seed", "4")
        self.assertNotEqual(other["hash"], first["hash"])

    def find(self, plant, rule, steps="20000"):
        for seed in ("1", "2"):
            found = run("chaos", "--steps", steps, "--steps-per-round", "5000", "--seed", seed, "--break", plant, want=1)
            self.assertGreater(found["violations"], 0)
            self.assertEqual(found["first"]["rule"], rule)
            self.assertIn(f"--seed {seed}", found["again"])

    def test_a_host_that_is_leased_twice_is_found(self):
        self.find("double-lease", "no GPU is leased twice")

    def test_half_a_gang_is_found(self):
        self.find("half-gang", "no gang is half placed")

    def test_an_acknowledged_command_that_is_lost_is_found(self):
        self.find("lost-ack", "every acknowledged command is kept")

    def test_a_vm_that_is_leaked_is_found(self):
        self.find("leak-vm", "no VM is leaked")

    def test_a_quota_that_is_passed_is_found(self):
        self.find("quota", "no quota or budget is passed")

    def test_a_reservation_that_is_forgotten_is_found(self):
        self.find("lost-reservation", "every acknowledged command is kept")

    def test_tokens_that_are_counted_twice_are_found(self):
        self.find("double-meter", "every cent is accounted")

    def test_a_replica_of_a_deployment_that_is_no_more_is_found(self):
        self.find("orphan-replica", "the control plane follows its own rules")

    def test_a_finding_can_be_repeated(self):
        found = run("chaos", "--steps", "20000", "--steps-per-round", "5000", "--break", "half-gang", want=1)
        words = found["again"].split()
        again = run(*words[1 : words.index("--trace")], want=1)
        self.assertEqual(again["first"], found["first"])


class Llama3(unittest.TestCase):
    def test_the_goal_at_the_default_costs(self):
        result = run("llama3", "--gpus", "16384", "--days", "54")
        self.assertGreaterEqual(result["ettr"], 0.97)
        self.assertEqual(result["manual_steps"], 0)
        self.assertGreaterEqual(result["detect_s"], 30)
        self.assertGreaterEqual(result["restart_s"], 120)
        self.assertGreaterEqual(result["checkpoint_stall_s"], 2)
        # Poisson with mean 419 (Llama 3, table 5): four standard deviations.
        self.assertAlmostEqual(result["expected_interruptions"], 419, places=6)
        self.assertLess(abs(result["interruptions"] - 419), 4 * 419**0.5)
        self.assertEqual(sum(result["by_kind"].values()), result["interruptions"])
        lost_s = (1 - result["ettr"]) * 54 * 86400
        self.assertAlmostEqual(sum(result["lost_s"].values()), lost_s, delta=200)
        self.assertAlmostEqual(result["lost_gpu_hours"], lost_s / 3600 * 16384, delta=1)
        self.assertEqual(run("llama3", "--gpus", "16384", "--days", "54"), result)

    def test_what_costs_more_trains_less(self):
        table = run("llama3")["table"]
        costs = {row["costs"] for row in table}
        self.assertIn("MegaScale", costs)
        at = lambda name, save: next(r["ettr"] for r in table if (r["costs"], r["survivors_save"], r["spares"]) == (name, save, 1))
        self.assertLess(at("MegaScale", True), at("as asked", True))
        self.assertLess(at("as asked", False), at("as asked", True))

    def test_bad_numbers_are_refused(self):
        for flags in (["--gpus", "100"], ["--days", "0"], ["--stall-s", "0"], ["--bad-repairs", "2"]):
            with self.subTest(flags):
                run("llama3", *flags, want=2)


if __name__ == "__main__":
    unittest.main()
