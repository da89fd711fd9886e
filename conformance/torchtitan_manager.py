"""torchtitan's CheckpointManager with FSDP2: save every two steps, keep 2, load the newest."""

import argparse
import os

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torchtitan.components.checkpoint import CheckpointManager

parser = argparse.ArgumentParser()
parser.add_argument("--out", required=True)
parser.add_argument("--mode", choices=["disabled", "async"], default="disabled")
parser.add_argument("--steps", type=int, default=8)
args = parser.parse_args()


class Optimizer:
    """Its state by parameter names, as torchtitan's own container saves it."""

    options = StateDictOptions(flatten_optimizer_state_dict=True)

    def __init__(self, model, optimizer):
        self.model, self.optimizer = model, optimizer

    def state_dict(self):
        return get_optimizer_state_dict(self.model, self.optimizer, options=self.options)

    def load_state_dict(self, state):
        set_optimizer_state_dict(self.model, self.optimizer, state, options=self.options)


class TrainState:
    step = 0

    def state_dict(self):
        return {"step": torch.tensor(self.step)}

    def load_state_dict(self, state):
        self.step = int(state["step"])


class Batches:
    """The place in the data is the step."""

    def __init__(self, rank):
        self.rows = torch.randn(64, 16, generator=torch.Generator().manual_seed(1 + rank))
        self.place = 0

    def next(self):
        first, self.place = self.place, (self.place + 8) % 64
        return self.rows[first : first + 8]

    def state_dict(self):
        return {"place": torch.tensor(self.place)}

    def load_state_dict(self, state):
        self.place = int(state["place"])


torch.set_num_threads(1)
dist.init_process_group("cpu:gloo")
rank, world = dist.get_rank(), dist.get_world_size()
torch.manual_seed(0)
model = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 1))
fully_shard(model, mesh=init_device_mesh("cpu", (world,)))
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 100)
state, batches = TrainState(), Batches(rank)
config = CheckpointManager.Config(
    enable=True,
    folder=os.path.basename(args.out),
    interval=2,
    keep_latest_k=2,
    last_save_model_only=False,
    async_mode=args.mode,
)
manager = CheckpointManager(
    config,
    dataloader=batches,
    model_parts=[model],
    optimizers=Optimizer(model, optimizer),
    lr_schedulers=scheduler,
    states={"train_state": state},
    sd_adapter=None,
    base_folder=os.path.dirname(args.out),
)
manager.load()
while state.step < args.steps:
    x = batches.next()
    loss = (model(x) - x.sum(1, keepdim=True)).pow(2).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    scheduler.step()
    state.step += 1
    if rank == 0:
        print(f"step {state.step} loss {loss.item():.6f}", flush=True)
    manager.save(state.step, last_step=state.step == args.steps)
manager.maybe_wait_for_saving()
manager.close()
dist.destroy_process_group()
