#!/usr/bin/env python3
"""High-Performance Linpack on what mpirun starts (Debian's hpcc 1.5.0, Open MPI and OpenBLAS): Rmax, its part of a measured dgemm, and the
line of a TOP500 list. N comes from the memory and the time that there is.

  hpl.py [--seconds S] [--ranks N] [--threads T] [--memory-bytes B] [--site TEXT] [--system TEXT] [--rpeak-gflop-per-s R]

Where ranks and threads are not given they come from WORLD_SIZE or SLURM_NTASKS, and from OMP_NUM_THREADS. The last line is JSON."""

import argparse
import ctypes
import json
import os
import re
import subprocess
import sys
import time
from array import array
from pathlib import Path

BLOCK = 160
# The share of the processor that a session gets, sched(7), "The autogroup feature"; for root.
FIRST = '{ echo -20 >/proc/self/autogroup; } 2>/dev/null; exec "$@"'
DGEMM_N, DGEMM_SECONDS = 2048, 5
# HPL's input file, its lines in their order (https://www.netlib.org/benchmark/hpl/tuning.html), then PTRANS's.
INPUT = """HPL
by hpl.py
HPL.out
8 device: a file
1 sizes
{n} N
1 blocks
{block} NB
0 row-major
1 grids
{p} P
{q} Q
16.0 threshold
1 panel factorizations
1 Crout
1 stopping criteria
8 NBMIN
1 panels
2 NDIV
1 recursive panel factorizations
1 Crout
1 broadcasts
1 1ring modified
1 depths
0 depth
2 swap: mix
64 threshold
0 L1 transposed
0 U transposed
1 equilibration
8 alignment
##### separator
0 sizes of PTRANS
0
0 blocks of PTRANS
0
"""


def say(text):
    print(text, flush=True)


def grid(ranks):
    """P x Q, as square as it gets, P <= Q."""
    p = max(p for p in range(1, int(ranks**0.5) + 1) if ranks % p == 0)
    return p, ranks // p


def size(gflop_per_s, seconds, memory_bytes):
    """The largest N, in whole blocks, whose 2/3 N^3 operations take no longer and whose matrix takes 80 % of the memory."""
    by_time = (1.5 * seconds * gflop_per_s * 1e9) ** (1 / 3)
    by_memory = (0.8 * memory_bytes / 8) ** 0.5
    return max(int(min(by_time, by_memory)) // BLOCK, 1) * BLOCK


def dgemm_alone(threads, start, n=DGEMM_N):
    """GFLOP/s of C += A B, n x n doubles, the median of those products that fall into the time that all ranks measure in."""
    blas = ctypes.CDLL("libopenblas.so.0")
    blas.openblas_set_num_threads(threads)
    a, b, c = (array("d", [(i % 7) / 7 for i in range(4096)]) * (n * n // 4096) for _ in range(3))
    at_a, at_b, at_c = (ctypes.c_void_p(matrix.buffer_info()[0]) for matrix in (a, b, c))
    rates = []
    while time.time() < start + DGEMM_SECONDS or not rates:
        began, begins = time.monotonic(), time.time()
        blas.cblas_dgemm(101, 111, 111, n, n, n, ctypes.c_double(1e-9), at_a, n, at_b, n, ctypes.c_double(1), at_c, n)
        if begins >= start:
            rates.append(2 * n**3 / (time.monotonic() - began) / 1e9)
    return sorted(rates)[len(rates) // 2]


class Machine:
    def __init__(self, options):
        self.options = options
        self.ranks, self.threads = options.ranks, options.threads

    def mpirun(self, *argv, **env):
        # Ranks that wait spin: on one core two of them would stand in each other's way.
        bind = [] if shared_cores() else ["--bind-to", "core" if self.threads == 1 else "none"]
        first = ["sh", "-c", FIRST, "sh"] if self.options.go_first else []
        return subprocess.Popen(["mpirun", *bind, "-n", str(self.ranks), "-x", "OPENBLAS_NUM_THREADS", *first, *argv], text=True,
                                stdout=subprocess.PIPE, stdin=subprocess.DEVNULL,
                                env={**os.environ, "OPENBLAS_NUM_THREADS": str(self.threads), "OMPI_ALLOW_RUN_AS_ROOT": "1",
                                     "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1", **env})

    def dgemm(self):
        """GFLOP/s of all ranks together, measured at the same time."""
        start = time.time() + 2.5
        run = self.mpirun(sys.executable, os.path.abspath(__file__), "--dgemm-at", str(start), "--threads", str(self.threads))
        rates = [float(line) for line in run.communicate()[0].split()]
        if run.returncode != 0 or len(rates) != self.ranks:
            raise SystemExit(f"hpl.py: dgemm: mpirun ended with {run.returncode} and {len(rates)} of {self.ranks} rates; "
                             "it wants libopenblas0-pthread on every node")
        return sum(rates)

    def input(self, n):
        p, q = grid(self.ranks)
        return INPUT.format(n=n, block=BLOCK, p=p, q=q)

    def linpack(self, n):
        """GFLOP/s and seconds. hpcc runs its other parts first, by the N of its input file, and reads that again before Linpack:
        so they get a small N, which spares minutes."""
        output = Path("hpccoutf.txt")
        output.unlink(missing_ok=True)
        Path("hpccinf.txt").write_text(self.input(BLOCK))
        Path("hpccinf.new").write_text(self.input(n))
        run = self.mpirun("hpcc")
        text = lambda: output.read_text() if output.exists() else ""  # noqa: E731
        while run.poll() is None and "Begin of MPIRandomAccess" not in text():
            time.sleep(0.002)
        os.rename("hpccinf.new", "hpccinf.txt")
        run.communicate()
        found = {name: re.search(rf"^{name}=(\S+)", text(), re.M) for name in ("HPL_Tflops", "HPL_time", "HPL_N")}
        if run.returncode != 0 or not all(found.values()):
            raise SystemExit(f"hpl.py: hpcc ended with {run.returncode} before its summary; see {output.resolve()}")
        if int(found["HPL_N"][1]) != n:
            raise SystemExit(f"hpl.py: hpcc ran N = {found['HPL_N'][1]}, not {n}: it had read its input too early; run it again")
        if "PASSED" not in re.search(r"^\|\|Ax-b\|\|.*(PASSED|FAILED)$", text(), re.M)[0]:
            raise SystemExit(f"hpl.py: Linpack's residual is too large; see {output.resolve()}")
        return float(found["HPL_Tflops"][1]) * 1e3, float(found["HPL_time"][1])


def memory_of_all_nodes():
    """As if all nodes were like this one. Nodes that share a machine count as one."""
    here = int(re.search(r"MemAvailable: +(\d+)", Path("/proc/meminfo").read_text())[1]) * 1024
    if shared_cores():
        return here
    hosts = os.environ.get("OMPI_MCA_orte_default_hostfile")
    return here * (len(Path(hosts).read_text().splitlines()) if hosts else int(os.environ.get("SLURM_NNODES", 1)))


def shared_cores():
    """Whether gang.py says that the nodes of the gang are one machine: then ranks of two nodes would be bound to the same core."""
    return os.environ.get("OMPI_MCA_hwloc_base_binding_policy") == "none"


def top500(options, cores, rmax, peak):
    """https://www.top500.org/lists/: rank, system with its site, cores, Rmax and Rpeak in PFlop/s, power in kW."""
    declared = options.rpeak_gflop_per_s
    rpeak = declared or peak
    say("Rank  System                                    Cores  Rmax (PFlop/s)  Rpeak (PFlop/s)  Power (kW)")
    say(f"   -  {options.system + ', ' + options.site:<40}  {cores:>5}  {rmax / 1e6:>14.7f}  {rpeak / 1e6:>15.7f}           -")
    say(f"Rpeak is {'as declared' if declared else 'the measured dgemm, as none was declared'}; power was not measured.")


def measure(options):
    machine = Machine(options)
    cores = machine.ranks * machine.threads
    before = machine.dgemm()
    n = size(0.85 * before, options.seconds, options.memory_bytes)
    p, q = grid(machine.ranks)
    say(f"hpl: dgemm {before:.1f} GFLOP/s on {cores} cores, {machine.ranks} ranks of {machine.threads} threads at the same time; "
        f"N = {n}, NB = {BLOCK}, {p} x {q}")
    rmax, seconds = machine.linpack(n)
    after = machine.dgemm()
    peak, load = (before + after) / 2, os.getloadavg()[0]
    result = {"hpl_gflop_per_s": round(rmax, 1), "hpl_efficiency": round(rmax / peak, 3), "dgemm_before_gflop_per_s": round(before, 1),
              "dgemm_after_gflop_per_s": round(after, 1), "n": n, "seconds": round(seconds, 1), "cores": cores, "load": round(load, 1)}
    say(f"hpl: Rmax {rmax:.1f} GFLOP/s in {seconds:.1f} s, {rmax / peak:.3f} of dgemm ({before:.1f} before, {after:.1f} after); "
        f"residual passed; load {load:.1f}"
        f"{', before which the ranks went' if options.go_first else ''}")
    top500(options, cores, rmax, peak)
    if metrics := os.environ.get("TH_METRICS"):
        with open(metrics, "a") as lines:
            lines.write(json.dumps({"event": "result", **result}) + "\n")
    say(json.dumps(result))


def main():
    env = os.environ
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60, help="about as long as Linpack may take")
    parser.add_argument("--ranks", type=int, default=int(env.get("WORLD_SIZE", env.get("SLURM_NTASKS", 1))))
    parser.add_argument("--threads", type=int, default=int(env.get("OMP_NUM_THREADS", 1)))
    parser.add_argument("--memory-bytes", type=int, default=memory_of_all_nodes(), help="for the matrix: of all nodes together")
    parser.add_argument("--go-first", action="store_true",
                        help="root: before what else runs on the machine, which stands nearly still meanwhile; dgemm too")
    parser.add_argument("--site", default="this site")
    parser.add_argument("--system", default="Thunderhead slice")
    parser.add_argument("--rpeak-gflop-per-s", type=float)
    parser.add_argument("--dgemm-at", type=float, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.dgemm_at:
        print(dgemm_alone(options.threads, options.dgemm_at))
        return
    if options.ranks < 1 or options.threads < 1 or options.seconds <= 0:
        parser.error("--ranks, --threads and --seconds want numbers above 0")
    measure(options)


if __name__ == "__main__":
    main()
