"""Stacks and the checks before a hand-over, with real nodes: what does not match is not handed over, and the message says why."""

import json
import unittest

from cluster import Cluster, ClusterTest, wait_for


class Stacks(ClusterTest):
    def th(self, *args, status=0):
        done = self.cluster.th("--json", *args, check=False)
        self.assertEqual(done.returncode, status, f"th {args}\n{done.stdout}\n{done.stderr}")
        return json.loads(done.stdout)

    def add(self, text):
        file = self.cluster.state / "stack.yaml"
        file.write_text(text)
        return self.th("stack", "add", file)

    def create(self, name, *args, gpus=4, status=0):
        return self.th("slice", "create", name, "--gpus", gpus, "--series", "LOCAL", "--for", "1h", *args, status=status)

    def error(self, answer):
        return answer["error"]["message"]

    def test_a_slice_holds_its_stack(self):
        ids = [f"{s['name']}@{s['version']}" for s in self.th("stack", "list")["items"]]
        self.assertEqual(ids, ["base@1", "hpc@1", "serve@1", "train@1"])
        self.add('name: mine\nversion: "1"\nprograms: [th-train, sh]\nenvironment: {GREETING: hello}\n'
                 'validate: test -x "$(command -v th-node)" && test "$GREETING" = hello\n')
        self.assertEqual(self.create("demo", "--stack", "mine")["stack"], "mine@1")
        job = self.th("submit", "--wait", "--slice", "demo", "--gpus", 1, "--", "sh", "-c", 'test "$GREETING" = hello')
        self.assertEqual(job["state"], "succeeded")
        why = json.dumps(self.th("why", "demo"))
        self.assertIn("stack mine@1", why)
        leftovers = [p.name for p in (self.cluster.state / "jobs").iterdir() if p.name.startswith("check-")]
        self.assertEqual(leftovers, [], "checks leave no folder behind")

    def test_jobs_of_a_slice_share_a_folder(self):
        self.create("demo")
        run = ("submit", "--wait", "--slice", "demo", "--gpus", 1, "--", "sh", "-c")
        self.assertEqual(self.th(*run, 'echo kept > "$TH_SLICE_DIR/note"')["state"], "succeeded")
        self.assertEqual(self.th(*run, 'grep -q kept "$TH_SLICE_DIR/note"')["state"], "succeeded")
        folder = self.cluster.state / "jobs" / self.th("slice", "show", "demo")["id"]
        self.assertTrue((folder / "note").exists())
        self.th("slice", "release", "demo")
        wait_for("the folder to go with its slice", lambda: not folder.exists())

    def test_what_does_not_match_is_not_handed_over(self):
        self.add('name: mine\nversion: "1"\nprograms: [no-such-program]\n')
        said = self.error(self.create("demo", "--stack", "mine", status=1))
        self.assertIn("does not match stack mine@1: program no-such-program is missing", said)
        wait_for("nothing of it to be left", lambda: self.th("nodes", "list")["items"] == [])
        self.assertIn("stack 'yours' does not exist; there are base@1", self.error(self.create("demo", "--stack", "yours", status=1)))
        file = self.cluster.state / "stack.yaml"
        file.write_text('name: mine\nversion: "2"\npackages: ["$(reboot)"]\n')
        refused = self.th("stack", "add", file, status=1)
        self.assertIn("stack.yaml:3: packages", self.error(refused))
        file.write_text('name: mine\nversion: "1"\n')
        self.assertIn("another version", self.error(self.th("stack", "add", file, status=1)))

    def test_a_job_of_its_own_gets_a_slice_with_its_stack(self):
        self.add('name: mine\nversion: "1"\nenvironment: {GREETING: hello}\nvalidate: "true"\n')
        job = self.th("submit", "--wait", "--stack", "mine", "--gpus", 1, "--time", "10", "--", "sh", "-c",
                      'test "$GREETING" = hello')
        self.assertEqual(job["state"], "succeeded")


class Fabric(ClusterTest):
    def setUp(self):
        self.cluster = Cluster(policy="validation: {min_all_reduce: 1TB}\n").start()

    def test_a_fabric_that_is_too_slow_is_no_slice(self):
        done = self.cluster.th("--json", "slice", "create", "demo", "--gpus", 4, "--series", "LOCAL", "--for", "1h", check=False)
        self.assertEqual(done.returncode, 1, done.stdout)
        said = json.loads(done.stdout)["error"]["message"]
        self.assertRegex(said, r"it is slow: an all-reduce over 2 nodes moves [0-9.e+]+ MB/s a rank, want at least 1e\+06 MB/s")


if __name__ == "__main__":
    unittest.main()
