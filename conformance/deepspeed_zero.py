"""DeepSpeed on CPUs: save_checkpoint every two steps, load_checkpoint of the latest tag."""

import argparse
import os

import deepspeed
import torch
from torch import nn

parser = argparse.ArgumentParser()
parser.add_argument("--out", required=True)
parser.add_argument("--stage", type=int, default=0)
parser.add_argument("--steps", type=int, default=8)
args = parser.parse_args()

torch.set_num_threads(1)
deepspeed.init_distributed("gloo")
torch.manual_seed(0)
model = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 1))
config = {
    "train_micro_batch_size_per_gpu": 8,
    "optimizer": {"type": "AdamW", "params": {"lr": 1e-2, "torch_adam": True}},
    "zero_optimization": {"stage": args.stage},
}
engine, *_ = deepspeed.initialize(model=model, model_parameters=model.parameters(), config=config)
rank = engine.global_rank
data = torch.randn(64, 16, generator=torch.Generator().manual_seed(1 + rank))
step = 0
if os.path.exists(os.path.join(args.out, "latest")):
    path, client = engine.load_checkpoint(args.out)
    assert path is not None, "the latest checkpoint could not be loaded"
    step = client["step"]
while step < args.steps:
    first = step * 8 % 64
    x = data[first : first + 8]
    loss = (engine(x) - x.sum(1, keepdim=True)).pow(2).mean()
    engine.backward(loss)
    engine.step()
    step += 1
    if rank == 0:
        print(f"step {step} loss {loss.item():.6f}", flush=True)
    if step % 2 == 0:
        engine.save_checkpoint(args.out, client_state={"step": step})
