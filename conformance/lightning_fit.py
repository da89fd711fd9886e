"""Lightning: ModelCheckpoint every two steps with save_last, resumes with ckpt_path="last".

By default two steps are an epoch and epochs are counted; with --count-steps, steps are counted;
with --mid-epoch all steps belong to one epoch.
"""

import argparse
import os
import tempfile

import lightning
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

parser = argparse.ArgumentParser()
parser.add_argument("--out", required=True)
parser.add_argument("--temporary", help="folder for temporary files")
parser.add_argument("--count-steps", action="store_true")
parser.add_argument("--mid-epoch", action="store_true")
parser.add_argument("--steps", type=int, default=8)
args = parser.parse_args()
if args.temporary:
    os.makedirs(args.temporary, exist_ok=True)
    tempfile.tempdir = args.temporary


class Regression(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.model = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 1))

    def training_step(self, batch, _):
        (x,) = batch
        return (self.model(x) - x.sum(1, keepdim=True)).pow(2).mean()

    def configure_optimizers(self):
        optimizer = torch.optim.AdamW(self.parameters(), lr=1e-2)
        scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 100)
        return [optimizer], [{"scheduler": scheduler, "interval": "step"}]


class PrintSteps(Callback):
    def on_train_batch_end(self, trainer, module, outputs, batch, place):
        print(f"step {trainer.global_step} loss {outputs['loss'].item():.6f}", flush=True)


torch.set_num_threads(1)
lightning.seed_everything(0)
count = 128 if args.mid_epoch else 16
rows = TensorDataset(torch.randn(count, 16, generator=torch.Generator().manual_seed(1)))
checkpoints = ModelCheckpoint(
    dirpath=args.out,
    every_n_train_steps=2 if args.mid_epoch else None,
    every_n_epochs=None if args.mid_epoch else 1,
    save_top_k=2,
    monitor="step",
    mode="max",
    save_last=True,
)
trainer = lightning.Trainer(
    accelerator="cpu",
    devices=1,
    max_steps=args.steps if args.count_steps or args.mid_epoch else -1,
    max_epochs=args.steps // 2,
    callbacks=[PrintSteps(), checkpoints],
    logger=False,
    enable_progress_bar=False,
    enable_model_summary=False,
)
trainer.fit(Regression(), DataLoader(rows, batch_size=8), ckpt_path="last")
