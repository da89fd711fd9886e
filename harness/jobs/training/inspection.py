"""Builds the checkpoint manager under test once, alone in a process, and asks what it promises."""

from __future__ import annotations

import tempfile
import traceback
from pathlib import Path
from typing import Any

from harness.jobs.training.implementation import Tools
from harness.plan.model import Implementation
from harness.scenario.schema import Checkpoint

_OWN = str(Path(__file__).resolve().parent)
_NEEDED = ("CheckpointConfig", "ShutdownHandler", "resolve_resume_path")
"""The names that every scenario uses beside the manager."""


def inspect(implementation: Implementation) -> dict[str, str | None]:
    """Returns the attribute `promises` of the class, if it has one, or the error of a start.

    Args:
        implementation: The manager, which is imported from the place that it names.
    """
    try:
        tools = Tools(implementation)
        manager = tools.manager
        _build(tools)
    except BaseException as error:  # noqa: BLE001 - whatever it raises is the answer
        return {"error": _describe(error)}
    return {"promises": getattr(manager, "promises", None)}


def _build(tools: Tools) -> None:
    """Find what every training loop uses, and build a manager of a small model on one rank."""
    for name in _NEEDED:
        tools.find(name)
    # Imported here, because one that cannot even be imported is reported without torch.
    import torch
    import torch.distributed as dist

    from harness.jobs.training.checkpoints import build_config

    model: Any = torch.nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(model.parameters())
    with tempfile.TemporaryDirectory() as folder:
        dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=0, world_size=1)
        try:
            config = build_config(Checkpoint(), Path(folder, "checkpoints"), tools)
            tools.manager(config, model, optimizer, process_group=None, pp_rank=None)
        finally:
            dist.destroy_process_group()


def _describe(error: BaseException) -> str:
    """Returns the error with the frames that are not the harness's own, innermost last."""
    frames = [
        one for one in traceback.extract_tb(error.__traceback__) if not _is_ours(one.filename)
    ]
    lines = [f"{one.filename}:{one.lineno}, in {one.name}: {one.line}" for one in frames]
    return "\n".join([f"{type(error).__name__}: {error}", *(f"  {line}" for line in lines)])


def _is_ours(filename: str) -> bool:
    return filename.startswith((_OWN, "<frozen importlib")) or "/importlib/" in filename
