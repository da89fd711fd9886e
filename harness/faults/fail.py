"""Storage that answers an error: once, several times, from then on, or until it is healed.

Fault model: one operation answers an error instead of being carried out. A failing fsync is an
error of that operation; its data stays in the page cache, where a later fsync finds it. A lasting
error hits only the kinds of operations that a real file system would answer it to: a full disk can
still delete. While a checkpoint is loaded, opens for reading and reads are operations, too.

What must survive: the committed checkpoints, and the job, whose later saves succeed once the error
is over. A read error says nothing about the bytes: the checkpoint is as sound as before, and a
start resumes from it. Out of scope: data that is written wrongly, or dropped after a failed fsync,
without a further error; errors of reads outside of `phase: load`, and of listing a directory.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from harness.faults.answers import fitting
from harness.faults.base import OneRank, OperationFault, Owed, Surroundings
from harness.faults.effects import Effects, PlannedStrike, Treatment
from harness.part import Part, Place
from harness.words import ERRORS, READS

_UNTIL: Place = ("fail", "until")
_HEALED = Owed(word="healed", otherwise="its error was never healed")


class Until(Part):
    """The moment at which an error ends: when the rank begins a save, or has finished a step."""

    save: int | None = Field(None, ge=2, description="the n-th call of `save` in this run")
    step: int | None = Field(None, ge=1)

    @model_validator(mode="after")
    def _is_one_moment(self) -> Until:
        if (self.save is None) == (self.step is None):
            raise ValueError("`until` takes one moment: a `save` or a `step`")
        return self


class Failing(OneRank):
    """The error that the operation answers, and how often or how long."""

    error: Literal[ERRORS]  # type: ignore[valid-type]
    times: Annotated[int, Field(ge=1)] | Literal["always"] = 1
    until: Until | None = Field(None, description="the error lasts until then, and is healed")

    @model_serializer(mode="wrap")
    def _says_one_end(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leaves out `times` beside `until`, so that a plan can be read again."""
        settings: dict[str, Any] = write(self)
        if self.until is not None:
            settings.pop("times", None)
        return settings

    @model_validator(mode="after")
    def _ends_in_one_way(self) -> Failing:
        if self.until is not None and "times" in self.model_fields_set:
            raise ValueError("an error ends after some `times` or lasts `until` a moment, not both")
        return self


class Fail(OperationFault):
    """The storage answers an error: once, several times, or from then on."""

    word: ClassVar[str] = "fail"
    simplest: ClassVar[Mapping[str, Any]] = {"error": "EIO"}
    area: ClassVar[str | None] = "storage"
    fail: Failing

    @property
    def asks(self) -> str | None:
        for_a_moment = self.is_of_load and self.fail.times != "always"
        return "file_systems" if for_a_moment or self.fail.error == "ESTALE" else None

    @property
    def is_of_load(self) -> bool:
        """Whether opens or reads fail while a checkpoint is loaded."""
        return self.at.phase == "load"

    @property
    def lasts(self) -> bool:
        """Whether it never ends."""
        return self.fail.times == "always" and self.fail.until is None

    def may_end_run(self, *, goes_on: bool, timeout_s: float | None) -> bool:
        # Reads that fail a few times are to be retried.
        return self.fail.times == "always" if self.is_of_load else not goes_on

    def may_fail_saves(self, timeout_s: float | None) -> bool:
        return True

    def owes(self) -> Owed | None:
        return None if self.fail.until is None else _HEALED

    def describe(self) -> str:
        return f"rank {self.fail.rank} meets {self.fail.error}{self._how_long()}"

    def _how_long(self) -> str:
        until, times = self.fail.until, self.fail.times
        if until is not None:
            return " until a save" if until.save is not None else " until a step"
        return {1: " once", "always": " from then on"}.get(times, f" {times} times")

    def impossible(self, around: Surroundings) -> Iterator[tuple[Place, str]]:
        yield from self._healed(around)
        if self.is_of_load:
            yield from self._while_loading()

    def _healed(self, around: Surroundings) -> Iterator[tuple[Place, str]]:
        """Yields an error that ends before it begins, or after the run has ended."""
        until, most, first = self.fail.until, around.saves, (self.at.save or 0) + 1
        if until is None:
            return
        if until.save is not None and not first <= until.save <= most:
            text = f"save {until.save} does not end an error that begins at save {first - 1}"
            why = f"possible: {first} to {most}" if first <= most else "no save comes after it"
            yield (*_UNTIL, "save"), f"{text}; {why}"
        if until.step is not None and until.step > around.until_step:
            ends = f"the run ends at {around.until_step}"
            yield (*_UNTIL, "step"), f"step {until.step} never comes: {ends}"
        if not around.goes_on:
            text = "the training loop ends with the first failed save, so nothing is healed"
            yield _UNTIL, f"{text}: set `checkpoint.on_error: go_on`"

    def _while_loading(self) -> Iterator[tuple[Place, str]]:
        """Yields an error that no operation of a load can answer."""
        operation, error = self.at.operation, self.fail.error
        if self.fail.until is not None:
            yield _UNTIL, "nothing heals an error while a checkpoint is loaded"
        kinds = {"open": READS[:1], "read": READS[1:]}.get(operation or "", READS)
        possible = fitting(kinds)
        if error not in possible:
            what = f"`operation: {operation}`" if operation else "an open or a read"
            text = f"while a checkpoint is loaded {what} does not answer {error}"
            yield ("fail", "error"), f"{text}; possible: {', '.join(possible)}"

    def carry_out(self, strike: PlannedStrike, effects: Effects) -> Treatment:
        effects.record_fired(strike)
        fail = self.fail
        lasts = fail.times == "always" or fail.until is not None
        left = None if lasts else int(fail.times) - 1
        effects.fail(strike, fail.error, left, fail.until)
        return Treatment(kind="fail", error=getattr(errno, fail.error))

    @property
    def answers(self) -> str | None:
        return str(self.fail.error)

    @property
    def repeats(self) -> bool:
        return self.fail.times != 1 or self.fail.until is not None
