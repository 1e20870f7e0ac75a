#!/usr/bin/env python3
"""make cluster-demo: a Slurm cluster of four nodes in namespaces (tools/testbed). A 4-rank training over Gloo, a node of it killed, the
job goes on on the others from its checkpoint; torchrun on these; sbatch on nodes that are off; High-Performance Linpack. The nodes share this machine's processors.
The last thing printed is one JSON object. --without-hpl: all but Linpack; its fields are null then."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(os.environ.get("TH_BIN", ROOT / "build/release"))
FOLDER = Path(os.environ.get("TH_CLUSTER_DEMO_FOLDER", ROOT / "build/cluster-demo"))
TESTBED = ROOT / "tools/testbed"
PACKAGES = ["python3-torch", "hpcc", "libopenblas0-pthread", "openmpi-bin"]
STEPS, EVERY, VICTIM = 400, 20, "n4"
HPL_SECONDS = 60

# With --no-kill the job outlives its nodes: what is left of them goes on from the last checkpoint. Slurm still counts the step
# on the dead node, hence --overlap.
JOB = """#!/bin/bash
#SBATCH --job-name=llama --nodes=4 --ntasks-per-node=1 --no-kill --output={job}/batch.log
export OMP_NUM_THREADS=1
for attempt in 1 2 3; do
  nodes=($(sinfo -h -N -p $SLURM_JOB_PARTITION -n $SLURM_JOB_NODELIST -t alloc,mixed -o %N))
  TH_ATTEMPT=$attempt srun --nodelist=$(IFS=,; echo "${{nodes[*]}}") --nodes=${{#nodes[@]}} --ntasks=${{#nodes[@]}} \\
    --overlap --kill-on-bad-exit=1 -D {job} {train} run recipe.yaml && exit
  echo "attempt $attempt is over"
  sleep 8  # slurmctld misses a node after 5 s
done
exit 1
"""


def say(text):
    print(f"[{time.monotonic() - START:6.1f} s] {text}", flush=True)


def run(machine, *argv, seconds=300, **env):
    done = subprocess.run([str(TESTBED), "run", str(FOLDER), machine, *map(str, argv)], text=True, capture_output=True,
                          timeout=seconds, env={**os.environ, **env})
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(map(str, argv))}: exit {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def wait(what, condition, seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if value := condition():
            return value
        time.sleep(0.2)
    raise SystemExit(f"waited {seconds} s in vain for {what}")


def train():
    """Returns ranks, the step of the checkpoint that the job went on from, and the last step."""
    job = FOLDER / "llama"
    job.mkdir()
    recipe = (ROOT / "recipes/train/llama-tiny.yaml").read_text().replace("../data", str(ROOT / "recipes/data"))
    (job / "recipe.yaml").write_text(recipe.replace("steps: 120", f"steps: {STEPS}").replace("every: 10", f"every: {EVERY}"))
    (job / "job.sh").write_text(JOB.format(job=job, train=BIN / "th-train"))
    number = run("ctl", "sbatch", "--parsable", job / "job.sh").strip()
    log = job / "batch.log"
    wait("the job to start", lambda: log.exists(), 60)

    def text():
        return log.read_text() if log.exists() else ""

    def last_step():
        return max([int(s) for s in re.findall(r"step +(\d+)/", text())], default=0)

    wait("the first checkpoints", lambda: last_step() >= 5 * EVERY, 120)
    first = int(re.search(r"(\d+) ranks", text())[1])
    say(f"job {number}: {first} ranks on 4 nodes, step {last_step()}; {VICTIM} is killed")
    subprocess.run([str(TESTBED), "kill", str(FOLDER), VICTIM], check=True)
    lost = wait("a rank to be missed", lambda: re.search(r"rank \d+ on node n4 .*", text()), 30)
    say(f"the others say: {lost[0]}")
    resumed = wait("the job to go on", lambda: re.search(r"resume: from the checkpoint of step (\d+)", text()), 90)
    left = re.findall(r"(\d+) ranks", text())[-1]
    say(f"on the nodes that are left, {left} ranks go on from step {resumed[1]}")
    wait("the end of the training", lambda: "model: written" in text(), 300)
    losses = re.findall(r"loss ([0-9.]+)", text())
    say(f"done: loss {losses[0]} at the first step, {losses[-1]} at step {last_step()}")
    return first, int(resumed[1]), last_step()


def torchrun(nodes):
    text = run("ctl", "srun", "-N", nodes, "--ntasks-per-node=1", "bash", "-c",
               # Debian's torch 1.13 with its Python 3.11 cannot read its own defaults of these two ("0").
               f"torchrun --redirects 2 --tee 1 --log_dir {FOLDER}/torch "
               "--nnodes $SLURM_NTASKS --nproc_per_node 1 --node_rank $SLURM_PROCID --rdzv_id $SLURM_JOB_ID "
               f"--rdzv_backend c10d --rdzv_endpoint n1:29400 {ROOT}/tools/torch_ddp.py", GLOO_SOCKET_IFNAME="eth0",
               OMP_NUM_THREADS="1")
    say(re.search(r"torch: .*", text)[0])


def powered_down():
    """A batch job on two nodes that are off: slurmctld calls `th slurm resume`, a th-controld on ctl leases hosts for them."""
    state = {"TH_STATE": str(FOLDER / "th")}
    (FOLDER / "th").mkdir(mode=0o711)
    run("ctl", BIN / "th", "up", "--fleet", ROOT / "recipes/fleet/desk.yaml", **state)
    began = time.time()
    run("ctl", "srun", "-N2", "true")
    srun = time.time() - began
    (FOLDER / "power.sh").write_text(f"#!/bin/sh\ndate +%s.%N > {FOLDER}/started.new\nmv {FOLDER}/started.new {FOLDER}/started\n")
    began = time.time()
    run("ctl", "sbatch", "-p", "cloud", "-N2", "--output=/dev/null", FOLDER / "power.sh")
    started = FOLDER / "started"
    wait("the batch job on nodes that were off", started.exists, 120)
    say(f"sbatch on two nodes that were off: {float(started.read_text()) - began:.1f} s from submission to start, by th slurm resume "
        f"(slurmctld looks every 30 s); srun on two that were up: {srun:.1f} s to its end")
    run("ctl", "scancel", "--full", "-u", "root")
    run("ctl", BIN / "th", "down", **state)


def hpl():
    """Two processes on one node, as the nodes share two processors. Returns GFLOP/s, and its part of two dgemms at the same time."""
    folder = FOLDER / "hpl"
    folder.mkdir()
    text = run("ctl", "salloc", "-N1", "-n2", "--chdir", folder, "/usr/bin/python3", ROOT / "recipes/mpi/hpl.py", "--seconds", HPL_SECONDS,
               "--go-first", "--system", "Slurm testbed of namespaces", seconds=900, OMP_NUM_THREADS="1")
    for line in text.splitlines()[:-1]:
        say(line)
    found = json.loads(text.splitlines()[-1])
    return found["hpl_gflop_per_s"], found["hpl_efficiency"]


def main():
    subprocess.run([str(ROOT / "tools/install.sh"), *PACKAGES], check=True)
    if FOLDER.exists():
        subprocess.run([str(TESTBED), "down", "slurm", str(FOLDER)], check=False)
    subprocess.run([str(TESTBED), "up", "slurm-elastic", str(FOLDER)], check=True)
    try:
        ranks, resumed, last = train()
        torchrun(3)
        powered_down()
        gflops, efficiency = (None, None) if "--without-hpl" in sys.argv else hpl()
    except BaseException:
        for log in (FOLDER / "llama/batch.log", FOLDER / "log/slurmctld.log"):
            if log.exists():
                print(f"--- {log}", *log.read_text().splitlines()[-12:], sep="\n", file=sys.stderr)
        raise
    finally:
        subprocess.run([str(TESTBED), "down", "slurm", str(FOLDER)], check=True)
    print(json.dumps({"nodes": 4, "ranks": ranks, "node_killed": VICTIM, "resumed_from_step": resumed, "last_step": last,
                      "hpl_gflop_per_s": gflops and round(gflops, 1), "hpl_efficiency": efficiency and round(efficiency, 3),
                      "seconds": round(time.monotonic() - START, 1)}))


if __name__ == "__main__":
    START = time.monotonic()
    main()
