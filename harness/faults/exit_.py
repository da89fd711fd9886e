"""`sys.exit()` in the training loop of one rank or of all.

Fault model: right after a training step, before the save that may be due, `sys.exit()` is called.
Then the interpreter ends as it always does: threads that are no daemons are waited for, and the
exit handlers run. Process groups are not destroyed first, as in a script that has no `finally`.

What must survive: what was acknowledged to the job as durable; and where every rank comes to its
end, a save under way is finished or said to have failed, never dropped in silence. No rank may
hang. Out of scope: an exit in another thread, and what a module does when it is torn down after the
exit handlers, which a forked rank never comes to.
"""

from __future__ import annotations

from typing import ClassVar

from harness.faults.base import LoopFault, Target


class Exit(LoopFault):
    """`sys.exit()`: the interpreter ends in order, whatever is still under way."""

    word: ClassVar[str] = "exit"
    area: ClassVar[str | None] = "loop"
    does: ClassVar[tuple[str, str]] = ("exits", "exit")
    exit: Target

    def leaves(self) -> type[BaseException]:
        return SystemExit
