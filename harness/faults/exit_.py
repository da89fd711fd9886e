"""`sys.exit()` in the training loop of one rank or of all.

Fault model: right after a training step, before the save that may be due, or as the rank enters a
period of its life, `sys.exit()` is called.
Then the interpreter shuts down as always: it joins non-daemon threads and runs the exit handlers.
Process groups are not destroyed first, as in a script without `finally`.

What must survive: everything that was acknowledged to the job. If every rank reaches its end, a
save under way is finished or reported as failed, never dropped silently. No rank hangs. Out of
scope: an exit in another thread, and the teardown of modules after the exit handlers, which a
forked rank never reaches.
"""

from __future__ import annotations

from typing import ClassVar

from pydantic import model_validator

from harness.faults.base import LeavingFault, Target


class Exit(LeavingFault):
    """`sys.exit()`: the interpreter ends in order, whatever is still under way."""

    word: ClassVar[str] = "exit"
    area: ClassVar[str | None] = "loop"
    does: ClassVar[tuple[str, str]] = ("exits", "exit")
    exit: Target

    @model_validator(mode="after")
    def _is_noticed(self) -> Exit:
        if self.at.during == "building" and self.exit.rank != "all":
            raise ValueError(
                "`exit` during `building` takes `rank: all`: its peers have no connection to it "
                "yet, and to a launcher an exit status of 0 is no failure"
            )
        return self

    def leaves(self) -> type[BaseException]:
        return SystemExit
