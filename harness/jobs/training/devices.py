"""Chooses where a rank computes: the CPU, a GPU of its own, or a GPU shared with other ranks.

- Every rank sees all GPUs that the job was given, as under `torchrun`, and takes the one of its
  number. So the generators of all GPUs are part of its state.
- If each rank of a run has its own GPU, they communicate over NCCL.
- With fewer GPUs, NCCL refuses two ranks on one, which it identifies by host and bus. `gloo` passes
  tensors through host memory instead; it cannot send them from rank to rank, which pipeline stages
  need. `nccl_hostid` gives each rank its own host id, so that NCCL takes them for ranks on many
  hosts and uses sockets of the loopback device.
- A rank on the CPU sees no GPU.
- A rank that exceeds its part of a GPU gets an out-of-memory error of its own.

CUDA does not survive a fork, so nothing touches it before this (`harness/jobs/untouched.py`).
Loader processes are forked by a rank that has a CUDA context, as PyTorch does by default; they read
numpy arrays and touch no tensor on a GPU.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import torch

from harness.plan.model import LEASED, Gpus, Workload

_CUDA_BACKENDS = "cpu:gloo,cuda:nccl"
"""Checkpointers also communicate about tensors on the host."""


def take_device(workload: Workload, rank: int, size: int, directory: Path) -> tuple[str, str]:
    """Returns the device of a rank, and the backend of its process groups."""
    gpus = workload.gpus
    if workload.device == "cpu":
        # Compiling a module touches a GPU, and a touched one has a generator.
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
        return "cpu", "gloo"
    if gpus is None:
        raise RuntimeError("device: cuda, but this job was given no GPU")
    os.environ.update(_environment(gpus, rank, size, directory))
    device, backend = choose_gpu(gpus, rank, size)
    torch.cuda.set_device(device)
    torch.cuda.set_per_process_memory_fraction(gpus.memory, device)
    torch.use_deterministic_algorithms(mode=True)
    return device, backend


def choose_gpu(gpus: Gpus, rank: int, size: int) -> tuple[str, str]:
    """Returns the GPU that a rank of a run takes, and the backend that it uses."""
    shared = size > gpus.count and gpus.sharing == "gloo"
    return f"cuda:{rank % gpus.count}", "gloo" if shared else _CUDA_BACKENDS


def _environment(gpus: Gpus, rank: int, size: int, directory: Path) -> dict[str, str]:
    """Returns variables that CUDA, cuBLAS and NCCL read when they start."""
    names = json.loads((directory / LEASED).read_bytes())
    # Runs must be bitwise equal; cuBLAS needs the variable before its first kernel.
    found = {"CUDA_VISIBLE_DEVICES": ",".join(names), "CUBLAS_WORKSPACE_CONFIG": ":4096:8"}
    if size > gpus.count and gpus.sharing == "nccl_hostid":
        host = os.environ.get("NCCL_SOCKET_IFNAME", "lo")
        found |= {"NCCL_HOSTID": f"rank{rank}", "NCCL_SOCKET_IFNAME": host, "NCCL_IB_DISABLE": "1"}
    return found
