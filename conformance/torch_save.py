"""torch.save of everything, generators included, every two steps; resumes from the file."""

import argparse
import os

import torch
from torch import nn


def save_in_place(state, path):
    torch.save(state, path)


def save_by_rename(state, path):
    torch.save(state, f"{path}.tmp")
    os.replace(f"{path}.tmp", path)


def save_by_synced_rename(state, path):
    with open(f"{path}.tmp", "wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(f"{path}.tmp", path)
    directory = os.open(os.path.dirname(path), os.O_RDONLY)
    os.fsync(directory)
    os.close(directory)


SAVES = {"in_place": save_in_place, "rename": save_by_rename, "synced": save_by_synced_rename}

parser = argparse.ArgumentParser()
parser.add_argument("--out", required=True)
parser.add_argument("--save", choices=SAVES, required=True)
parser.add_argument("--steps", type=int, default=8)
args = parser.parse_args()

os.makedirs(args.out, exist_ok=True)
path = os.path.join(args.out, "checkpoint.pt")
torch.set_num_threads(1)
torch.manual_seed(0)
model = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Dropout(0.1), nn.Linear(32, 1))
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 100)
data = torch.randn(64, 16, generator=torch.Generator().manual_seed(1))
step = 0
if os.path.exists(path):
    found = torch.load(path)
    model.load_state_dict(found["model"])
    optimizer.load_state_dict(found["optimizer"])
    scheduler.load_state_dict(found["scheduler"])
    torch.set_rng_state(found["rng"])
    step = found["step"]
while step < args.steps:
    first = step * 8 % 64
    x = data[first : first + 8]
    loss = (model(x) - x.sum(1, keepdim=True)).pow(2).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    scheduler.step()
    step += 1
    print(f"step {step} loss {loss.item():.6f}", flush=True)
    if step % 2 == 0:
        state = {
            "model": model.state_dict(),
            "optimizer": optimizer.state_dict(),
            "scheduler": scheduler.state_dict(),
            "rng": torch.get_rng_state(),
            "step": step,
        }
        SAVES[args.save](state, path)
