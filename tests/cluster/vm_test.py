"""VMs by libvirt, on a libvirt of the test's own: make vm-demo in its short form, and what is told when something is missing. Needs root;
without KVM the VMs run in software emulation."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path

BIN, SOURCE = Path(os.environ["TH_BIN"]), Path(os.environ["TH_SOURCE"])
sys.path.insert(0, str(SOURCE / "tools"))
from libvirt_testbed import ADDRESS, ADDRESSES, BRIDGE, LibvirtTestbed  # noqa: E402

FLEET = """name: vms
sites:
  - id: here
    racks:
      - {id: r1, leaf: leaf1, power_budget_w: 10000, hosts: [{id: h1, series: LOCAL}, {id: h2, series: LOCAL}]}
switches: [{id: leaf1, tier: leaf}]
"""


@unittest.skipUnless(os.geteuid() == 0, "VMs on a bridge need root")
class Vms(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.scratch = tempfile.TemporaryDirectory(prefix="th-vm-")
        cls.folder = Path(cls.scratch.name)
        cls.folder.chmod(0o711)
        cls.image = cls.folder / "image"
        subprocess.run([SOURCE / "tools/vm_image", cls.image, "--bin", BIN], check=True)

    @classmethod
    def tearDownClass(cls):
        cls.scratch.cleanup()

    def test_ranks_in_two_vms_train_together(self):
        done = subprocess.run([SOURCE / "tools/vm_demo.py", "--nodes", "2", "--steps", "12", "--image", self.image], capture_output=True,
                              text=True, timeout=800, env={**os.environ, "TH_VM_DEMO_FOLDER": str(self.folder / "demo")})
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        result = json.loads(done.stdout.strip().split("\n")[-1])
        self.assertEqual((result["nodes"], result["nodes_used"], result["ranks"], result["last_step"]), (2, 2, 2, 12), done.stderr)
        self.assertLess(result["last_loss"], result["first_loss"])
        self.assertEqual((result["tokens_served"], result["vms_left"]), (8, 0))
        self.assertFalse((self.folder / "demo").exists())

    def test_what_is_wrong_is_told_and_nothing_is_left(self):
        (self.folder / "fleet.yaml").write_text(FLEET)
        no_kernel = self.copy_of_image("no-kernel", vmlinuz=b"this is no kernel\n" * 1000)
        cut = self.copy_of_image("cut", **{"initrd.img": (self.image / "initrd.img").read_bytes()[:20_000_000]})
        testbed = LibvirtTestbed(self.folder / "testbed", [self.folder, BIN])
        testbed.up()
        try:
            for name, change, told in (
                    ("bridge", {"bridge": "br9"}, ["make bridge br9", "or set cloud.bridge"]),
                    ("memory", {"memory": "4000GiB"}, ["of memory free", "cloud.memory lower"]),
                    ("kernel", {"image": no_kernel}, ["starting VM 'x-0'", "kernel too old", "anew with tools/vm_image"]),
                    ("initrd", {"image": cut}, ["'x-0' did not come up, started 3 times", "th-node does not run", "tools/vm_image"]),
                    ("uri", {"uri": "qemu:///elsewhere"}, ["libvirt at 'qemu:///elsewhere' is not reached", "set cloud.uri"])):
                with self.subTest(name):
                    output = self.refused_slice(testbed, name, change)
                    for words in told:
                        self.assertIn(words, output)
                    self.assertEqual(testbed.domains(), [])
                    self.assertEqual(os.listdir(self.folder / name / "libvirt"), [])
            missing = self.controld(testbed, "image", {"image": self.folder / "nowhere"})
            self.assertNotEqual(missing.wait(20), 0)
            self.assertIn("nowhere/vmlinuz: no such file; build it with tools/vm_image", (self.folder / "image.log").read_text())
            testbed.machine.run("sh", "-c", "kill -9 $(cat /run/libvirtd.pid)")
            output = self.refused_slice(testbed, "down", {})
            self.assertIn("start libvirtd", output)
        finally:
            testbed.down()

    def test_a_controller_that_is_killed_goes_on_with_the_vms_that_are_there(self):
        (self.folder / "fleet.yaml").write_text(FLEET)
        testbed = LibvirtTestbed(self.folder / "testbed-2", [self.folder, BIN])
        testbed.up()
        try:
            controller, th = self.started(testbed, "killed", {})
            asked = testbed.machine.spawn(*th, "slice", "create", "x", "--nodes", "2", "--series", "LOCAL", "--for", "1h",
                                          stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            self.wait("the first VM to run", lambda: testbed.domains("--state-running"), 60)
            uuid = testbed.virsh("domuuid", "thunderhead-x-0").stdout
            testbed.machine.run("sh", "-c", "kill -9 $(pidof th-controld)")
            controller.wait(10)
            self.assertEqual(testbed.virsh("domstate", "thunderhead-x-0").stdout.strip(), "running")
            controller, th = self.started(testbed, "killed", {})
            asked.wait(200)
            shown = self.wait("the slice to be ready", lambda: self.ready(testbed, th), 300)
            self.assertEqual([n["name"] for n in shown["nodes"]], ["x-0", "x-1"], "none was replaced")
            self.assertEqual(testbed.virsh("domuuid", "thunderhead-x-0").stdout, uuid, "it is the same one")
            # What dies is found, deleted and replaced on another host, or here, where there is none, told.
            testbed.virsh("destroy", "thunderhead-x-1")
            self.wait("the dead VM to be deleted", lambda: "thunderhead-x-1" not in testbed.domains(), 60)
            testbed.machine.run(*th, "down", capture_output=True, timeout=120)
            controller.wait(60)
            self.assertEqual(testbed.domains(), [])
        finally:
            testbed.down()

    def ready(self, testbed, th):
        done = testbed.machine.run(*th, "--json", "slice", "show", "x", capture_output=True)
        slice_now = json.loads(done.stdout.strip().split("\n")[-1])
        self.assertNotEqual(slice_now["state"], "failed", slice_now)
        return slice_now if slice_now["state"] == "ready" else None

    def wait(self, what, look, seconds):
        end = time.monotonic() + seconds
        while not (value := look()):
            self.assertLess(time.monotonic(), end, f"waited {seconds} s in vain for {what}")
            time.sleep(0.2)
        return value

    def started(self, testbed, name, change):
        """Returns the controller and what calls it from the machine."""
        controller = self.controld(testbed, name, change)
        th = [BIN / "th", "--state", self.folder / name]
        end = time.monotonic() + 20
        while testbed.machine.run(*th, "fleet", check=False, capture_output=True).returncode != 0:
            self.assertTrue(time.monotonic() < end and controller.poll() is None, (self.folder / f"{name}.log").read_text())
            time.sleep(0.1)
        return controller, th

    def copy_of_image(self, name, **files):
        folder = self.folder / f"image-{name}"
        shutil.copytree(self.image, folder)
        for file, content in files.items():
            (folder / file).write_bytes(content)
        return folder

    def controld(self, testbed, name, change):
        cloud = {"kind": "libvirt", "image": self.image, "bridge": BRIDGE, "addresses": ADDRESSES, "memory": "300MiB",
                 "acceleration": "software", **change}
        (self.folder / f"{name}.yaml").write_text("cloud:\n" + "".join(f"  {k}: {v}\n" for k, v in cloud.items()))
        (self.folder / name).mkdir(exist_ok=True)
        with open(self.folder / f"{name}.log", "w") as log:
            return testbed.machine.spawn(BIN / "th-controld", "--state", self.folder / name, "--fleet", self.folder / "fleet.yaml",
                                         "--cloud", self.folder / f"{name}.yaml", "--address", ADDRESS, "--tls", "auto", stdout=log, stderr=log)

    def refused_slice(self, testbed, name, change):
        controller, th = self.started(testbed, name, change)
        try:
            done = testbed.machine.run(*th, "slice", "create", "x", "--nodes", "1", "--series", "LOCAL", "--for", "1h", check=False,
                                       capture_output=True, timeout=300)
            self.assertNotEqual(done.returncode, 0, done.stdout)
            testbed.machine.run(*th, "down", check=False, capture_output=True, timeout=120)
            return done.stdout + done.stderr + (self.folder / f"{name}.log").read_text()
        finally:
            controller.terminate()
            controller.wait(30)


if __name__ == "__main__":
    unittest.main()
