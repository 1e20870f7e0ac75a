"""th-sim place, optimal and power in a short form: what they show holds, and a seed says the same twice."""

import json
import os
import subprocess
import tempfile
import unittest

TH_SIM = os.path.join(os.environ["TH_BIN"], "th-sim")


def run(*args, code=0):
    done = subprocess.run([TH_SIM, *args, "--json"], capture_output=True, text=True, timeout=240)
    assert done.returncode == code, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


class PlaceTest(unittest.TestCase):
    def test_gangs_are_placed_on_a_fleet_in_use(self):
        args = ("place", "--preset", "eagle", "--gpus", "256", "--count", "50", "--fill", "0.8")
        result = run(*args)
        self.assertTrue(result["simulated"])
        self.assertEqual(result["gpus_total"], 14400)
        self.assertGreaterEqual(result["fill"], 0.8)
        self.assertLess(result["fill"], 0.82)
        self.assertEqual(result["refused"], 0)
        self.assertLess(result["rss_bytes"], 256 << 20)
        self.assertGreaterEqual(result["mean_switch_span"], 1)
        self.assertLessEqual(result["p50_us"], result["p99_us"])
        self.assertEqual(result["log_hash"], run(*args)["log_hash"])
        self.assertNotEqual(result["log_hash"], run(*args, "--seed", "2")["log_hash"])

    def test_limits_of_the_fabric_count(self):
        free = run("place", "--preset", "eagle", "--gpus", "512", "--count", "1", "--fill", "0")
        self.assertEqual(free["mean_switch_span"], 2)  # 64 hosts on leaves of 32
        refused = run("place", "--preset", "eagle", "--gpus", "512", "--count", "1", "--fill", "0", "--switches", "1")
        self.assertEqual(refused["refused"], 1)
        # A leaf of 32 holds two whole segments of 12.
        parts = run("place", "--preset", "eagle", "--gpus", "768", "--count", "1", "--fill", "0", "--segment", "12")
        self.assertEqual(parts["mean_switch_span"], 4)
        spread = run("place", "--preset", "eagle", "--gpus", "448", "--count", "1", "--fill", "0", "--spread")
        self.assertEqual(spread["mean_switch_span"], 56)

    def test_bad_input_is_named(self):
        message = run("place", "--preset", "eagel", code=2)["error"]["message"]
        self.assertIn("did you mean 'eagle'", message)
        run("place", "--fill", "2", code=2)
        run("place", "--preset", "eagle", "--count", "1", "--gpus", "24", "--segment", "2", code=2)

    def test_report_is_one_page(self):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "report.html")
            run("place", "--preset", "voyager-eus2", "--gpus", "8", "--count", "10", "--report", path)
            with open(path) as file:
                page = file.read()
            self.assertIn("su13r0", page)
            self.assertIn("Simulated", page)


class OptimalTest(unittest.TestCase):
    def test_no_place_is_missed(self):
        result = run("optimal", "--cases", "120")
        self.assertEqual(result["missed"], 0)
        self.assertEqual(result["unsound"], 0)
        self.assertLessEqual(result["mean_gap_pct"], 2)
        self.assertEqual(result["log_hash"], run("optimal", "--cases", "120")["log_hash"])


class PowerTest(unittest.TestCase):
    def test_replanning_buys_gpus(self):
        result = run("power", "--preset", "eagle")
        air, replanned = result["air_cooled"], result["replanned"]
        # 450 racks of 4 hosts of 10.2 kW: 12.5 kW run one of them and strand 2.3 kW.
        self.assertEqual(air["gpus_usable"], 450 * 8)
        self.assertEqual(air["stranded_power_w"], 450 * 2300)
        self.assertEqual(replanned["gpus_usable"], 14400)
        self.assertEqual(replanned["stranded_power_w"], 0)
        self.assertEqual(air["offered_gpus"], replanned["offered_gpus"])
        self.assertGreater(replanned["share_placed"], 0.99)
        self.assertLess(air["share_placed"], 0.3)
        self.assertEqual(result["log_hash"], run("power", "--preset", "eagle")["log_hash"])


if __name__ == "__main__":
    unittest.main()
