"""th-train over Gloo between network namespaces, shared memory inside of them: the same numbers again, peers that are killed, stopped
or unplugged, a checkpoint that goes on with fewer ranks. Needs root; the namespaces end with the test."""

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path

BIN, SOURCE = Path(os.environ["TH_BIN"]), Path(os.environ["TH_SOURCE"])
sys.path.insert(0, str(SOURCE / "tools"))
import machines  # noqa: E402

RECIPE = (SOURCE / "recipes/train/llama-tiny.yaml").read_text().replace("../data", str(SOURCE / "recipes/data"))
STEP = re.compile(r"step +(\d+)/\d+ +loss ([0-9.]+)")


@unittest.skipUnless(os.geteuid() == 0, "namespaces need root")
class Gloo(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.scratch = tempfile.TemporaryDirectory(prefix="th-gloo-")
        cls.folder = Path(cls.scratch.name)
        cls.nodes = machines.boot_all(["hub", "n1", "n2", "n3"], cls.folder / "hosts", [cls.folder, SOURCE, BIN])
        cls.port = 29500

    @classmethod
    def tearDownClass(cls):
        for node in cls.nodes.values():
            node.power_off()
        cls.scratch.cleanup()

    def job(self, name, steps=40):
        folder = self.folder / name
        folder.mkdir()
        (folder / "recipe.yaml").write_text(RECIPE.replace("steps: 120", f"steps: {steps}"))
        return folder

    def gang(self, folder, places):
        """Rank i on the node places[i]."""
        Gloo.port += 1
        ranks = []
        for rank, place in enumerate(places):
            env = {**os.environ, "RANK": str(rank), "WORLD_SIZE": str(len(places)), "MASTER_ADDR": places[0],
                   "MASTER_PORT": str(Gloo.port), "OMP_NUM_THREADS": "1"}
            log = folder / f"rank{rank}.log"
            with open(log, "w") as output:
                ranks.append(self.nodes[place].spawn("sh", "-c", f"cd '{folder}' && exec '{BIN}/th-train' run recipe.yaml",
                                                     env=env, stdout=output, stderr=output))
            ranks[-1].log = log
        return ranks

    def text(self, rank):
        return rank.log.read_text()

    def finish(self, ranks, seconds=120):
        for rank in ranks:
            self.assertEqual(rank.wait(seconds), 0, self.text(rank))
        return [(int(s), float(l)) for s, l in STEP.findall(self.text(ranks[0]))]

    def wait_for_step(self, ranks, step):
        end = time.monotonic() + 60
        while not any(int(s) >= step for s, _ in STEP.findall(self.text(ranks[0]))):
            self.assertTrue(time.monotonic() < end and ranks[0].poll() is None, self.text(ranks[0]))
            time.sleep(0.05)

    def expect_named(self, ranks, victim, name, start):
        for i, rank in enumerate(ranks):
            if i == victim:
                continue
            self.assertEqual(rank.wait(30), 1, self.text(rank))
            self.assertIn(name, self.text(rank))
        self.assertLess(time.monotonic() - start, 6)  # 5 s to be named, and the end of the process

    def pid_of(self, node, rank):
        """From outside, of the th-train that nsenter started."""
        for entry in Path("/proc").iterdir():
            try:
                if (entry / "cmdline").read_bytes().startswith(f"{BIN}/th-train".encode()) and \
                        f"RANK={rank}".encode() in (entry / "environ").read_bytes().split(b"\0") and \
                        os.readlink(entry / "ns/pid") == os.readlink(f"/proc/{node.init}/ns/pid"):
                    return int(entry.name)
            except OSError:
                continue
        self.fail(f"no th-train of rank {rank}")

    def test_a_rerun_gives_the_same_weights(self):
        weights = []
        for name in ("first", "again"):
            folder = self.job(name)
            self.finish(self.gang(folder, ["n1", "n1", "n2", "n3"]))
            weights.append((folder / "model/model.safetensors").read_bytes())
        self.assertTrue(weights[0] == weights[1])

    def test_what_is_gone_is_named(self):
        for signal_number, how in ((signal.SIGKILL, "died"), (signal.SIGSTOP, "no sign of life")):
            ranks = self.gang(self.job(how.replace(" ", "-"), 100000), ["n1", "n1", "n2", "n3"])
            self.wait_for_step(ranks, 1)
            pid, start = self.pid_of(self.nodes["n3"], 3), time.monotonic()
            os.kill(pid, signal_number)
            self.expect_named(ranks, 3, "rank 3 on node n3 ", start)
            self.assertIn(how, self.text(ranks[0]))
            if signal_number == signal.SIGSTOP:
                os.kill(pid, signal.SIGKILL)
                ranks[3].send_signal(signal.SIGCONT)  # nsenter stops with what it runs
            ranks[3].wait(10)

    def test_a_node_that_is_unplugged_is_named(self):
        ranks = self.gang(self.job("unplugged", 100000), ["n1", "n2", "n3", "n3"])
        self.wait_for_step(ranks, 1)
        start = time.monotonic()
        self.nodes["n2"].run("ip", "link", "set", "eth0", "down")
        self.expect_named(ranks[:1] + ranks[2:], -1, "rank 1 on node n2 ", start)
        self.assertEqual(ranks[1].wait(30), 1)  # it misses rank 0
        self.nodes["n2"].run("ip", "link", "set", "eth0", "up")

    def test_a_checkpoint_goes_on_with_fewer_ranks(self):
        folder = self.job("fewer", 200)
        ranks = self.gang(folder, ["n1", "n1", "n2", "n3"])
        self.wait_for_step(ranks, 40)
        before = [float(l) for _, l in STEP.findall(self.text(ranks[0]))][-1]
        os.kill(self.pid_of(self.nodes["n3"], 3), signal.SIGKILL)
        for rank in ranks:
            rank.wait(30)
        saved = max(int(p.name[5:]) for p in (folder / "checkpoints").glob("step-[0-9]*") if p.name[5:].isdigit())
        ranks = self.gang(folder, ["n1", "n1", "n2"])
        losses = self.finish(ranks)
        self.assertIn(f"resume: from the checkpoint of step {saved}\n", self.text(ranks[0]))
        self.assertGreater(saved, 0)
        first_step, first_loss = losses[0]
        self.assertGreater(first_step, saved)
        self.assertLess(first_loss, before + 0.5)  # from scratch it would be 6.2, the logarithm of the vocabulary's size
        self.assertLess(losses[-1][1], first_loss)


if __name__ == "__main__":
    unittest.main()
