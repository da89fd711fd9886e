"""A probe for training scripts: three calls that say what was resumed, trained and saved.

    from harness.probe import resumed, saved, step

    resumed(checkpoint_step)                   # once, after loading; None for a fresh start
    for n in ...:
        step(n, loss=loss, samples=indices)    # after each training step, on every rank
        saved(n)                               # once the checkpoint of step n is durable

It does nothing unless the harness runs the script (`job: {probe: true}`). This file needs only the
standard library, and can be copied beside a script.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

VARIABLE = "KEMPNERFORGE_PROBE"
"""The folder in which each rank writes its records."""
_RANKS = ("RANK", "SLURM_PROCID", "OMPI_COMM_WORLD_RANK", "PMI_RANK")

_descriptors: dict[tuple[int, str], int] = {}
_saves: list[int] = []


def resumed(step: int | None, *, state: Mapping[str, Any] | None = None) -> None:
    """Say from which checkpoint this rank goes on: the step of it, or None for a fresh start.

    `state` has tensors, arrays or other values by name, as after that step; they are compared bit
    for bit with what the uninterrupted run had then.
    """
    _write(
        {
            "kind": "resumed",
            "source": None,
            "step": step,
            "tokens_seen": 0,
            "epoch": 0,
            "state": _state(state),
            "frozen": [],
        }
    )


def step(
    step: int,
    *,
    loss: Any = None,
    samples: Iterable[int] = (),
    state: Mapping[str, Any] | None = None,
) -> None:
    """Say that this rank has finished a training step, from 1.

    `loss` is a number, or anything that `float` takes; `samples` are the indices of its batch.
    """
    _write(
        {
            "kind": "stepped",
            "step": step,
            "epoch": 0,
            "loss": None if loss is None else float(loss).hex(),
            "lr": [],
            "samples": [int(one) for one in samples],
            "frozen": [],
            "trained": 1,
            "state": _state(state),
        }
    )


def saved(step: int) -> None:
    """Say that the checkpoint of a step is durable: from now on a resume must find it, or a newer
    one."""
    _saves.append(step)
    for kind in ("save_began", "save_returned"):
        _write({"kind": kind, "step": step, "ordinal": len(_saves)})


def _write(record: dict[str, Any]) -> None:
    folder = os.environ.get(VARIABLE)
    if not folder:
        return
    named = (os.environ.get(one, "") for one in _RANKS)
    rank = next((one for one in named if one.isdecimal()), "0")
    key = (os.getpid(), rank)  # a forked child opens its own
    if key not in _descriptors:
        path = Path(folder, f"rank{rank}.jsonl")
        _descriptors[key] = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.write(_descriptors[key], json.dumps(record).encode() + b"\n")


def _state(values: Mapping[str, Any] | None) -> dict[str, dict[str, str]]:
    params = {name: _digest(value) for name, value in (values or {}).items()}
    return {"params": params, "moments": {}, "rng": {}}


def _digest(value: Any) -> str:
    if hasattr(value, "full_tensor"):
        value = value.to_local()
    if hasattr(value, "detach"):
        torch = sys.modules["torch"]
        plain = value.detach().cpu().contiguous()
        kind = f"{plain.dtype}{tuple(plain.shape)}"
        raw = plain.flatten().view(torch.uint8).numpy().tobytes() if plain.numel() else b""
    elif hasattr(value, "tobytes") and hasattr(value, "dtype"):
        kind, raw = f"{value.dtype}{tuple(value.shape)}", value.tobytes()
    else:
        kind, raw = "text", repr(value).encode()
    return f"{kind} {hashlib.blake2b(raw, digest_size=16).hexdigest()}"
