#!/usr/bin/env python3
"""Runs a command that starts MPI ranks, such as mpirun, on the nodes of a gang, with Open MPI and without ssh.

  gang.py COMMAND...      in every rank of a gang (docs/protocols.md: RANK, GROUP_RANK, MASTER_ADDR, ...)

Rank 0 runs COMMAND, with a host file of one slot a rank; the others start Open MPI's daemon on their nodes when mpirun asks for it, and
end with rank 0. Rank 0 listens on MASTER_PORT: who may connect to that port is trusted, as with other rendezvous."""

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time

CONNECT_SECONDS = 120


def master():
    return os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])


def connect():
    end = time.monotonic() + CONNECT_SECONDS
    while True:
        try:
            return socket.create_connection(master(), timeout=10)
        except OSError as error:
            if time.monotonic() > end:
                raise SystemExit(f"gang.py: rank 0 at {':'.join(map(str, master()))} is out of reach after {CONNECT_SECONDS} s: {error}")
            time.sleep(0.1)


def lines_of(connection):
    """Objects, one a line, until the other side is gone."""
    connection.settimeout(None)
    with connection.makefile("r") as stream:
        for line in stream:
            yield json.loads(line)


def send(connection, value):
    connection.sendall((json.dumps(value) + "\n").encode())


def host_name(node):
    return f"th-node-{node}"


class Hub:
    """Rank 0's: knows who stands on which node, and hands mpirun's commands to them."""

    def __init__(self, world):
        self.slots = {int(os.environ["GROUP_RANK"]): 1}
        self.leaders, self.ranks, self.waiting = {}, [], {}
        self.missing, self.lock, self.complete = world - 1, threading.Lock(), threading.Event()
        if self.missing == 0:
            self.complete.set()
        # All addresses: MASTER_ADDR may be a name or an address that the machine has only outside.
        self.server = socket.create_server(("", master()[1]))
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            connection, _ = self.server.accept()
            threading.Thread(target=self.serve, args=(connection,), daemon=True).start()

    def serve(self, connection):
        try:
            for word in lines_of(connection):
                if "rank" in word:
                    self.join(connection, word["node"], word["local_rank"])
                elif "host" in word:
                    self.ask(connection, word)
                elif "exit" in word:
                    send(self.waiting.pop(word["id"]), {"exit": word["exit"]})
        except (OSError, ValueError, KeyError) as error:
            print(f"gang.py: a connection is dropped: {error}", file=sys.stderr)

    def join(self, connection, node, local_rank):
        with self.lock:
            self.slots[node] = self.slots.get(node, 0) + 1
            self.ranks.append(connection)
            if local_rank == 0:
                self.leaders[node] = connection
            self.missing -= 1
            if self.missing == 0:
                self.complete.set()

    def ask(self, connection, word):
        node = int(word["host"].removeprefix("th-node-"))
        with self.lock:
            self.waiting[len(self.waiting) + 1000 * node] = connection
            send(self.leaders[node], {"run": word["run"], "id": len(self.waiting) - 1 + 1000 * node})

    def end(self):
        for connection in self.ranks:
            try:
                send(connection, {"end": True})
            except OSError:
                pass


def write_hosts(hub, path):
    with open(path, "w") as hosts:
        for node in sorted(hub.slots):
            hosts.write(f"{'localhost' if node == 0 else host_name(node)} slots={hub.slots[node]}\n")


def open_mpi(hosts, agent_file, nodes):
    """Open MPI 4's settings (ompi_info --all), as environment."""
    settings = {"plm": "rsh", "plm_rsh_agent": f"{sys.executable} {agent_file} --agent", "plm_rsh_no_tree_spawn": "1",
                "ras": "^slurm", "ess": "^slurm", "schizo": "^slurm", "orte_default_hostfile": hosts, "orte_leave_session_attached": "1"}
    if master()[0].startswith("127."):  # all nodes are of one machine
        settings |= {"oob_tcp_if_include": "lo", "btl_tcp_if_include": "lo", "hwloc_base_binding_policy": "none"}
        if nodes > 1:  # whose names for shared memory would be the same
            settings["btl"] = "self,tcp"
    return {"OMPI_MCA_" + name: value for name, value in settings.items()} | {
        "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}


def without_slurm(env):
    """The gang has Slurm's variables for programs that read them; Open MPI would take them for a Slurm that it can ask."""
    return {name: value for name, value in env.items() if not name.startswith("SLURM_")}


def first(command):
    hub = Hub(int(os.environ["WORLD_SIZE"]))
    if not hub.complete.wait(CONNECT_SECONDS):
        raise SystemExit(f"gang.py: {hub.missing} ranks have not come after {CONNECT_SECONDS} s")
    try:
        with tempfile.TemporaryDirectory(prefix="th-gang-") as folder:
            # A copy: mpirun closes the descriptor by which a job may reach its folder.
            agent_file, hosts = shutil.copy(__file__, folder), os.path.join(folder, "hosts")
            write_hosts(hub, hosts)
            status = subprocess.run(command, env={**without_slurm(os.environ), **open_mpi(hosts, agent_file, len(hub.slots))}).returncode
    except OSError as error:
        print(f"gang.py: {command[0]}: {error.strerror}; is it installed on the nodes?", file=sys.stderr)
        status = 127
    finally:
        hub.end()
    return status if status >= 0 else 128 - status


def other():
    connection = connect()
    send(connection, {"rank": int(os.environ["RANK"]), "node": int(os.environ["GROUP_RANK"]),
                      "local_rank": int(os.environ["LOCAL_RANK"])})
    for word in lines_of(connection):
        if word.get("end"):
            return 0
        threading.Thread(target=run_here, args=(connection, word), daemon=True).start()
    print("gang.py: rank 0 is gone", file=sys.stderr)
    return 1


def run_here(connection, word):
    status = subprocess.run(["sh", "-c", word["run"]], env=without_slurm(os.environ), stdin=subprocess.DEVNULL).returncode
    send(connection, {"exit": status, "id": word["id"]})


def agent(host, *command):
    """What mpirun calls in place of ssh."""
    connection = connect()
    send(connection, {"host": host, "run": " ".join(command)})
    for word in lines_of(connection):
        return word["exit"]
    return 1


def main(argv):
    if not argv:
        raise SystemExit(__doc__)
    missing = [name for name in ("RANK", "WORLD_SIZE", "GROUP_RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
               if name not in os.environ]
    if missing:
        raise SystemExit(f"gang.py: {missing[0]} is not set; it runs in the ranks of a gang, as th submit starts them")
    if argv[0] == "--agent":
        return agent(*argv[1:])
    return first(argv) if os.environ["RANK"] == "0" else other()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
