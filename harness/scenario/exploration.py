"""`explore:` strikes a scenario many times: at every operation, or at the n-th until none is left.

explore: {strikes: every_operation, faults: [kill_all], budget: 40, seed: 3}
explore: {strikes: nth_failure, error: ENOSPC, ranks: [1]}
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from harness.faults.power_cut import PowerCutting
from harness.part import Part
from harness.words import ERRORS, OPERATIONS, SAVE_PHASES

ExploredFault = Literal["kill", "kill_all", "power_cut", "fail_once", "fail_lasting"]

_KILLS: tuple[ExploredFault, ...] = ("kill_all",)
_FAILURES: tuple[ExploredFault, ...] = ("fail_once", "fail_lasting")


class Explore(Part):
    """The strikes of an exploration. Each one has a job of its own, which resumes and is judged.

    `every_operation` lists the operations of one unstruck run, and strikes before and after each.
    `nth_failure` makes the n-th operation of a rank fail, for n = 1, 2, ..., until a run ends
    before its n-th operation.
    """

    strikes: Literal["every_operation", "nth_failure"] = "every_operation"
    run: int = Field(0, ge=0, description="which start of the job is struck, from 0")
    faults: tuple[ExploredFault, ...] = Field(
        (), description="default: `kill_all`, or for `nth_failure` both failures"
    )
    power_cut: PowerCutting = Field(
        PowerCutting(), description="the file system under the directory, for `power_cut`"
    )
    error: Literal[ERRORS] = "EIO"  # type: ignore[valid-type]
    operation: Literal[OPERATIONS] | None = None  # type: ignore[valid-type]
    phases: tuple[Literal[SAVE_PHASES], ...] = ()  # type: ignore[valid-type]
    ranks: tuple[int, ...] = Field((), description="whose operations; default: every rank's")
    budget: int | None = Field(
        None, ge=1, description="how many strikes at most, drawn by `seed`; default: all"
    )
    seed: int = 0

    @model_validator(mode="after")
    def _fits_together(self) -> Explore:
        if self.strikes == "nth_failure":
            if any(fault not in _FAILURES for fault in self.faults):
                raise ValueError("`nth_failure` takes only `fail_once` and `fail_lasting`")
            if self.phases:
                raise ValueError("`nth_failure` counts through the whole run: leave `phases` out")
        for name in ("faults", "phases", "ranks"):
            chosen = getattr(self, name)
            if len(set(chosen)) < len(chosen):
                raise ValueError(f"`{name}` names something twice")
        return self

    @property
    def chosen_faults(self) -> tuple[ExploredFault, ...]:
        """The chosen faults, with the default filled in."""
        return self.faults or (_FAILURES if self.strikes == "nth_failure" else _KILLS)
