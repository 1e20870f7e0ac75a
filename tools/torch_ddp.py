"""A rank of torchrun: distributed data parallel over Gloo on the processor. All ranks must end with the same weights."""

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

dist.init_process_group("gloo")
torch.manual_seed(dist.get_rank())  # other data on each rank
torch.set_num_threads(1)
model = DistributedDataParallel(torch.nn.Linear(16, 1))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
want = torch.arange(16.0).reshape(16, 1) / 16
for step in range(100):
    x = torch.randn(32, 16)
    loss = ((model(x) - x @ want) ** 2).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
weights = [torch.zeros(1, 16) for _ in range(dist.get_world_size())]
dist.all_gather(weights, model.module.weight.detach())
same = all(torch.equal(w, weights[0]) for w in weights)
if dist.get_rank() == 0:
    print(f"torch: {dist.get_world_size()} ranks, loss {loss.item():.6f}, the same weights on all: {same}", flush=True)
dist.destroy_process_group()
raise SystemExit(0 if same and loss.item() < 0.01 else 1)
