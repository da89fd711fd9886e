"""Maps a captured job to the smaller job of its scenario.

A scenario trains from step 0 on a few ranks in at most two pipeline stages, whatever the captured
job had. Steps keep their order; the differences are reported as text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import gcd

from kempnerforge.checkpoint.format import layout
from kempnerforge.checkpoint.protocol.catalog import Entry, plain_stages
from kempnerforge.checkpoint.protocol.storage import Storage
from kempnerforge.cli.cautious import walk

_MOST_STAGES, _MOST_SHARDS = 2, 2
"""Enough to reproduce every defect between ranks; each further rank costs half a second."""
_FEW_RANKS = 4
"""A job with no more ranks than this is rebuilt with all of them."""
_LAST_SMALL_STEP = 16
_INTERVAL = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Arranged:
    """The scenario's job, and how the captured one maps to it."""

    interval: int
    steps: dict[str, int]
    """Maps the name of a directory found to its step in the scenario."""
    pp: int
    dp_shard: int
    smaller: tuple[str, ...]
    """The differences from the captured job, as text."""

    def path(self, entry: str, name: str) -> str:
        """Returns the scenario's path for a file that was found; ranks and stages wrap around."""
        folder, _, base = name.rpartition("/")
        stage, shard = layout.parse_stage(folder), layout.parse_shard(base)
        rank = layout.parse_rank_file(name)
        if stage is not None:
            folder = layout.format_stage(stage % self.pp)
        if shard is not None and shard >= self.dp_shard:
            base = f"__{shard % self.dp_shard}_0.distcp"
        inside = f"{folder}/{base}" if folder else base
        if rank is not None:
            inside = layout.format_rank_file(rank % (self.pp * self.dp_shard))
        return f"{layout.format_step(self.steps[entry])}/{inside}"


def arrange(entries: Sequence[Entry], storage: Storage) -> Arranged:
    """Returns a job that makes checkpoints like these; ``entries`` is not empty."""
    found = {entry.path.name: entry.step or 0 for entry in entries}
    steps, interval = _steps(found)
    smaller = [] if steps == found else [_describe_steps(found, steps)]
    pp, dp_shard = _world(entries, storage)
    if pp * dp_shard > _FEW_RANKS or pp > _MOST_STAGES:
        asked = f"the job had {pp * dp_shard} ranks in {pp} stages"
        pp, dp_shard = min(pp, _MOST_STAGES), min(dp_shard, _MOST_SHARDS)
        smaller.append(f"{asked}; here are {pp * dp_shard} ranks in {pp}")
    return Arranged(
        interval=interval, steps=steps, pp=pp, dp_shard=dp_shard, smaller=tuple(smaller)
    )


def _steps(found: dict[str, int]) -> tuple[dict[str, int], int]:
    """Keeps the steps if a small job would leave exactly these; otherwise uses 2, 4, 6, ..."""
    ordered = sorted(found.values())
    spacing = gcd(*ordered)
    even = ordered[0] and ordered == list(range(ordered[0], ordered[-1] + 1, spacing))
    if even and ordered[-1] <= _LAST_SMALL_STEP:
        return found, spacing
    names = sorted(found, key=lambda name: found[name])
    return {name: _INTERVAL * number for number, name in enumerate(names, 1)}, _INTERVAL


def _describe_steps(found: dict[str, int], steps: dict[str, int]) -> str:
    names = sorted(found, key=lambda name: found[name])
    return ", ".join(f"{name} is step_{steps[name]}" for name in names) + " here"


def _world(entries: Sequence[Entry], storage: Storage) -> tuple[int, int]:
    """Returns stages and ranks per stage, from the newest manifest or else from shard names."""
    newest = max(
        entries, key=lambda entry: (not entry.is_questionable, entry.sequence, entry.step or 0)
    )
    if newest.is_questionable:
        return 1, 1
    if newest.manifest is not None:
        stages = max(1, len(newest.manifest.stages or ()))
        return stages, max(1, newest.manifest.world_size // stages)
    stages = max(1, len(plain_stages(newest.path, storage) or ()))
    shards = [layout.parse_shard(name.rpartition("/")[2]) for name in walk(newest.path).files]
    return stages, max((shard for shard in shards if shard is not None), default=0) + 1
