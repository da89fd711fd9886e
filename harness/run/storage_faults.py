"""What storage does to the operations of a rank once a fault has struck it.

Fault model: one operation answers an error instead of being carried out, once, several times, or
from then on, or until it is healed as the rank begins a save or has finished a step; a write takes
half of its bytes; an operation takes long or never returns. A failing fsync is an error of that
operation; its data stays in the page cache, where a later fsync finds it. An error that lasts meets
only the kinds of operations that a real file system would answer it to: a full disk still deletes.
While a checkpoint is loaded, opens for reading and reads are operations, too.

What must survive: the checkpoints that were committed, and the job, whose later saves succeed once
the error is over. An error that a read met says nothing of the bytes: the checkpoint is as sound as
before, and is what a start resumes from. Out of scope: data that is written wrongly, or dropped
after a failed fsync, without a further error; errors of reads outside of `phase: load`, and of
listing a directory; a storage that is slow for all.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass, field
from typing import Literal

from harness.faults.answers import meets as meets
from harness.plan.model import Strike


@dataclass(frozen=True, slots=True, kw_only=True)
class Treatment:
    """What happens to one operation. `seconds` is None for an operation that never returns."""

    kind: Literal["fail", "short_write", "wait", "second_job", "time_limit"]
    error: int = 0
    seconds: float | None = None


@dataclass(slots=True)
class _Failing:
    strike: Strike
    left: int | None

    @property
    def name(self) -> str:
        return str(self.strike.error)


@dataclass(slots=True)
class StorageFaults:
    """The faults under way in one run, by rank."""

    _failing: dict[int, _Failing] = field(default_factory=dict)

    def strike(self, strike: Strike) -> Treatment:
        """The treatment of the operation at the point; what lasts is kept for later ones."""
        match strike.fault:
            case "fail":
                left = None if strike.times is None else strike.times - 1
                self._failing[strike.ranks[0]] = _Failing(strike, left)
                return Treatment(kind="fail", error=getattr(errno, str(strike.error)))
            case "short_write":
                return Treatment(kind="short_write")
            case _:
                return Treatment(kind="wait", seconds=strike.seconds)

    def heal(self, rank: int, *, save: int = 0, step: int = 0) -> Strike | None:
        """The rank begins a save or has finished a step; the strike whose error is over by that."""
        failing = self._failing.get(rank)
        until = None if failing is None else failing.strike.until
        if failing is None or until is None:
            return None
        if not (until.save is not None and save >= until.save) and not (
            until.step is not None and step >= until.step
        ):
            return None
        del self._failing[rank]
        return failing.strike

    def later(self, rank: int, kind: str) -> Treatment | None:
        """The treatment of an operation that no strike falls on."""
        failing = self._failing.get(rank)
        if failing is None or failing.left == 0 or not meets(failing.name, kind):
            return None
        if failing.left is not None:
            failing.left -= 1
        return Treatment(kind="fail", error=getattr(errno, failing.name))
