"""Which GPUs a job could use here, found without importing torch, which costs seconds."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import subprocess
from functools import cache
from pathlib import Path

_PATIENCE_S = 20
"""nvidia-smi takes about 1 s on a healthy machine and never returns on some broken ones."""


SHARING = ("gloo", "nccl_hostid")
"""How ranks talk that have one GPU between them: over gloo, which takes tensors through the memory
of the host, or over NCCL, to which each rank pretends to be a host of its own."""

AUTO = "auto"
"""gloo where its collectives suffice, since it was found the faster one; else nccl_hostid."""

RANKS_PER_GPU = 8
"""As many as on the CPU. Each has a CUDA context of about 0.5 GB besides what it computes with."""


def count_gpus() -> int:
    """How many GPUs the driver shows, nothing hides, and this torch can use."""
    return len(usable_gpus())


@cache
def usable_gpus() -> tuple[str, ...]:
    """Those GPUs, as `CUDA_VISIBLE_DEVICES` names them."""
    return not_hidden(gpus_of_the_driver()) if _torch_may_use_gpus() else ()


def _torch_may_use_gpus() -> bool:
    """False for the CPU build, which carries its kind as the local part of its version."""
    try:
        return not importlib.metadata.version("torch").endswith("+cpu")
    except importlib.metadata.PackageNotFoundError:
        return False


def gpus_of_the_driver(root: Path = Path("/")) -> int:
    """The GPUs that this machine or container has; `root` is where its file system begins."""
    listed = root / "proc/driver/nvidia/gpus"
    if listed.is_dir():
        # The list can name GPUs of the host that a container was not given.
        return min(len(list(listed.iterdir())), len(list(root.glob("dev/nvidia[0-9]*"))))
    return _gpus_of_nvidia_smi()


def _gpus_of_nvidia_smi() -> int:
    command = shutil.which("nvidia-smi")
    if command is None:
        return 0
    try:
        listing = subprocess.run(
            [command, "-L"], capture_output=True, text=True, timeout=_PATIENCE_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return 0
    return sum(line.startswith("GPU ") for line in listing.stdout.splitlines())


def not_hidden(present: int) -> tuple[str, ...]:
    """The names of the GPUs that the environment lets a process see, of those that are present."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is None:
        return tuple(str(number) for number in range(present))
    names = [name.strip() for name in chosen.split(",")]
    # CUDA ignores everything from the first name that stands for no device.
    usable = names[: names.index("-1")] if "-1" in names else names
    return tuple(name for name in usable if name)[:present]
