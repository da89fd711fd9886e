"""A save into a bare directory: shards and their ``.metadata``, which is written last.

A shard is written under a hidden name of its save and renamed once it is whole. A writer that was
given up can wake up long after a later save: the rename is then refused, and what it writes has no
name that a reader looks at. The next save removes it.
"""

import logging
from array import array
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from torch.distributed.checkpoint.planner import SavePlan

from kempnerforge.checkpoint.bulk.shards import (
    StagedShards,
    encode_metadata,
    merge_plans,
    write_shards,
)
from kempnerforge.checkpoint.errors import RankFailure
from kempnerforge.checkpoint.format import layout
from kempnerforge.checkpoint.protocol.effects import Runtime
from kempnerforge.checkpoint.protocol.save_messages import Assignment, Proposal, Published, Report
from kempnerforge.checkpoint.protocol.saving import Words
from kempnerforge.checkpoint.protocol.steps import Steps
from kempnerforge.checkpoint.protocol.visibility import await_made
from kempnerforge.checkpoint.runtime.stale import again_if_stale
from kempnerforge.checkpoint.state.rank_values import unequal_names

__all__ = ["DirectorySave"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class DirectorySave:
    """A :class:`~protocol.saving.Destination` without staging directory or manifest."""

    HIDDEN: ClassVar[str] = ".saving-"

    runtime: Runtime
    path: Path
    shards: StagedShards | RankFailure
    save_id: str
    step: int | None = None

    @property
    def words(self) -> Words:
        doing = f"saving to {self.path}"
        doubt = "whether it is complete is unknown"
        return Words(saving=doing, opening=doing, writing=doing, completing=doing, doubt=doubt)

    def propose(self, *, timeout_s: float) -> Steps[Proposal]:
        del timeout_s
        yield from ()
        if isinstance(self.shards, RankFailure):
            return Proposal(failure=self.shards)
        return Proposal(plan=(self.shards.planned, self.shards.checksums()))

    def open(self, proposals: Sequence[Proposal]) -> tuple["_Merged", list[Assignment]]:
        storage = self.runtime.storage
        storage.make_durable_directory(self.path)
        storage.unlink(self.path / layout.SHARD_METADATA)
        planned = dict(enumerate(proposal.plan[0] for proposal in proposals))
        sums = {rank: array("Q", one.plan[1]) for rank, one in enumerate(proposals)}
        self._warn_of(unequal_names(planned, sums))
        plans, metadata = merge_plans([one.plan for one in planned.values()])
        return _Merged(plans, metadata), [
            Assignment(save_id=self.save_id, plan=plan) for plan in plans
        ]

    def _warn_of(self, differing: Collection[str]) -> None:
        if differing:
            logger.warning(
                "%s: %d values differ by rank under one name, and one rank's is kept, as in DCP; "
                "the first: %s; give each rank's value its own name, or use CheckpointManager",
                self.path,
                len(differing),
                min(differing),
            )

    def write(self, assignment: Assignment) -> Report:
        assert isinstance(self.shards, StagedShards)
        self.runtime.storage.make_durable_directory(self.path)
        await_made(self.path, self.runtime)
        hidden = f"{self.HIDDEN}{self.save_id}-"
        write = partial(write_shards, self.path, assignment.plan, self.shards, prefix=hidden)
        written = again_if_stale(write, self.path)
        for name in written.files:
            self._remove_given_up(name)
            self.runtime.storage.rename(self.path / f"{hidden}{name}", self.path / name)
        return Report(shards=written, files=written.files)

    def _remove_given_up(self, name: str) -> None:
        """Removes what writers of earlier saves left of this shard."""
        mine = f"{self.HIDDEN}{self.save_id}-{name}"
        for found in self.runtime.storage.names(self.path):
            if found.startswith(self.HIDDEN) and found.endswith(f"-{name}") and found != mine:
                self.runtime.storage.unlink(self.path / found)

    def complete(
        self, opened: "_Merged", reports: Sequence[Report]
    ) -> tuple[Published, tuple[Path, ...]]:
        storage = self.runtime.storage
        storage.sync_directory(self.path)
        written = (report.shards for report in reports)
        pairs: Any = zip(opened.plans, written, strict=True)
        data = encode_metadata(opened.metadata, pairs, save_id=self.save_id)
        storage.write(self.path / layout.SHARD_METADATA, data)
        storage.sync_directory(self.path)
        return Published(save_id=self.save_id), ()

    def withdraw(self, opened: "_Merged") -> tuple[Path, ...]:
        del opened  # a directory without `.metadata` is torn, and can be saved into again
        return ()

    def remove(self, paths: tuple[Path, ...], *, failed: bool) -> None:
        """Does nothing: there is nothing to remove."""


class _Merged(NamedTuple):
    """The plan of each rank, and the metadata of all."""

    plans: list[SavePlan]
    metadata: Any
