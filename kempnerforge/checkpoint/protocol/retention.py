"""Decides which checkpoints to delete: a pure function of the committed ones.

Checkpoints are ordered by the sequence of their commits, never by step, and those that the newest
one does not descend from (:mod:`lineage`) count as older than all others. So after a rollback the
abandoned ones are deleted, and those that training continues from are retained. Torn directories,
foreign names and plain checkpoints without a manifest are never passed to this module: they neither
count nor are deleted. A checkpoint that this job found damaged when it resumed does not count, so
no sound one is deleted in its favour. It is deleted once all checkpoints that count are newer, or
are ancestors of the newest while it is not.
"""

from collections.abc import Callable, Iterable
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass

from kempnerforge.checkpoint.settings import CheckpointSettings

__all__ = ["Kept", "RetentionPolicy"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """The properties of a committed checkpoint that retention depends on."""

    step: int
    sequence: int
    damaged: bool = False
    abandoned: bool = False
    """Whether the newest checkpoint does not descend from it."""


def _no_milestone(step: int) -> bool:
    del step
    return False


@dataclass(frozen=True, slots=True, kw_only=True)
class RetentionPolicy:
    """Keeps the newest ``keep_last_n`` checkpoints and every milestone."""

    keep_last_n: int
    """0 or less keeps everything."""
    is_milestone: Callable[[int], bool] = _no_milestone
    """Whether a step is never deleted and does not count."""

    @classmethod
    def of(cls, config: CheckpointSettings) -> "RetentionPolicy":
        """Returns the policy of a configuration; later changes to it have no effect."""
        with suppress(Exception):  # a class that cannot be copied is asked later
            config = deepcopy(config)
        return cls(keep_last_n=config.keep_last_n, is_milestone=config.is_dynamic_milestone)

    def victims(
        self, committed: Iterable[Kept], *, protected: Iterable[int] = ()
    ) -> tuple[int, ...]:
        """Returns the steps to delete: abandoned ones first, then by commit, oldest first.

        Args:
            committed: Committed checkpoints, including the one just saved.
            protected: Steps to keep at any age: the one just saved, the target of ``latest``.
        """
        if self.keep_last_n <= 0:
            return ()
        ordered = sorted(
            (kept for kept in committed if not self.is_milestone(kept.step)),
            key=lambda kept: (not kept.abandoned, kept.sequence, kept.step),
        )
        sound = [kept for kept in ordered if not kept.damaged]
        if len(sound) < self.keep_last_n:
            return ()
        untouchable = set(protected)
        oldest_kept = sound[-self.keep_last_n]
        older = ordered[: ordered.index(oldest_kept)]
        return tuple(kept.step for kept in older if kept.step not in untouchable)
