"""torchsnapshot: Snapshot.take to a folder a step, restores the newest one with its metadata."""

import argparse
import os
import re

import torch
from torch import nn
from torchsnapshot import RNGState, Snapshot, StateDict

parser = argparse.ArgumentParser()
parser.add_argument("--out", required=True)
parser.add_argument("--steps", type=int, default=8)
args = parser.parse_args()


def newest(root):
    """A snapshot is complete when it has `.snapshot_metadata`, which is written last."""
    names = os.listdir(root) if os.path.isdir(root) else []
    steps = [int(name[5:]) for name in names if re.fullmatch(r"step-\d+", name)]
    whole = (s for s in steps if os.path.exists(f"{root}/step-{s}/.snapshot_metadata"))
    return max(whole, default=None)


torch.set_num_threads(1)
torch.manual_seed(0)
model = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Dropout(0.1), nn.Linear(32, 1))
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
data = torch.randn(64, 16, generator=torch.Generator().manual_seed(1))
progress = StateDict(step=0)
state = {"model": model, "optimizer": optimizer, "progress": progress, "rng": RNGState()}
found = newest(args.out)
if found is not None:
    Snapshot(f"{args.out}/step-{found}").restore(state)
while progress["step"] < args.steps:
    first = progress["step"] * 8 % 64
    x = data[first : first + 8]
    loss = (model(x) - x.sum(1, keepdim=True)).pow(2).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    progress["step"] += 1
    print(f"step {progress['step']} loss {loss.item():.6f}", flush=True)
    if progress["step"] % 2 == 0:
        Snapshot.take(f"{args.out}/step-{progress['step']}", state)
