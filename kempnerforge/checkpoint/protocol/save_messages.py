"""The messages that the ranks of one save exchange; see :mod:`saving`."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from kempnerforge.checkpoint.errors import RankFailure
from kempnerforge.checkpoint.format.manifest import FileRecord
from kempnerforge.checkpoint.protocol.bulk import Bulk, WrittenFiles

__all__ = ["Assignment", "Proposal", "Published", "Report", "SaveRequest", "StagedState"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StagedState:
    """Everything that one rank contributes, detached from training."""

    bulk: Bulk
    rank_file: Callable[[Collection[str]], bytes]
    """Returns the content of this rank's file, with its values of these keys of the train state."""
    train_state: bytes
    """The common state; rank 0 writes it, and the others write values that differ."""
    meshes: tuple[Mapping[str, Any], ...] = ()
    digests: Mapping[str, int] = field(default_factory=dict)
    """Digests of the values in the train state that may differ by rank; empty with one rank."""
    has_own_values: bool = False
    """Whether the rank's file contains more than a reader of format 1 would look for."""


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

    save_id: str
    step: int | None = None
    """None for a bare directory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """A rank's proposal: the data that it would write."""

    step: int | None = None
    stage: int | None = None
    plan: Any = None
    """The result of :meth:`Bulk.propose`."""
    meshes: tuple[Mapping[str, Any], ...] = ()
    digests: Mapping[str, int] = field(default_factory=dict)
    """See :attr:`StagedState.digests`."""
    has_own_values: bool = False
    """See :attr:`StagedState.has_own_values`."""
    failure: RankFailure | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """A rank's assignment: the data that it has to write."""

    save_id: str
    plan: Any
    """The result of :meth:`MergedPlans.assign`."""
    stages: tuple[int, ...] | None = None
    differing: frozenset[str] = frozenset()
    """Keys of the train state whose values each rank writes itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """A rank's report: the files that it has written."""

    shards: WrittenFiles | None
    files: Mapping[str, FileRecord]
    """The files, including shards, by path relative to the checkpoint."""
    failure: RankFailure | None = None
