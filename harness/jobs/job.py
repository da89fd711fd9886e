"""The interface of a job: what runs in the ranks, and what it can tell of itself."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Literal, get_args

Word = Literal["step", "save", "acknowledged", "resumed", "finished"]
"""A word of a job: a kind of evidence that it records (`harness/evidence/record.py`).

- `step`: a finished training step: its loss, its samples, and digests of the state after it;
- `save`: a save is about to be asked for, with its step and its number in the run;
- `acknowledged`: the job was given to understand that a save is durable;
- `resumed`: the checkpoint that a start has taken, or that it took none, and the state after it;
- `finished`: the job has come to an end in order.

Judges see the checkpoint directory and the ends of the processes whatever a job tells.
"""

WORDS: frozenset[Word] = frozenset(get_args(Word))


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A kind of job. `main` is `module:name` of the function that a rank enters.

    The function gets the run directory, the number of the run and its rank, and returns the exit
    status. It is imported only in the rank, so that the value itself needs no torch.
    """

    name: str
    tells: frozenset[Word]
    main: str

    def enter(self, directory: str, run: int, rank: int) -> int:
        """Runs one rank; the caller has nothing left to do but to exit with the status."""
        module, _, name = self.main.partition(":")
        status: int = getattr(importlib.import_module(module), name)(directory, run, rank)
        return status
