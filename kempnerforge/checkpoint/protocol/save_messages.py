"""The messages that the ranks of one save exchange; see :mod:`saving`."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from kempnerforge.checkpoint.bulk.plans import Assigned, Proposed
from kempnerforge.checkpoint.bulk.shards import StagedShards, WrittenShards
from kempnerforge.checkpoint.errors import RankFailure
from kempnerforge.checkpoint.format.manifest import FileRecord

__all__ = ["Assignment", "Proposal", "Published", "Report", "SaveRequest", "StagedState"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StagedState:
    """Everything that one rank contributes, detached from training."""

    shards: StagedShards
    rank_state: bytes
    train_state: bytes
    """Common state; rank 0 writes it, and the others what differs."""
    meshes: tuple[Mapping[str, Any], ...]
    digests: Mapping[str, int] = field(default_factory=dict)
    """Of the values in the train state that may differ by rank; empty where there is one."""
    has_own_values: bool = False
    """Whether ``rank_state`` has more than a reader of format 1 would look for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SaveRequest:
    """The arguments of a save; equal on all ranks."""

    step: int
    tokens_seen: int
    metadata: Mapping[str, Any]
    """Content of ``metadata.json``."""
    parent: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """The result of a save."""

    step: int
    save_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """A rank's proposal: the data that it would write."""

    step: int
    stage: int | None
    plan: Proposed | None = None
    meshes: tuple[Mapping[str, Any], ...] = ()
    digests: Mapping[str, int] = field(default_factory=dict)
    """As :attr:`StagedState.digests`."""
    has_own_values: bool = False
    """As :attr:`StagedState.has_own_values`."""
    failure: RankFailure | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """A rank's assignment: the data that it has to write."""

    save_id: str
    plan: Assigned
    stages: tuple[int, ...] | None
    differing: frozenset[str]
    """Values in the train state that each rank writes for itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """A rank's report: the files that it has written."""

    shards: WrittenShards | None
    files: Mapping[str, FileRecord]
    """By path relative to the checkpoint, shards included."""
    failure: RankFailure | None
