"""An exception that nobody catches leaves the training loop of one rank.

Fault model: right after a training step, before the save that may be due, an exception leaves the
loop of one rank. Then the interpreter ends as it always does: `sys.excepthook` shows the exception,
threads that are no daemons are waited for, and the exit handlers run. Process groups are not
destroyed first, as in a script that has no `finally`.

What must survive: what was acknowledged to the job as durable; and where every rank comes to its
end, a save under way is finished or said to have failed, never dropped in silence. No rank may
hang. Out of scope: an exception between the operations of a save, and what a module does when it is
torn down after the exit handlers, which a forked rank never comes to.
"""

from __future__ import annotations

import builtins
from typing import ClassVar, Literal

from harness.faults.base import LoopFault, OneRank
from harness.words import EXCEPTIONS


class Raising(OneRank):
    """In whose training loop what is raised."""

    error: Literal[EXCEPTIONS] = "RuntimeError"  # type: ignore[valid-type]


class Raise(LoopFault):
    """An exception that nobody catches: the interpreter of that rank shows it and ends."""

    word: ClassVar[str] = "raise"
    area: ClassVar[str | None] = "loop"
    # `raise` is a word of Python, so it cannot be annotated as the others are.
    __annotations__["raise"] = Raising.__name__

    def described(self) -> str:
        return f"rank {self.settings.rank} raises {self.settings.error}"

    def leaves(self) -> type[BaseException]:
        error: type[BaseException] = getattr(builtins, self.settings.error)
        return error
