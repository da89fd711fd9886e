"""The interface of a job: what runs in the ranks, and the evidence that it can give."""

from __future__ import annotations

import importlib
from dataclasses import dataclass

from harness.words import EvidenceKind


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A kind of job. `main` is `module:name` of the function that a rank enters.

    `gives` are the kinds of evidence by which its runs can be judged; properties that need other
    kinds do not apply.

    The function gets the run directory, the number of the run and its rank, and returns the exit
    status. It is imported only in the rank, so that the value itself needs no torch.
    """

    name: str
    gives: frozenset[EvidenceKind]
    main: str

    def enter(self, directory: str, run: int, rank: int) -> int:
        """Runs one rank; the caller has nothing left to do but to exit with the status."""
        module, _, name = self.main.partition(":")
        status: int = getattr(importlib.import_module(module), name)(directory, run, rank)
        return status
