"""The interface of a job: what runs in the ranks, and the evidence that it can give."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from harness.plan.model import Implementation
from harness.words import EvidenceKind


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A kind of job. `main` is `module:name` of the function that a rank enters, and `inspection`
    of the one that builds an implementation once, to see whether the job can be started with it.

    `gives` are the kinds of evidence by which its runs can be judged; properties that need other
    kinds do not apply.

    The first gets the run directory, the number of the run and its rank, and returns the exit
    status; the second gets the implementation. Both are imported only where they run, so that the
    value itself needs no torch.
    """

    name: str
    gives: frozenset[EvidenceKind]
    main: str
    inspection: str | None = None

    def inspect(self, implementation: Implementation) -> dict[str, str | None]:
        """Returns `promises`, which the implementation's class says or None, or `error`."""
        if self.inspection is None:
            return {"promises": None}
        found: dict[str, str | None] = _named(self.inspection)(implementation)
        return found

    def enter(self, directory: str, run: int, rank: int) -> int:
        """Runs one rank; the caller has nothing left to do but to exit with the status."""
        status: int = _named(self.main)(directory, run, rank)
        return status


def _named(place: str) -> Callable[..., Any]:
    module, _, name = place.partition(":")
    found: Callable[..., Any] = getattr(importlib.import_module(module), name)
    return found
