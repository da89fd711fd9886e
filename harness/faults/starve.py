"""A manager's background threads are starved: they do not run while the rank trains on.

Fault model: from the step of the point on, each Python thread that the manager has started, in its
constructor or in a call of the loop, stops at the first Python call or return that it comes to. It
runs on once the rank has finished `steps` more steps. So the save that follows the point has read
nothing in the background before training has changed the state. A manager may wait for its threads:
while the main thread is blocked they run, and so they do once the loop waits for its saves.

What must survive: everything. The checkpoint holds the state at the moment of `save`. Out of scope:
processes, threads that no Python code runs in, and those that a thread starts while it is not held.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from pydantic import Field, model_validator

from harness.faults.base import LoopFault, Surroundings, Target
from harness.part import Place


class Starving(Target):
    """Which rank's threads do not run, and for how many steps."""

    steps: int = Field(1, ge=1)


class Starve(LoopFault):
    """The threads that save in the background do not run until training has gone on."""

    word: ClassVar[str] = "starve"
    area: ClassVar[str | None] = None
    does: ClassVar[tuple[str, str]] = ("starves its background threads", "starve theirs")
    drawn_at: ClassVar[tuple[str, ...]] = ("step",)
    starve: Starving

    @model_validator(mode="after")
    def _begins_with_a_step(self) -> Starve:
        if self.at.step is None:
            raise ValueError(f"`{self.word}` begins after a training step: its point has `step`")
        return self

    @property
    def starved_steps(self) -> int:
        return self.starve.steps

    def describe(self) -> str:
        rank = self.starve.rank
        which = "the ranks" if rank == "all" else f"rank {rank}"
        return f"background threads of {which} are starved"

    def impossible(self, around: Surroundings) -> Iterator[tuple[Place, str]]:
        if not around.saves_in_background:
            yield (self.word,), "no save has background threads in `async_mode: disabled`"
        step, last = self.at.step or 0, around.until_step
        if step + self.starve.steps > last:
            text = f"the run ends at step {last}, before its rank has finished"
            yield (self.word, "steps"), f"{text} {self.starve.steps} steps after step {step}"
