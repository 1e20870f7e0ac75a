"""A libvirt of its own for tests: virtlogd and libvirtd in a machine (machines.py) with a bridge, so a libvirt that already runs is not
touched, and nothing of it is left when the machine ends: no VM, no bridge, no socket. Needs root; installs what it needs."""

import subprocess
import sys
import time
from pathlib import Path

import machines

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ["qemu-system-x86", "libvirt-daemon", "libvirt-daemon-driver-qemu", "libvirt-clients", "iproute2"]
BRIDGE = "br0"
ADDRESS = machines.SUBNET + ".1"
ADDRESSES = f"{machines.SUBNET}.100-{machines.SUBNET}.199/24"

# Everything that libvirt keeps lies in memory. /sys is that of the new network; it has no cgroups, so libvirt does without.
PREPARE = """set -e
umount -R -l /sys
mount -t sysfs sysfs /sys
mount -t tmpfs tmpfs /run
for folder in /etc/libvirt /var/lib/libvirt /var/log/libvirt /var/cache/libvirt; do
  mkdir -p "$folder"
  mount -t tmpfs tmpfs "$folder"
done
# The user that Debian's libvirt-daemon-system would make; the drivers look for it even if they do not use it.
for file in passwd group; do cp /etc/$file /run/$file; mount --bind /run/$file /etc/$file; done
getent group libvirt-qemu >/dev/null || echo libvirt-qemu:x:64055: >> /run/group
getent passwd libvirt-qemu >/dev/null || echo libvirt-qemu:x:64055:64055::/var/lib/libvirt:/usr/sbin/nologin >> /run/passwd
cat > /etc/libvirt/qemu.conf <<END
user = "root"
group = "root"
security_driver = "none"
namespaces = []
END
cat > /etc/libvirt/libvirtd.conf <<END
auth_unix_rw = "none"
END
"""


class LibvirtTestbed:
    """machine: where the controller has to run; bridge BRIDGE with ADDRESS; folder: for logs, seen inside as outside."""

    def __init__(self, folder, visible=()):
        self.folder = Path(folder).resolve()
        self.visible = [self.folder, ROOT, *visible]
        self.machine = None

    def up(self):
        subprocess.run([ROOT / "tools/install.sh", *PACKAGES], check=True)
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "hosts").write_text("127.0.0.1 localhost hub\n")
        self.machine = machines.Machine.boot("hub", machines.BRIDGE, str(self.folder / "hosts"), self.visible)
        try:
            self.machine.run("bash", "-c", PREPARE)
            self.daemons = [self.daemon(name) for name in ("virtlogd", "libvirtd")]
            self.wait()
        except BaseException:
            for log in ("virtlogd.log", "libvirtd.log"):
                if (self.folder / log).exists():
                    print(f"--- {log}", *(self.folder / log).read_text().splitlines()[-10:], sep="\n", file=sys.stderr)
            self.down()
            raise
        return self

    def daemon(self, name):
        with open(self.folder / f"{name}.log", "ab") as log:
            return self.machine.spawn(name, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def wait(self, seconds=60):
        end = time.monotonic() + seconds
        while self.virsh("version", check=False).returncode != 0:
            if time.monotonic() > end or any(d.poll() is not None for d in self.daemons):
                raise RuntimeError(f"libvirtd does not answer; see {self.folder}/libvirtd.log")
            time.sleep(0.2)

    def virsh(self, *argv, check=True):
        return self.machine.run("virsh", "-c", "qemu:///system", *argv, check=check, capture_output=True)

    def domains(self, which="--all"):
        """Every VM that libvirt knows, running or not."""
        return self.virsh("list", which, "--name").stdout.split()

    def down(self):
        if self.machine:
            self.machine.power_off()
            self.machine = None
