"""A script as one would start it with torchrun: ranks meet at MASTER_ADDR:MASTER_PORT and add up their numbers."""

import os
import socket
import time

rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
address = (os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]))
assert 0 <= int(os.environ["LOCAL_RANK"]) < int(os.environ["LOCAL_WORLD_SIZE"])
assert int(os.environ["SLURM_PROCID"]) == rank and int(os.environ["SLURM_NTASKS"]) == world
print(f"rank {rank} of {world}", flush=True)

if rank == 0:
    server = socket.create_server(address)
    server.settimeout(30)
    peers = [server.accept()[0] for _ in range(world - 1)]
    total = sum(int(p.recv(16)) for p in peers)
    for p in peers:
        p.sendall(str(total).encode())
else:
    for _ in range(300):
        try:
            peer = socket.create_connection(address, 30)
            break
        except ConnectionRefusedError:
            time.sleep(0.1)
    peer.sendall(str(rank).encode())
    total = int(peer.recv(16))
print(f"sum of ranks {total}", flush=True)
