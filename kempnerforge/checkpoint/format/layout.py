"""Names on disk: formats and parses them.

::

    {dir}/step_12/                      a committed checkpoint
    {dir}/step_12/pp1/                  the shards of pipeline stage 1 (without stages: in step_12/)
    {dir}/step_12/ranks/rank_00003.pt   state of rank 3 alone: its generators, its dataloader
    {dir}/step_12/ranks/buffers_00003.pt  its buffers, if they differ by rank (format 1)
    {dir}/latest                        relative symlink to the newest checkpoint
    {dir}/.staging-step_12-<save id>    a save in progress, or abandoned by a dead run
    {dir}/.replaced-step_12-<save id>   an older version of step 12 while it is being replaced;
                                        ``latest`` can name it or the new one for a moment
    {dir}/.trash-step_12-<save id>      a checkpoint that is being deleted
    {dir}/.latest-<save id>             a new ``latest`` before it is renamed into place

Parsing is anchored: a name that does not match exactly is foreign and is left alone.
"""

import re
from dataclasses import dataclass
from enum import StrEnum

__all__ = [
    "LATEST",
    "MANIFEST",
    "METADATA",
    "RANKS_DIR",
    "SHARD_METADATA",
    "TRAIN_STATE",
    "Leftover",
    "LeftoverKind",
    "format_buffers_file",
    "format_latest_link",
    "format_leftover",
    "format_rank_file",
    "format_stage",
    "format_step",
    "is_leftover",
    "parse_latest_link",
    "parse_leftover",
    "parse_rank_file",
    "parse_shard",
    "parse_stage",
    "parse_step",
    "step_of",
]

LATEST = "latest"
MANIFEST = "manifest.json"
METADATA = "metadata.json"
TRAIN_STATE = "train_state.pt"
SHARD_METADATA = ".metadata"
RANKS_DIR = "ranks"

# Only canonical decimals: step_007 or step_٣ would name the same step as another directory.
_NUMBER = r"(0|[1-9][0-9]*)"
_SAVE_ID = r"([0-9a-f]{16})"
_STEP = re.compile(rf"step_{_NUMBER}", re.ASCII)
_STAGE = re.compile(rf"pp{_NUMBER}", re.ASCII)
_SHARD = re.compile(rf"__{_NUMBER}_{_NUMBER}\.distcp", re.ASCII)
_RANK_FILE = re.compile(r"(?:rank|buffers)_([0-9]{5,})\.pt", re.ASCII)
_LEFTOVER = re.compile(rf"\.(staging|replaced|trash)-step_{_NUMBER}-{_SAVE_ID}", re.ASCII)
_LATEST_LINK = re.compile(rf"\.latest-{_SAVE_ID}", re.ASCII)


class LeftoverKind(StrEnum):
    """The purpose of a hidden directory."""

    staging = "staging"
    replaced = "replaced"
    trash = "trash"


@dataclass(frozen=True, slots=True, kw_only=True)
class Leftover:
    """The parsed name of a directory that is not yet, or no longer, a checkpoint."""

    kind: LeftoverKind
    step: int
    save_id: str


def format_step(step: int) -> str:
    """Returns ``step_12``; the step must not be negative."""
    if step < 0:
        raise ValueError(f"a step must not be negative, found {step}")
    return f"step_{step}"


def parse_step(name: str) -> int | None:
    """Returns the step in the name of a checkpoint directory, or None for a foreign name."""
    match = _STEP.fullmatch(name)
    return int(match[1]) if match else None


def format_stage(pp_rank: int) -> str:
    """Returns ``pp1``, the sub-directory of a pipeline stage."""
    return f"pp{pp_rank}"


def parse_stage(name: str) -> int | None:
    """Returns the pipeline stage that a sub-directory belongs to, or None."""
    match = _STAGE.fullmatch(name)
    return int(match[1]) if match else None


def format_rank_file(rank: int) -> str:
    """Returns ``ranks/rank_00003.pt``, relative to the checkpoint."""
    return f"{RANKS_DIR}/rank_{rank:05d}.pt"


def format_buffers_file(rank: int) -> str:
    """Returns ``ranks/buffers_00003.pt``, relative to the checkpoint."""
    return f"{RANKS_DIR}/buffers_{rank:05d}.pt"


def parse_rank_file(relative: str) -> int | None:
    """Returns the rank that a file such as ``ranks/rank_00003.pt`` belongs to, or None."""
    folder, _, name = relative.partition("/")
    match = _RANK_FILE.fullmatch(name) if folder == RANKS_DIR else None
    if match is None:
        return None
    rank = int(match[1])
    return rank if relative in (format_rank_file(rank), format_buffers_file(rank)) else None


def parse_shard(name: str) -> int | None:
    """Returns the writer of a shard such as ``__1_0.distcp``, counted within its stage, or None."""
    match = _SHARD.fullmatch(name)
    return int(match[1]) if match else None


def format_leftover(leftover: Leftover) -> str:
    """``.staging-step_12-00c0ffee00c0ffee``."""
    return f".{leftover.kind}-{format_step(leftover.step)}-{leftover.save_id}"


def parse_leftover(name: str) -> Leftover | None:
    """Parses the name of one of the package's hidden directories; None for a foreign name."""
    match = _LEFTOVER.fullmatch(name)
    if match is None:
        return None
    return Leftover(kind=LeftoverKind(match[1]), step=int(match[2]), save_id=match[3])


def is_leftover(name: str) -> bool:
    """Whether a name is one of the package's hidden names."""
    if not name.startswith("."):  # the common case, decided fast
        return False
    return parse_leftover(name) is not None or parse_latest_link(name) is not None


def step_of(name: str) -> int | None:
    """Returns the step that a directory holds, under a checkpoint's name or a hidden one."""
    leftover = parse_leftover(name)
    return parse_step(name) if leftover is None else leftover.step


def format_latest_link(save_id: str) -> str:
    """Returns the name of a new ``latest`` until it is renamed into place."""
    return f".latest-{save_id}"


def parse_latest_link(name: str) -> str | None:
    """Returns the id of the save whose ``latest`` was never renamed into place, or None."""
    match = _LATEST_LINK.fullmatch(name)
    return match[1] if match else None
