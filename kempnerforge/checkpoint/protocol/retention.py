"""Which checkpoints may go: a pure decision over what is committed.

Checkpoints are ordered by the sequence of their commits, never by step, and those that the newest
one does not descend from (:mod:`lineage`) count as older than all others: after a rollback it is
the abandoned ones that go, and what training goes on from stays. Torn directories, foreign names
and plain checkpoints without a manifest are never handed to this module: they neither count nor
go. A checkpoint that this job found damaged when it resumed does not count, so no sound one goes
for its sake; it goes when all that count are newer, or are descended from where it is not.
"""

from collections.abc import Callable, Iterable
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass

from kempnerforge.checkpoint.settings import CheckpointSettings

__all__ = ["Kept", "RetentionPolicy"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """A committed checkpoint, as far as retention is concerned."""

    step: int
    sequence: int
    damaged: bool = False
    aside: bool = False
    """Whether the newest checkpoint does not descend from it."""


def _no_milestone(step: int) -> bool:
    del step
    return False


@dataclass(frozen=True, slots=True, kw_only=True)
class RetentionPolicy:
    """Keep the newest ``keep_last_n`` checkpoints and every milestone."""

    keep_last_n: int
    """0 or less keeps everything."""
    is_milestone: Callable[[int], bool] = _no_milestone
    """Steps that are never deleted and do not count."""

    @classmethod
    def of(cls, config: CheckpointSettings) -> "RetentionPolicy":
        """The policy of a configuration as it is now; later changes do not reach the policy."""
        with suppress(Exception):  # of somebody's own class, then: it is asked later
            config = deepcopy(config)
        return cls(keep_last_n=config.keep_last_n, is_milestone=config.is_dynamic_milestone)

    def victims(
        self, committed: Iterable[Kept], *, protected: Iterable[int] = ()
    ) -> tuple[int, ...]:
        """Steps to delete, those on an abandoned branch first, then the oldest commit
        first.

        Args:
            committed: Committed checkpoints, the one just saved among them.
            protected: Steps that stay whatever their age: the one just saved, ``latest``'s target.
        """
        if self.keep_last_n <= 0:
            return ()
        ordered = sorted(
            (kept for kept in committed if not self.is_milestone(kept.step)),
            key=lambda kept: (not kept.aside, kept.sequence, kept.step),
        )
        sound = [kept for kept in ordered if not kept.damaged]
        if len(sound) < self.keep_last_n:
            return ()
        untouchable = set(protected)
        oldest_kept = sound[-self.keep_last_n]
        older = ordered[: ordered.index(oldest_kept)]
        return tuple(kept.step for kept in older if kept.step not in untouchable)
