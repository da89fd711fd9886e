"""A checkpoint offered for loading, as rank 0 sends it and as each rank opens it.

An offer is the same for all ranks and is packed once. It contains the compressed manifest, because
a rank that read the manifest itself could see an older version of a replaced step. Each rank
derives its verification partition from it, so partitions need not be sent.
"""

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kempnerforge.checkpoint.format import layout, manifest
from kempnerforge.checkpoint.format.manifest import FileRecord, Manifest
from kempnerforge.checkpoint.protocol.verification import VerifyPolicy

__all__ = ["Choice", "LoadCandidate", "LoadProposal"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The checkpoint that all ranks load."""

    path: Path
    manifest: Manifest | None
    """None for a plain checkpoint, written by another program."""
    passed_over: tuple[str, ...] = ()
    """Why newer candidates were not chosen."""
    damaged: frozenset[str] = frozenset()
    """Save ids of the committed ones among them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadCandidate:
    """A checkpoint that may be chosen, as one rank examines it."""

    choice: Choice
    partition: Mapping[str, FileRecord]
    """This rank's verification partition; the partitions of all ranks cover every file."""
    openings: tuple[Any, ...]
    """Each rank's opening message, indexed by rank."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadProposal:
    """A candidate, as it is sent to all ranks."""

    path: Path
    sealed: bytes | None
    """The encoded manifest, compressed; None for a checkpoint without one."""
    passed_over: tuple[str, ...]
    damaged: frozenset[str]
    verify: VerifyPolicy
    openings: tuple[Any, ...] = ()

    @staticmethod
    def of(choice: Choice, *, verify: VerifyPolicy) -> "LoadProposal":
        """Returns the offer of ``choice``; the caller adds the ranks' opening messages."""
        found = choice.manifest
        return LoadProposal(
            path=choice.path,
            sealed=None if found is None else zlib.compress(manifest.encode(found), level=1),
            passed_over=choice.passed_over,
            damaged=choice.damaged,
            verify=verify,
        )

    def open(self, *, rank: int, world_size: int) -> LoadCandidate:
        """Returns the candidate as this rank examines it."""
        found = None
        if self.sealed is not None:
            found = manifest.decode(zlib.decompress(self.sealed), where=str(self.path))
        asked = found is not None and self.verify is VerifyPolicy.full
        return LoadCandidate(
            choice=Choice(
                path=self.path,
                manifest=found,
                passed_over=self.passed_over,
                damaged=self.damaged,
            ),
            partition=_partition_of(found, rank=rank, world_size=world_size)
            if found and asked
            else {},
            openings=self.openings,
        )


def _partition_of(found: Manifest, *, rank: int, world_size: int) -> dict[str, FileRecord]:
    """Returns the files that one of ``world_size`` ranks verifies; together they verify all."""
    peers = _ranks_by_stage(found)
    partition = {}
    for number, (name, record) in enumerate(sorted(found.files.items())):
        writer = layout.parse_rank_file(name)
        if writer is None:
            writer = _writer_of_shard(name, peers)
        if (number if writer is None else writer) % world_size == rank:
            partition[name] = record
    return partition


def _ranks_by_stage(found: Manifest) -> dict[int, list[int]]:
    stages = found.layout.get("stage_of_rank")
    peers: dict[int, list[int]] = {}
    for rank, stage in enumerate(stages if type(stages) is list else []):
        if type(stage) is int:
            peers.setdefault(stage, []).append(rank)
    return peers


def _writer_of_shard(name: str, peers: dict[int, list[int]]) -> int | None:
    """Returns the rank that wrote ``__1_0.distcp`` or ``pp1/__1_0.distcp``; else None."""
    folder, _, file = name.rpartition("/")
    position = layout.parse_shard(file)
    if position is None or not folder:
        return position
    stage = layout.parse_stage(folder)
    ranks = peers.get(stage, []) if stage is not None else []
    return ranks[position] if position < len(ranks) else None
