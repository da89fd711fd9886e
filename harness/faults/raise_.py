"""An uncaught exception leaves the training loop of one rank.

Fault model: right after a training step, before the save that may be due, or as the rank enters a
period of its life, an exception leaves the loop of one rank. Then the interpreter shuts down as
always: `sys.excepthook` shows the exception, non-daemon threads are joined, and the exit handlers
run. Process groups are not destroyed first, as in a script without `finally`.

What must survive: everything that was acknowledged to the job. If every rank reaches its end, a
save under way is finished or reported as failed, never dropped silently. No rank hangs. Out of
scope: an exception between the operations of a save, and the teardown of modules after the exit
handlers, which a forked rank never reaches.
"""

from __future__ import annotations

import builtins
from typing import ClassVar, Literal

from harness.faults.base import LeavingFault, OneRank
from harness.words import EXCEPTIONS


class Raising(OneRank):
    """Which rank raises, and what."""

    error: Literal[EXCEPTIONS] = "RuntimeError"  # type: ignore[valid-type]


class Raise(LeavingFault):
    """An uncaught exception: the interpreter of that rank shows it and ends."""

    word: ClassVar[str] = "raise"
    area: ClassVar[str | None] = "loop"
    # `raise` is a keyword of Python, so it cannot be annotated like the others.
    __annotations__["raise"] = Raising.__name__

    def describe(self) -> str:
        return f"rank {self.settings.rank} raises {self.settings.error}"

    def leaves(self) -> type[BaseException]:
        error: type[BaseException] = getattr(builtins, self.settings.error)
        return error
