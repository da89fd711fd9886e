"""Accelerate: save_state with automatic checkpoint naming, load_state of the newest one."""

import argparse
import os

import torch
from accelerate import Accelerator
from accelerate.utils import ProjectConfiguration, set_seed
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

parser = argparse.ArgumentParser()
parser.add_argument("--out", required=True)
parser.add_argument("--dropout", type=float, default=0.0)
parser.add_argument("--steps", type=int, default=8)
args = parser.parse_args()

torch.set_num_threads(1)
set_seed(0)
project = ProjectConfiguration(
    project_dir=args.out, automatic_checkpoint_naming=True, total_limit=2
)
accelerator = Accelerator(cpu=True, project_config=project)
model = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Dropout(args.dropout), nn.Linear(32, 1))
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 100)
rows = TensorDataset(torch.randn(128, 16, generator=torch.Generator().manual_seed(1)))
loader = DataLoader(rows, batch_size=8)
model, optimizer, loader, scheduler = accelerator.prepare(model, optimizer, loader, scheduler)


class Progress:
    step = 0

    def state_dict(self):
        return {"step": self.step}

    def load_state_dict(self, state):
        self.step = state["step"]


progress = Progress()
accelerator.register_for_checkpointing(progress)
saved = os.path.join(args.out, "checkpoints")
if os.path.isdir(saved) and os.listdir(saved):
    accelerator.load_state()
    # Names are counted from this number, which load_state leaves at 0.
    accelerator.project_configuration.iteration = progress.step // 2
for (x,) in accelerator.skip_first_batches(loader, progress.step):
    if progress.step == args.steps:
        break
    loss = (model(x) - x.sum(1, keepdim=True)).pow(2).mean()
    optimizer.zero_grad()
    accelerator.backward(loss)
    optimizer.step()
    scheduler.step()
    progress.step += 1
    accelerator.print(f"step {progress.step} loss {loss.item():.6f}", flush=True)
    if progress.step % 2 == 0:
        accelerator.save_state()
accelerator.end_training()
