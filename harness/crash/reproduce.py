"""Tries on real file systems whether a hit is more than a possibility of the model.

The operations of the job are repeated on an image up to an instant at which the hit showed, the
power is cut, and what is left is judged like a crash state. The first and the last of these
instants are tried, with the journal written and not.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.crash.explore import Exploration, Hit
from harness.disk.replay import happened
from harness.evidence.evidence import Evidence
from harness.run.repeat import leave


@dataclass(frozen=True, slots=True, kw_only=True)
class Reproduction:
    """The outcome of one hit on one file system. `journal` is None if no cut showed it."""

    filesystem: str
    cuts: int
    place: tuple[int, int]
    """A run, and the number of its operations at the last cut."""
    journal: str | None = None

    def __str__(self) -> str:
        if self.journal is None:
            word = "cut" if self.cuts == 1 else "cuts"
            return f"not reproduced on {self.filesystem} by {self.cuts} {word}"
        run, place = self.place
        where = f"run {run}, after {place} operations"
        return f"reproduced on {self.filesystem} (journal {self.journal}; {where})"


def reproduce(
    hits: Iterable[Hit],
    found: Exploration,
    evidence: Evidence,
    *,
    filesystems: Sequence[str],
    base: Path,
) -> dict[int, tuple[Reproduction, ...]]:
    """Try the hits on each file system; returns the attempts by the identity of the hit."""
    return {
        id(hit): tuple(_attempt(hit, found, evidence, one, base) for one in filesystems)
        for hit in hits
    }


def _attempt(
    hit: Hit, found: Exploration, evidence: Evidence, filesystem: str, base: Path
) -> Reproduction:
    cuts = 0
    place = hit.first
    for place in dict.fromkeys((hit.first, hit.last)):
        for journal in ("kept", "lost") if filesystem != "btrfs" else ("lost",):
            cuts += 1
            listing = leave(
                [(one.operations, one.written) for one in happened(evidence, *place)],
                filesystem=filesystem,
                journal=journal,
                base=base,
            )
            faults = found.judge.faults(found.parts.adopt(listing), hit.needs)
            if any(fault[:2] == hit.cause.fault[:2] for fault in faults):
                return Reproduction(filesystem=filesystem, cuts=cuts, place=place, journal=journal)
    return Reproduction(filesystem=filesystem, cuts=cuts, place=place)
