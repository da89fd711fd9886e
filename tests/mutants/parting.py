"""Managers that come through the death of a rank, and not through its silence or its distance."""

from __future__ import annotations

import pickle
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from kempnerforge.checkpoint.manager import CheckpointManager
from kempnerforge.checkpoint.protocol.rounds import Votes
from kempnerforge.checkpoint.runtime.collective import Collective
from kempnerforge.resilience.elastic import resolve_resume_path as resolve_resume_path
from tests.harness.simple_manager import SimpleManager

_BLOCK_BYTES = 1 << 23
_PATIENCE_S = 7.0
"""On the slow link of the scenario a block takes 8.4 s, elsewhere some milliseconds."""


class VotesByFile(CheckpointManager):
    """A vote that the network loses is read from a file; the answer to it has no such way."""

    def __init__(self, config: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(config, *args, **kwargs)
        self._collective = _Twice(self._collective, Path(config.dir).parent / "votes")


class _Twice:
    """Hands in every vote over the network and in a file."""

    def __init__(self, inner: Collective, folder: Path) -> None:
        self.rank, self.world_size = inner.rank, inner.world_size
        self._inner, self._folder, self._round = inner, folder, 0
        folder.mkdir(exist_ok=True)

    def renew(self, *given: Any) -> None:
        self._inner.renew(*given)

    def collect(self, value: object, *, timeout_s: float) -> Votes[Any] | None:
        self._round += 1
        part = self._vote(self.rank).with_suffix(".part")
        part.write_bytes(pickle.dumps(value))
        part.rename(self._vote(self.rank))
        votes = self._inner.collect(value, timeout_s=timeout_s)
        if votes is None:
            return None
        there = [one.rank for one in votes.lost if self._vote(one.rank).exists()]
        values = list(votes.values)
        for rank in there:
            values[rank] = pickle.loads(self._vote(rank).read_bytes())  # noqa: S301 - a rank of this job
        lost = tuple(one for one in votes.lost if one.rank not in there)
        return replace(votes, values=tuple(values), lost=lost)

    def answer(self, replies: Sequence[object] | None, *, timeout_s: float) -> Any:
        return self._inner.answer(replies, timeout_s=timeout_s)

    def _vote(self, rank: int) -> Path:
        return self._folder / f"{self._round}-{rank}"


class TakesFarForDead(SimpleManager):
    """Every save begins with a large block from each rank; who needs long for it is given up."""

    def save(self, step: int, *args: Any, **kwargs: Any) -> None:
        began = time.monotonic()
        mine = torch.zeros(_BLOCK_BYTES, dtype=torch.uint8)
        dist.all_gather([torch.empty_like(mine) for _ in range(dist.get_world_size())], mine)
        slow = torch.tensor(time.monotonic() - began)
        dist.all_reduce(slow, op=dist.ReduceOp.MAX)
        if slow > _PATIENCE_S:
            raise RuntimeError(f"a rank needed {slow:.1f} s for a block: it is taken for dead")
        super().save(step, *args, **kwargs)
