"""torch.distributed.checkpoint with FSDP2: dcp.save or dcp.async_save to a folder a step.

Resumes from the newest folder that has a `.metadata` file, which DCP writes last.
"""

import argparse
import os
import re

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import nn
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

parser = argparse.ArgumentParser()
parser.add_argument("--out", required=True)
parser.add_argument("--asynchronous", action="store_true")
parser.add_argument("--steps", type=int, default=8)
args = parser.parse_args()

torch.set_num_threads(1)
dist.init_process_group("cpu:gloo")
# The background thread of async_save must not share a group with the training.
group = dist.new_group(backend="gloo") if args.asynchronous else None
rank, world = dist.get_rank(), dist.get_world_size()
torch.manual_seed(0)
model = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 1))
fully_shard(model, mesh=init_device_mesh("cpu", (world,)))
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
data = torch.randn(64, 16, generator=torch.Generator().manual_seed(1 + rank))


def newest(root):
    names = os.listdir(root) if os.path.isdir(root) else []
    steps = [int(name[5:]) for name in names if re.fullmatch(r"step-\d+", name)]
    whole = [n for n in steps if os.path.exists(os.path.join(root, f"step-{n}", ".metadata"))]
    return max(whole, default=None)


step = 0
found = [newest(args.out)]
dist.broadcast_object_list(found)
if found[0] is not None:
    model_state, optimizer_state = get_state_dict(model, optimizer)
    state = {"model": model_state, "optimizer": optimizer_state, "step": 0}
    dcp.load(state, checkpoint_id=os.path.join(args.out, f"step-{found[0]}"))
    set_state_dict(
        model,
        optimizer,
        model_state_dict=state["model"],
        optim_state_dict=state["optimizer"],
    )
    step = state["step"]
pending = None
while step < args.steps:
    first = step * 8 % 64
    x = data[first : first + 8]
    loss = (model(x) - x.sum(1, keepdim=True)).pow(2).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    step += 1
    if rank == 0:
        print(f"step {step} loss {loss.item():.6f}", flush=True)
    if step % 2 == 0:
        model_state, optimizer_state = get_state_dict(model, optimizer)
        state = {"model": model_state, "optimizer": optimizer_state, "step": step}
        place = os.path.join(args.out, f"step-{step}")
        if args.asynchronous:
            if pending is not None:
                pending.result()
            pending = dcp.async_save(state, checkpoint_id=place, process_group=group)
        else:
            dcp.save(state, checkpoint_id=place)
if pending is not None:
    pending.result()
dist.destroy_process_group()
