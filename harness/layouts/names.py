"""The documented names of a checkpoint directory, and how to read them."""

from __future__ import annotations

import re

LATEST = "latest"
METADATA = "metadata.json"
TRAIN_STATE = "train_state.pt"
DCP_METADATA = ".metadata"

_CHECKPOINT = re.compile(r"^step_(\d+)$")
_STAGE = re.compile(r"^pp(\d+)$")
_STEP_ANYWHERE = re.compile(r"step_(\d+)")


def checkpoint_step(name: str) -> int | None:
    """Returns the step in a checkpoint's name; None for every other name."""
    found = _CHECKPOINT.match(name)
    return int(found.group(1)) if found and name == found.group(0) else None


def stage_name(stage: int) -> str:
    """Returns the name of a pipeline stage's directory inside a checkpoint."""
    return f"pp{stage}"


def stage_number(name: str) -> int | None:
    """Returns the pipeline stage of a directory inside a checkpoint; None for other names."""
    found = _STAGE.match(name)
    return int(found.group(1)) if found else None


def named_step(name: str) -> int | None:
    """Returns the step that occurs anywhere in a name, as in a staging directory's."""
    found = _STEP_ANYWHERE.search(name)
    return int(found.group(1)) if found else None
