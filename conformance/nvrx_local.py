"""nvidia-resiliency-ext: LocalCheckpointManager, one rank, without replication.

BasicTensorAwareStateDict wants its tensors on a GPU; two of its methods are replaced, so that they
stay on the CPU.
"""

import argparse

import torch
import torch.distributed as dist
from nvidia_resiliency_ext.checkpointing.local.basic_state_dict import BasicTensorAwareStateDict
from nvidia_resiliency_ext.checkpointing.local.ckpt_managers.local_manager import (
    LocalCheckpointManager,
)
from torch import nn

parser = argparse.ArgumentParser()
parser.add_argument("--out", required=True)
parser.add_argument("--steps", type=int, default=8)
args = parser.parse_args()


def hold(self, state_dict):
    self.state_dict = state_dict
    self._is_hollow = False


BasicTensorAwareStateDict.__init__ = hold
BasicTensorAwareStateDict.restore_tensor_device = lambda self, non_blocking=True: None

torch.set_num_threads(1)
dist.init_process_group("cpu:gloo")
torch.manual_seed(0)
model = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 1))
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
data = torch.randn(64, 16, generator=torch.Generator().manual_seed(1))
manager = LocalCheckpointManager(args.out)
step = 0
if manager.find_latest() != -1:
    found, _ = manager.load()
    model.load_state_dict(found.state_dict["model"])
    optimizer.load_state_dict(found.state_dict["optimizer"])
    step = found.state_dict["step"]
while step < args.steps:
    first = step * 8 % 64
    x = data[first : first + 8]
    loss = (model(x) - x.sum(1, keepdim=True)).pow(2).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    step += 1
    print(f"step {step} loss {loss.item():.6f}", flush=True)
    if step % 2 == 0:
        state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step}
        manager.save(BasicTensorAwareStateDict(state), step)
dist.destroy_process_group()
