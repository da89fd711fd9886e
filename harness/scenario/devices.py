"""Finds the GPUs that a job could use here, without importing torch, which costs seconds."""

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
"""How ranks that share a GPU communicate: over gloo, which passes tensors through host memory, or
over NCCL, to which each rank pretends to be a host of its own."""

AUTO = "auto"
"""gloo if its collectives suffice, since it measured faster; otherwise nccl_hostid."""

RANKS_PER_GPU = 8
"""As many as on the CPU. Each has a CUDA context of about 0.5 GB, besides its own data."""


def count_gpus() -> int:
    """Counts the GPUs that the driver shows, that nothing hides, and that this torch can use."""
    return len(usable_gpus())


@cache
def usable_gpus() -> tuple[str, ...]:
    """Returns the names of those GPUs, as in `CUDA_VISIBLE_DEVICES`."""
    return not_hidden(gpus_of_the_driver()) if _torch_may_use_gpus() else ()


def _torch_may_use_gpus() -> bool:
    """Returns False for the CPU build, which says so in the local part of its version."""
    try:
        return not importlib.metadata.version("torch").endswith("+cpu")
    except importlib.metadata.PackageNotFoundError:
        return False


def gpus_of_the_driver(root: Path = Path("/")) -> int:
    """Counts the GPUs of this machine or container; `root` is where its file system begins."""
    listed = root / "proc/driver/nvidia/gpus"
    if listed.is_dir():
        # The list can name GPUs of the host that were not given to the container.
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
    """Returns the names of the present GPUs that the environment lets a process see."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is None:
        return tuple(str(number) for number in range(present))
    names = [name.strip() for name in chosen.split(",")]
    # CUDA ignores everything from the first name on that is no device.
    usable = names[: names.index("-1")] if "-1" in names else names
    return tuple(name for name in usable if name)[:present]
