"""Where a rank computes: the CPU, a GPU of its own, or a GPU that it shares with other ranks.

- Every rank sees all GPUs that the job was given, as under `torchrun`, and takes the one of its
  number. So the generators of all of them are a part of its state.
- With a GPU for each rank of a run they talk over NCCL.
- With fewer, NCCL refuses two ranks on one GPU, which it knows by the host and the bus. `gloo`
  takes tensors through the memory of the host instead; it cannot send them from rank to rank, which
  pipeline stages need. `nccl_hostid` gives each rank a host id of its own, so that NCCL takes them
  for ranks on many hosts and talks over sockets of the loopback device.
- A rank on the CPU sees no GPU.
- A rank that fills more than its part of a GPU gets an out-of-memory error of its own.

CUDA does not survive a fork, so nothing before this may touch it (`harness/jobs/untouched.py`).
Loader processes are forked by a rank that has a CUDA context, as those of PyTorch are by default;
they read numpy arrays and touch no tensor on a GPU.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import torch

from harness.plan.model import LEASED, Gpus, Workload

_CUDA_BACKENDS = "cpu:gloo,cuda:nccl"
"""Checkpointers talk about tensors on the host, too."""


def take_device(workload: Workload, rank: int, size: int, directory: Path) -> tuple[str, str]:
    """The device of a rank, and the backend of its process groups."""
    gpus = workload.gpus
    if workload.device == "cpu":
        # Compiling a module touches a GPU, and a touched one has a generator.
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
        return "cpu", "gloo"
    if gpus is None:
        raise RuntimeError("device: cuda, and no GPU has been given to this job")
    os.environ.update(_environment(gpus, rank, size, directory))
    device, backend = choose_gpu(gpus, rank, size)
    torch.cuda.set_device(device)
    torch.cuda.set_per_process_memory_fraction(gpus.memory, device)
    torch.use_deterministic_algorithms(mode=True)
    return device, backend


def choose_gpu(gpus: Gpus, rank: int, size: int) -> tuple[str, str]:
    """Which of the GPUs a rank of a run takes, and over what it talks."""
    shared = size > gpus.count and gpus.sharing == "gloo"
    return f"cuda:{rank % gpus.count}", "gloo" if shared else _CUDA_BACKENDS


def _environment(gpus: Gpus, rank: int, size: int, directory: Path) -> dict[str, str]:
    """Variables that CUDA, cuBLAS and NCCL read when they start."""
    names = json.loads((directory / LEASED).read_bytes())
    # Bitwise equal runs are the point; cuBLAS asks for the variable before its first kernel.
    found = {"CUDA_VISIBLE_DEVICES": ",".join(names), "CUBLAS_WORKSPACE_CONFIG": ":4096:8"}
    if size > gpus.count and gpus.sharing == "nccl_hostid":
        host = os.environ.get("NCCL_SOCKET_IFNAME", "lo")
        found |= {"NCCL_HOSTID": f"rank{rank}", "NCCL_SOCKET_IFNAME": host, "NCCL_IB_DISABLE": "1"}
    return found
