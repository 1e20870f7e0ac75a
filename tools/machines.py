"""Machines for tests: each a network, uts, mount and pid namespace of its own, joined by a bridge in that of the first one.
They are processes and nothing else: when the process of a machine ends, so do all in it, its interfaces and its mounts, and
nothing has a name in the system. Needs root."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

SUBNET = "10.77.0"

# Its own /tmp and /dev/shm, as programs that meet by a path there would meet across machines; {visible} stay as they are.
# Process 1 reaps what its parents left.
BOOT = """set -e
hostname {name}
if [ -n '{hosts}' ]; then mount --bind '{hosts}' /etc/hosts; fi
mount --rbind /tmp /mnt
mount -t tmpfs tmpfs /tmp
for folder in {visible}; do
  mkdir -p "$folder"
  mount --bind "/mnt/${{folder#/tmp/}}" "$folder"
done
umount -R /mnt
mount -t tmpfs tmpfs /dev/shm
ip link set lo up
{network}
echo up
exec >/dev/null
trap 'exit 0' TERM
while :; do sleep 3600 & wait || true; done
"""
BRIDGE = f"ip link add br0 type bridge; ip addr add {SUBNET}.1/24 dev br0; ip link set br0 up"


def _run(*command):
    subprocess.run([str(c) for c in command], check=True)


def start_time(pid):
    """None when there is no such process: a pid may be given again."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else int(fields[19])


class Machine:
    """`pid` is of its keeper, outside of it; `init` is its process 1 as it is seen from outside."""

    def __init__(self, name, pid, init, started):
        self.name, self.pid, self.init, self.started = name, pid, init, started

    @classmethod
    def boot(cls, name, network="", hosts="", visible=()):
        inside_tmp = [str(Path(v).resolve()) for v in visible]
        script = BOOT.format(name=name, hosts=hosts, network=network,
                             visible=" ".join(f"'{v}'" for v in inside_tmp if v.startswith("/tmp/")))
        keeper = subprocess.Popen(["unshare", "--net", "--uts", "--mount", "--ipc", "--pid", "--fork", "--kill-child", "--mount-proc",
                                   "bash", "-c", script], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                                  start_new_session=True)
        if keeper.stdout.readline() != b"up\n":
            keeper.kill()
            keeper.wait()
            raise RuntimeError(f"machine {name} did not come up (root is needed for namespaces)")
        keeper.stdout.close()
        init = int(Path(f"/proc/{keeper.pid}/task/{keeper.pid}/children").read_text().split()[0])
        machine = cls(name, keeper.pid, init, start_time(keeper.pid))
        machine.keeper = keeper
        return machine

    def plug_into(self, hub, address):
        """A cable to the bridge of `hub`."""
        _run("nsenter", "-t", hub.init, "-n", "ip", "link", "add", f"to-{self.name}", "type", "veth", "peer", "name", "eth0",
             "netns", self.init)
        _run("nsenter", "-t", hub.init, "-n", "ip", "link", "set", f"to-{self.name}", "master", "br0", "up")
        _run("nsenter", "-t", self.init, "-n", "ip", "addr", "add", f"{address}/24", "dev", "eth0")
        _run("nsenter", "-t", self.init, "-n", "ip", "link", "set", "eth0", "up")

    def command(self, *argv):
        """What runs argv in the machine."""
        return ["nsenter", "-t", str(self.init), "--net", "--uts", "--mount", "--root", "--ipc", "--pid", "--wd=" + os.getcwd(),
                *[str(a) for a in argv]]

    def run(self, *argv, check=True, **options):
        return subprocess.run(self.command(*argv), check=check, text=True, **options)

    def spawn(self, *argv, **options):
        return subprocess.Popen(self.command(*argv), start_new_session=True, **options)

    def is_up(self):
        return start_time(self.pid) == self.started

    def power_off(self):
        """At once, as a plug that is pulled."""
        if self.is_up():
            os.kill(self.pid, signal.SIGKILL)  # process 1 goes with its keeper, and all in the machine with it
        if hasattr(self, "keeper"):
            self.keeper.wait()
        end = time.monotonic() + 10
        while start_time(self.init) is not None and time.monotonic() < end:
            time.sleep(0.02)

    def to_json(self):
        return {"name": self.name, "pid": self.pid, "init": self.init, "started": self.started}


def boot_all(names, hosts_file, visible=()):
    """names[0] is the hub, at .1; the others at .11 and on. Returns the machines by name."""
    addresses = {name: f"{SUBNET}.{10 + i if i else 1}" for i, name in enumerate(names)}
    Path(hosts_file).write_text("127.0.0.1 localhost\n" + "".join(f"{a} {n}\n" for n, a in addresses.items()))
    machines = {}
    try:
        for name in names:
            machines[name] = Machine.boot(name, BRIDGE if not machines else "", str(Path(hosts_file).resolve()), visible)
            if name != names[0]:
                machines[name].plug_into(machines[names[0]], addresses[name])
    except BaseException:
        for machine in machines.values():
            machine.power_off()
        raise
    return machines


if __name__ == "__main__":
    sys.exit(__doc__)
