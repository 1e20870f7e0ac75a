"""Slurm's verbs on a running desk: scripts with #SBATCH lines, arrays, dependencies, begin times, steps, and the columns."""

import json
import time
import unittest

from cluster import ClusterTest, wait_for


class SlurmVerbs(ClusterTest):
    def setUp(self):
        super().setUp()
        self.cluster.slice("demo", 4)  # two nodes of two GPUs
        self.work = self.cluster.state / "work"
        self.work.mkdir()
        self.work.chmod(0o777)  # jobs of a controller that root started run as nobody

    def script(self, name, *lines):
        path = self.work / name
        path.write_text("#!/bin/bash\n" + "\n".join(lines) + "\n")
        return path

    def sbatch(self, *args):
        """The number of the job."""
        return self.cluster.th("sbatch", "--parsable", *args, cwd=self.work).stdout.strip()

    def state(self, number):
        return self.cluster.job(f"job-{number}")["state"]

    def wait(self, number, states=("succeeded",), seconds=30):
        return self.cluster.wait_job(f"job-{number}", states, seconds)

    def squeue(self, *args):
        """Rows of squeue by JOBID."""
        lines = self.cluster.th("squeue", *args).stdout.splitlines()
        self.assertEqual(lines[0].split(), ["JOBID", "PARTITION", "NAME", "USER", "ST", "TIME", "NODES", "NODELIST(REASON)"])
        return {line.split()[0]: line.split() for line in lines[1:]}

    def log(self, number):
        return self.cluster.th("logs", f"job-{number}").stdout

    def test_a_script_runs_once_with_slurms_variables_and_its_steps(self):
        c = self.cluster
        script = self.script(
            "hello.sh", "#SBATCH --job-name=hello -p demo", "#SBATCH -N 2 --ntasks-per-node=2 --gpus-per-node=2",
            "#SBATCH -t 5 -o out-%x-%j.txt", "echo script $SLURM_JOB_ID $SLURM_JOB_NAME $SLURM_NTASKS $SLURM_NNODES "
            "$SLURM_JOB_NODELIST $SLURM_TASKS_PER_NODE $1", "pwd",
            "srun bash -c 'echo task $SLURM_PROCID of $SLURM_NTASKS on $SLURM_NODEID gpu $CUDA_VISIBLE_DEVICES step "
            "$SLURM_STEP_ID job $SLURM_JOB_ID'", "srun -n 1 bash -c 'exit 3'; echo srun ended with $?")
        said = c.th("sbatch", script, "an-argument", cwd=self.work).stdout
        self.assertRegex(said, r"^Submitted batch job \d+\n$")
        number = said.split()[-1]
        done = self.wait(number)
        self.assertEqual(len(done["ranks"]), 1, "the script runs once")
        text = (self.work / f"out-hello-{number}.txt").read_text()
        self.assertIn(f"script {number} hello 4 2 demo-[0-1] 2(x2) an-argument\n{self.work}\n", text)
        tasks = sorted(line for line in text.splitlines() if line.startswith("task"))
        self.assertEqual(tasks, [f"task {r} of 4 on {r // 2} gpu {r % 2} step 0 job {number}" for r in range(4)])
        self.assertIn("srun ended with 3\n", text)
        self.assertIn("output goes to out-hello", self.log(number))

        rows = [line.split("|") for line in c.th("sacct", "-j", number, "-P").stdout.splitlines()]
        self.assertEqual(rows[0], ["JobID", "JobName", "Partition", "Account", "AllocTRES", "State", "ExitCode"])
        self.assertEqual([r[0] for r in rows[1:]], [number, f"{number}.0", f"{number}.1"])
        self.assertEqual([r[5:] for r in rows[1:]], [["COMPLETED", "0:0"], ["COMPLETED", "0:0"], ["FAILED", "3:0"]])
        self.assertEqual(rows[1][4], "gres/gpu=4,node=2")
        self.assertIn("column 'Stat' is unknown, did you mean 'State'",
                      c.th("sacct", "--format", "Stat", check=False).stderr)

    def test_an_array_keeps_to_its_limit(self):
        script = self.script("array.sh", "#SBATCH -a 0-3%2 -p demo", "sleep 1; echo $SLURM_ARRAY_JOB_ID "
                             "$SLURM_ARRAY_TASK_ID $SLURM_ARRAY_TASK_COUNT $SLURM_ARRAY_TASK_MAX")
        first = self.sbatch(script)
        most = 0
        seen_waiting = False

        def ended():
            nonlocal most, seen_waiting
            jobs = [j for j in self.cluster.api("GET", "/api/v1/jobs")["items"] if j["options"].get("array_job") == f"job-{first}"]
            self.assertEqual(len(jobs), 4)
            most = max(most, sum(j["state"] in ("starting", "running") for j in jobs))
            row = self.squeue().get(f"{first}_[2-3%2]")
            seen_waiting = seen_waiting or (row is not None and row[4] == "PD" and row[7] == "(JobArrayTaskLimit)")
            return all(j["state"] == "succeeded" for j in jobs)
        wait_for("the array to end", ended, 40)
        self.assertEqual(most, 2)
        self.assertTrue(seen_waiting)
        for index in range(4):
            self.assertEqual(self.log(int(first) + index), f"{first} {index} 4 3\n")

    def test_dependencies_and_begin(self):
        c = self.cluster
        good = self.sbatch("-p", "demo", "--wrap", "sleep 2")
        after = self.sbatch("-p", "demo", "-d", f"afterok:{good}", "--wrap", "echo after")  # while it sleeps
        never = self.sbatch("-p", "demo", "-d", f"afternotok:{good}", "--wrap", "true")
        begin = time.time()
        late = self.sbatch("-p", "demo", "--begin", "now+3", "--wrap", "true")
        wait_for("the reasons", lambda: [self.squeue()[n][7] for n in (after, late)] == ["(Dependency)", "(BeginTime)"], 2)
        self.assertEqual(self.squeue()[late][4], "PD")
        self.assertIn(f"it waits for job-{good} to end", c.th("why", f"job-{after}").stdout)
        self.wait(after)
        jobs = [c.job(f"job-{n}") for n in (good, after)]
        self.assertGreaterEqual(jobs[1]["started_ns"], jobs[0]["ended_ns"])
        wait_for("the reason", lambda: self.squeue()[never][7] == "(DependencyNeverSatisfied)", 5)
        self.wait(late)
        self.assertGreaterEqual(c.job(f"job-{late}")["started_ns"] / 1e9, begin + 2.5)
        self.assertEqual(self.state(never), "pending")

        c.th("scancel", never)
        self.wait(never, ("cancelled",))
        self.assertEqual(self.squeue(), {})
        self.assertIn(f"{never} ", c.th("sacct", "-n", "--format", "JobID,State").stdout)
        self.assertIn("CANCELLED", c.th("sacct", "-j", never).stdout)

    def test_signal_and_time_limit(self):
        script = self.script("trap.sh", "#SBATCH -p demo -t 0:04 --signal=B:USR1@2", "trap 'echo caught' USR1",
                             "for i in $(seq 100); do sleep 0.1; done")
        number = self.sbatch(script)
        self.wait(number, ("failed",))
        self.assertIn("caught\n", self.log(number))
        self.assertEqual(self.cluster.job(f"job-{number}")["reason_code"], "timeout")
        self.assertIn("TIMEOUT", self.cluster.th("sacct", "-j", number).stdout)

    def test_what_there_is_and_what_would_be(self):
        c = self.cluster
        lines = c.th("sinfo").stdout.splitlines()
        self.assertEqual(lines[0].split(), ["PARTITION", "AVAIL", "TIMELIMIT", "NODES", "STATE", "NODELIST"])
        self.assertEqual([lines[1].split()[i] for i in (0, 1, 3, 4, 5)], ["demo", "up", "2", "idle", "demo-[0-1]"])
        held = self.sbatch("-p", "demo", "-n", 3, "-J", "held", "-t", "10", "--wrap", "sleep 60")
        self.wait(held, ("running",))
        states = {line.split()[4] for line in c.th("sinfo", "-h").stdout.splitlines()}
        self.assertEqual(states, {"alloc", "mix"})
        row = self.squeue("-t", "R")[held]
        self.assertEqual((row[1], row[2], row[4], row[6], row[7]), ("demo", "held", "R", "2", "demo-[0-1]"))

        before = len(c.api("GET", "/api/v1/jobs")["items"])
        test = c.th_json("sbatch", "--test-only", "-p", "demo", "-G", 2, "-t", 1, "--wrap", "true")
        self.assertEqual(test["reason"]["code"], "busy")
        self.assertTrue(test["smallest_change"])
        self.assertAlmostEqual(test["start_ns"] / 1e9, c.job(f"job-{held}")["started_ns"] / 1e9 + 600, delta=5)
        self.assertEqual(len(c.api("GET", "/api/v1/jobs")["items"]), before, "nothing is kept")
        text = c.th("sbatch", "--test-only", "-p", "demo", "-n", 1, "--wrap", "true").stdout
        self.assertRegex(text, r"^sbatch: Job to start at .* using 1 GPUs on nodes \S+ in partition demo\n")
        for verb in ("squeue", "sinfo", "sacct"):
            done = c.th("--json", verb)
            self.assertEqual(done.stdout.count("\n"), 1)
            self.assertIn("items", json.loads(done.stdout))
            self.assertIn("Example:", c.th(verb, "--help").stdout)
        c.th("scancel", "--name", "held")
        self.wait(held, ("cancelled",))

    def test_what_is_wrong_is_named(self):
        c = self.cluster
        bad = self.script("bad.sh", "#SBATCH -p demo", "#SBATCH --nodse=2", "true")
        done = c.th("sbatch", bad, check=False)
        self.assertEqual(done.returncode, 1)
        self.assertIn(f"{bad}:3: --nodse: unknown option, did you mean '--nodes'?", done.stderr)
        for args, says in ((("-N", "two"), "--nodes: want a count"), (("-p", "nowhere"), "slice 'nowhere' does not exist"),
                           (("-d", "afterok:999"), "job 'job-999' does not exist"), (("-w", "n99"), "node 'n99' does not exist"),
                           (("-p", "demo", "-n", "5"), "asks for 5 GPUs"), (("--deadline", "now-1hour"), "cannot end by then")):
            done = c.th("sbatch", *args, "--wrap", "true", check=False)
            self.assertEqual(done.returncode, 1, args)
            self.assertIn(says, done.stderr)
        self.assertIn("job '99' does not exist", c.th("scancel", 99, check=False).stderr)
        self.assertIn("srun starts tasks inside of a batch job", c.th("srun", "true", check=False).stderr)
        self.assertIn("--mem changes nothing here", c.th("sbatch", "-p", "demo", "--mem=4G", "--wrap", "true").stderr)


if __name__ == "__main__":
    unittest.main()
