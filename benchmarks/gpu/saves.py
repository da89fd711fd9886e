"""What a save costs one rank whose tensors are on a GPU, in each mode, beside DCP.

The stall is how long the call takes; published, how long until the save can be resumed from. The
floor of a stall is one copy of the rank's bytes from the GPU, into pinned or ordinary memory.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.checkpoint.state_dict import get_state_dict
from torch.distributed.checkpoint.state_dict_saver import save as dcp_save

from kempnerforge.checkpoint import CheckpointManager
from kempnerforge.config.schema import AsyncCheckpointMode, CheckpointConfig

_MB = 1 << 20
_LAYER_MB = 4


def measure(device: str, megabytes: int, repeat: int) -> dict[str, Any]:
    """Medians in milliseconds."""
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        backend = "cpu:gloo,cuda:nccl" if device == "cuda" else "gloo"
        dist.init_process_group(backend, init_method=f"file://{home}/store", rank=0, world_size=1)
        try:
            model, optimizer = _train(device, megabytes)
            found = {"megabytes": megabytes, "copy_ms": _copies(device, megabytes, repeat)}
            for mode in AsyncCheckpointMode:
                found[str(mode.value)] = _ours(model, optimizer, mode, home, repeat)
            found["dcp.save"] = _dcp(model, optimizer, home, repeat)
        finally:
            dist.destroy_process_group()
    return found


def _train(device: str, megabytes: int) -> tuple[nn.Module, torch.optim.Optimizer]:
    """Parameters are a third of the bytes, the moments of AdamW the rest."""
    layers = max(1, megabytes // (3 * _LAYER_MB))
    model = nn.Sequential(*(nn.Linear(1024, 1024, bias=False) for _ in range(layers))).to(device)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(1, 1024, device=device)).sum().backward()
    optimizer.step()
    return model, optimizer


def _copies(device: str, megabytes: int, repeat: int) -> dict[str, float]:
    source = torch.ones(megabytes * _MB, dtype=torch.uint8, device=device)
    kinds = {"ordinary": False} | ({"pinned": True} if device == "cuda" else {})
    found = {}
    for kind, pinned in kinds.items():
        target = torch.empty(source.shape, dtype=torch.uint8, pin_memory=pinned)
        found[kind] = _median(lambda target=target: target.copy_(source), device, repeat)  # type: ignore[misc]
    return found


def _ours(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    mode: AsyncCheckpointMode,
    home: Path,
    repeat: int,
) -> dict[str, float]:
    config = CheckpointConfig(dir=str(home / mode.value), async_mode=mode, keep_last_n=1)
    manager = CheckpointManager(config, model, optimizer)
    stalls, published = [], []
    for step in range(repeat + 1):
        _settle(device_of(model))
        began = time.perf_counter()
        manager.save(step)
        stalls.append(time.perf_counter() - began)
        manager.wait()
        published.append(time.perf_counter() - began)
    # The first one allocates.
    return {"stall_ms": _ms(stalls[1:]), "published_ms": _ms(published[1:])}


def _dcp(
    model: nn.Module, optimizer: torch.optim.Optimizer, home: Path, repeat: int
) -> dict[str, float]:
    states = get_state_dict(model, optimizer)
    state: dict[str, Any] = {"model": states[0], "optimizer": states[1]}
    times = []
    for step in range(repeat):
        _settle(device_of(model))
        began = time.perf_counter()
        dcp_save(state, checkpoint_id=home / f"dcp{step}")
        times.append(time.perf_counter() - began)
    return {"stall_ms": _ms(times)}


def device_of(model: nn.Module) -> str:
    """`cpu` or `cuda`."""
    return next(model.parameters()).device.type


def _settle(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def _median(call: Callable[[], object], device: str, repeat: int) -> float:
    times = []
    for _ in range(repeat):
        _settle(device)
        began = time.perf_counter()
        call()
        _settle(device)
        times.append(time.perf_counter() - began)
    return _ms(times)


def _ms(seconds: list[float]) -> float:
    return round(1000 * statistics.median(seconds), 2)


def tell(found: dict[str, Any]) -> str:
    """One line a size and mode."""
    size = found["megabytes"]
    copies = ", ".join(f"{kind} {ms} ms" for kind, ms in found["copy_ms"].items())
    lines = [f"{size} MB: one copy: {copies}"]
    for name, told in found.items():
        if isinstance(told, dict) and "stall_ms" in told:
            until = f", published after {told['published_ms']} ms" if "published_ms" in told else ""
            lines.append(f"{size} MB: {name}: stall {told['stall_ms']} ms{until}")
    return "\n".join(lines)
