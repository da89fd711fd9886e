"""kempnerforge.checkpoint in an ordinary loop with FSDP2, a scheduler and a data loader."""

import argparse
import random

import numpy as np
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

from kempnerforge.checkpoint import CheckpointManager, ResumableDataLoader
from kempnerforge.config.schema import AsyncCheckpointMode, CheckpointConfig
from kempnerforge.resilience.elastic import resolve_resume_path

parser = argparse.ArgumentParser()
parser.add_argument("--out", required=True)
parser.add_argument("--mode", choices=list(AsyncCheckpointMode), default="disabled")
parser.add_argument("--steps", type=int, default=8)
args = parser.parse_args()

torch.set_num_threads(1)
random.seed(0)
np.random.seed(0)
dist.init_process_group("cpu:gloo")
rank, world = dist.get_rank(), dist.get_world_size()
torch.manual_seed(0)
model = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Dropout(0.1), nn.Linear(32, 1))
fully_shard(model, mesh=init_device_mesh("cpu", (world,)))
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 100)
torch.manual_seed(10 + rank)
data = TensorDataset(torch.randn(96, 16, generator=torch.Generator().manual_seed(1)))

config = CheckpointConfig(dir=args.out, interval=2, async_mode=AsyncCheckpointMode(args.mode))
manager = CheckpointManager(config, model, optimizer)
step = tokens_seen = 0
path = resolve_resume_path(config.dir)
if path is not None:
    step, tokens_seen, _ = manager.load(path=str(path), scheduler=scheduler)
sampler = DistributedSampler(data, num_replicas=world, rank=rank, seed=0)
loader = ResumableDataLoader(DataLoader(data, batch_size=8, sampler=sampler))
manager.apply_dataloader_state(loader)
while step < args.steps:
    for (x,) in loader:
        loss = (model(x) - x.sum(1, keepdim=True)).pow(2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()
        step += 1
        tokens_seen += x.numel()
        if rank == 0:
            print(f"step {step} loss {loss.item():.6f}", flush=True)
        if config.should_save(step):
            manager.save(step, tokens_seen=tokens_seen, scheduler=scheduler, dataloader=loader)
        if step == args.steps:
            break
manager.wait()
dist.destroy_process_group()
