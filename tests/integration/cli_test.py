"""The command line: every verb says one JSON object, every end has its exit status, the live line redraws in place."""

import json
import os
import pty
import signal
import subprocess
import unittest

from cluster import BIN, TINY, ClusterTest, free_port, wait_for


class CommandLine(ClusterTest):
    def one_object(self, *args, status=0, **kwargs):
        """Runs `th ARGS --json`: the exit status is `status`, stdout is one line, a JSON object."""
        done = self.cluster.th("--json", *args, check=False, **kwargs)
        self.assertEqual(done.returncode, status, f"th {args}\n{done.stdout}\n{done.stderr}")
        self.assertEqual(done.stdout.count("\n"), 1, f"th {args}: {done.stdout}")
        answer = json.loads(done.stdout)
        self.assertIsInstance(answer, dict)
        if status == 0:
            self.assertNotIn("error", answer)
        return answer

    def items(self, *args):
        return self.one_object(*args)["items"]

    def start_th(self, *args):
        return subprocess.Popen([BIN / "th", "--state", self.cluster.state, "--json", *map(str, args)], text=True,
                                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def test_slices_and_nodes(self):
        run = self.one_object
        self.assertEqual(run("up")["started"], [])
        self.assertEqual(len(run("fleet")["racks"]), 2)
        ask = ("slice", "create", "demo", "--gpus", 4, "--series", "LOCAL", "--for", "1h")
        self.assertEqual(run(*ask, "--dry-run")["offer"]["gpus"], 4)
        self.assertEqual(self.items("slice", "list"), [], "a dry run leaves nothing")
        self.assertEqual(run(*ask)["state"], "ready")
        self.assertEqual([s["name"] for s in self.items("slice", "list")], ["demo"])
        self.assertEqual(len(run("slice", "show", "demo")["nodes"]), 2)
        self.assertEqual(run("why", "demo")["subject"], "demo")
        run("nodes", "list")
        host = run("fleet")["racks"][1]["hosts"][1]["id"]
        run("nodes", "drain", host, "--reason", "a fan is loud")
        self.assertIn("a fan is loud", json.dumps(run("fleet")))
        run("nodes", "resume", host)
        self.assertNotIn("a fan is loud", json.dumps(run("fleet")))
        run("slice", "release", "demo")
        self.assertEqual(len(run("down")["stopped"]), 2)

    def test_jobs_models_keys_and_text(self):
        run, c = self.one_object, self.cluster
        run("slice", "create", "demo", "--gpus", 4, "--series", "LOCAL", "--for", "1h")
        trained = run("submit", "--wait", "--slice", "demo", TINY)
        self.assertEqual(trained["state"], "succeeded")
        self.assertEqual([j["id"] for j in self.items("jobs")], [trained["id"]])
        run("logs", trained["id"])
        run("logs", "-f", trained["id"], "--rank", 0)
        self.assertGreater(len(run("why", trained["id"])["timeline"]), 2)
        self.assertEqual([m["name"] for m in self.items("models")], ["llama-tiny"])
        self.assertEqual(run("deploy", "llama-tiny", "--name", "talk", "--slice", "demo")["state"], "ready")
        self.assertEqual([d["name"] for d in self.items("deployments")], ["talk"])

        ask = ("chat", "talk", "--prompt", "And", "--max-tokens", 4)
        self.assertEqual(run(*ask)["completion_tokens"], 4)
        user = run("key", "create", "ada")
        listed = {k["id"]: k for k in self.items("key", "list")}
        self.assertEqual((listed[user["id"]]["name"], listed[user["id"]]["role"]), ("ada", "member"))
        before = len(listed)
        for key in (user["key"], c.key()):  # the gateway knows no admin's key: the one that was kept is used
            self.assertEqual(run(*ask, env={**os.environ, "TH_KEY": key})["completion_tokens"], 4)
        self.assertEqual(run("--key", user["key"], *ask)["completion_tokens"], 4)
        run(*ask, env={**os.environ, "TH_KEY": "wrong"}, status=1)
        self.assertEqual(len(self.items("key", "list")), before, "chat made one key too many")
        run("key", "revoke", user["id"])
        self.assertTrue(next(k for k in self.items("key", "list") if k["id"] == user["id"])["revoked"])

        self.assertGreater(run("usage")["microusd"], 0)
        run("undeploy", "talk")
        wait_for("the deployment to be gone", lambda: not [
            d for d in self.items("deployments") if d["state"] in ("starting", "ready")], 10)

    def test_what_fails_says_why(self):
        for args in (("slice", "show", "none"), ("slice", "release", "none"), ("logs", "job-9"), ("cancel", "job-9"),
                     ("why", "job-9"), ("deploy", "none", "--name", "x"), ("undeploy", "none"), ("key", "revoke", "key-99"),
                     ("nodes", "drain", "none", "--reason", "x"), ("nodes", "resume", "none"), ("submit", "none.yaml"),
                     ("slice", "create", "big", "--gpus", 10, "--series", "LOCAL", "--for", "1h")):
            with self.subTest(" ".join(map(str, args))):
                error = self.one_object(*args, status=1)["error"]
                self.assertTrue(error["code"])
                self.assertRegex(error["message"], "none|job-9|key-99|10 GPUs")
        for args in ((), ("slice",), ("nonsense",), ("slice", "create", "x"), ("logs", "job-1", "--rank", "-1"),
                     ("fleet", "--nonsense")):
            with self.subTest("usage", args=args):
                self.assertEqual(self.one_object(*args, status=2)["error"]["code"], "invalid_argument")
        nobody = f"http://127.0.0.1:{free_port()}"
        error = self.one_object("--url", nobody, "fleet", status=3)["error"]
        self.assertEqual(error["code"], "unavailable")
        self.assertIn(nobody, error["message"])

    def test_the_exit_status_is_the_jobs(self):
        c = self.cluster
        c.slice("demo", 2)
        submit = ("submit", "--wait", "--slice", "demo", "--gpus", 1, "--retries", 0, "--", "sh", "-c")
        self.assertEqual(self.one_object(*submit, "exit 7", status=7)["state"], "failed")
        self.assertEqual(self.one_object(*submit, "kill -9 $$", status=137)["ranks"][0]["signal"], 9)

        # What the first attempt wrote is shown although the second has begun.
        twice = 'if mkdir "$TH_JOB_DIR/once"; then echo the first; exit 1; fi; echo the second'
        done = c.th("submit", "--follow", "--slice", "demo", "--gpus", 1, "--", "sh", "-c", twice)
        self.assertLess(done.stdout.index("the first\n"), done.stdout.index("the second\n"))

    def test_an_interrupt_ends_the_watching_alone(self):
        c = self.cluster
        c.slice("demo", 2)
        watching = self.start_th("submit", "--wait", "--slice", "demo", "--gpus", 1, "--", "sh", "-c", "echo hello; sleep 60")
        job = wait_for("the job", lambda: next((j["id"] for j in c.api("GET", "/api/v1/jobs")["items"]), None))
        c.wait_job(job, ("running",))
        wait_for("its output", lambda: "hello" in c.th("logs", job).stdout)
        following = self.start_th("logs", "-f", job)
        with self.assertRaises(subprocess.TimeoutExpired):
            following.wait(1)
        for process in (watching, following):
            process.send_signal(signal.SIGINT)
            stdout, stderr = process.communicate(timeout=10)
            self.assertEqual(process.returncode, 130, stderr)
            self.assertEqual(stdout.count("\n"), 1, stdout)
            self.assertEqual(json.loads(stdout)["id"], job)
        self.assertIn("hello", stderr)
        self.assertEqual(c.job(job)["state"], "running")
        following = self.start_th("logs", "-f", job)
        self.one_object("cancel", job)
        stdout, _ = following.communicate(timeout=20)
        self.assertEqual((following.returncode, json.loads(stdout)["state"]), (0, "cancelled"))

    def test_the_live_line_redraws_in_place(self):
        c = self.cluster
        c.slice("demo", 2)
        try:
            terminal, other_end = pty.openpty()
        except OSError as none:
            self.skipTest(f"no pseudo-terminal can be opened here: {none}")
        watching = subprocess.Popen([BIN / "th", "--state", c.state, "submit", "--wait", "--slice", "demo", TINY],
                                    stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=other_end)
        os.close(other_end)
        drawn = b""
        try:
            while piece := os.read(terminal, 4096):
                drawn += piece
        except OSError:
            pass  # the last writer has closed it
        os.close(terminal)
        self.assertEqual(watching.wait(10), 0)
        self.assertNotIn(b"\n", drawn)
        lines = drawn.split(b"\r\x1b[K")
        self.assertEqual((lines[0], lines[-1]), (b"", b""), "it begins on a line of its own and is removed at the end")
        steps = [line for line in lines if b"/120" in line]
        self.assertGreater(len(steps), 1, drawn)
        self.assertLessEqual(max(len(line.decode()) for line in lines), 80, "a line that wraps cannot be redrawn")


if __name__ == "__main__":
    unittest.main()
