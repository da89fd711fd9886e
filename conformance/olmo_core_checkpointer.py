"""OLMo-core's Checkpointer with FSDP2: save or save_async to a folder a step, load the latest."""

import argparse
import os

import torch
import torch.distributed as dist
from olmo_core.train.checkpoint import Checkpointer
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_state_dict,
    set_state_dict,
)
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

parser = argparse.ArgumentParser()
parser.add_argument("--out", required=True)
parser.add_argument("--asynchronous", action="store_true")
parser.add_argument("--steps", type=int, default=8)
args = parser.parse_args()


class Module:
    """The part of a TrainModule that the Checkpointer calls."""

    options = StateDictOptions(flatten_optimizer_state_dict=True)

    def __init__(self, model, optimizer):
        self.model, self.optimizer = model, optimizer

    def state_dict_to_save(self, *, optim=None):
        model, optimizer = get_state_dict(self.model, self.optimizer, options=self.options)
        return {"model": model, "optim": optimizer}

    def state_dict_to_load(self, metadata, *, optim=None):
        return self.state_dict_to_save()

    def load_state_dict(self, state):
        set_state_dict(
            self.model,
            self.optimizer,
            model_state_dict=state["model"],
            optim_state_dict=state["optim"],
            options=self.options,
        )


torch.set_num_threads(1)
dist.init_process_group("cpu:gloo")
group = dist.new_group(backend="gloo")
rank, world = dist.get_rank(), dist.get_world_size()
torch.manual_seed(0)
model = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 1))
fully_shard(model, mesh=init_device_mesh("cpu", (world,)))
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
module = Module(model, optimizer)
data = torch.randn(64, 16, generator=torch.Generator().manual_seed(1 + rank))
checkpointer = Checkpointer(
    work_dir=args.out, save_overwrite=True, process_group=group if args.asynchronous else None
)
step = 0
found = [None]
if rank == 0 and Checkpointer.contains_checkpoint(args.out):
    found = [Checkpointer.latest_checkpoint(args.out)]
dist.broadcast_object_list(found)
if found[0] is not None:
    step = checkpointer.load(found[0], module, load_trainer_state=True)["step"]
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
        place = os.path.join(args.out, Checkpointer.checkpoint_dirname(step))
        if args.asynchronous:
            if pending is not None:
                pending.result()
            pending = checkpointer.save_async(place, module, {"step": step})
        else:
            checkpointer.save(place, module, {"step": step})
if pending is not None:
    pending.result()
dist.destroy_process_group()
