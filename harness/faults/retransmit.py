"""An operation is carried out, and its answer says that it could not be: the request came twice.

Fault model: the answer of a file server is lost, the client sends the request again, and the second
time the name is already there (EEXIST) or already gone (ENOENT). NFS servers remember answers to
prevent this, and forget them when they restart or are busy. RFC 7530, section 3.1.1, and RFC 1813,
section 4.5, describe it.

What must survive: the committed checkpoints, and the job. A save for which this happened can fail,
like any save whose storage answered an error, but must not leave a checkpoint that is half
published. Out of scope: a request that is carried out twice with another one in between.
"""

from __future__ import annotations

import errno
from typing import ClassVar

from pydantic import model_validator

from harness.faults.base import OneRank, OperationFault
from harness.faults.effects import Effects, PlannedStrike, Treatment

RETRANSMITTED = {
    "mkdir": "EEXIST",
    "symlink": "EEXIST",
    "link": "EEXIST",
    "rename": "ENOENT",
    "unlink": "ENOENT",
    "rmdir": "ENOENT",
}
"""The answers to the operations that it can hit."""


class Retransmit(OperationFault):
    """An operation is carried out, and answers EEXIST or ENOENT."""

    word: ClassVar[str] = "retransmit"
    area: ClassVar[str | None] = "storage"
    does: ClassVar[tuple[str, str]] = ("gets an error for a change that was done", "")
    rests_on: ClassVar[str | None] = "file_systems"
    retransmit: OneRank

    @model_validator(mode="after")
    def _hits_a_change_of_names(self) -> Retransmit:
        if self.at.operation not in RETRANSMITTED:
            possible = ", ".join(RETRANSMITTED)
            raise ValueError(f"`retransmit` needs an operation in its point; possible: {possible}")
        return self

    @property
    def answers(self) -> str:
        return RETRANSMITTED[str(self.at.operation)]

    def may_end_run(self, *, goes_on: bool, timeout_s: float | None) -> bool:
        return not goes_on

    def may_fail_saves(self, timeout_s: float | None) -> bool:
        return True

    def carry_out(self, strike: PlannedStrike, effects: Effects) -> Treatment:
        effects.record_fired(strike)
        return Treatment(kind="retransmit", error=getattr(errno, self.answers))
