"""The base of all faults: the word, the point, and the ranks that are hit."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from pydantic import model_validator

from harness.faults.actions import Acting
from harness.faults.effects import Effects, PlannedStrike, Treatment
from harness.faults.point import Point
from harness.faults.worded import Worded
from harness.part import Part, Place
from harness.world import World

AnyRank = int | Literal["all"]


def expression(text: str) -> str:
    """Returns a regular expression, checked."""
    try:
        re.compile(text)
    except re.error as error:
        raise ValueError(f"{text!r} is not a regular expression: {error}") from None
    return text


class Target(Part):
    """Which rank a fault hits."""

    rank: AnyRank = "all"


class OneRank(Part):
    """The one rank whose operation a fault hits."""

    rank: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Owed:
    """An event that must follow a strike: its word in the trace, and the text if it is missing."""

    word: str
    otherwise: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """The facts about a run that its faults need.

    `saves` is an upper bound. `goes_on` says whether the training loop continues after a failed
    save, `is_requeued` whether SLURM restarts the job afterwards, `saves_in_background` whether a
    save can be under way while the job trains.
    """

    until_step: int
    saves: int
    goes_on: bool
    ranks: int
    most_ranks: int
    is_requeued: bool
    saves_in_background: bool


class Fault(Worded):
    """Something that is injected, and where. The settings say which ranks it hits."""

    area: ClassVar[str | None] = None
    """The first word of titles; None for the mode of the saves."""
    does: ClassVar[tuple[str, str]] = ("", "")
    """The verb of titles, for one rank and for several: `is killed`, `are killed`."""
    drawn_at: ClassVar[tuple[str, ...]] = ("step", "operation", "period")
    """Where `fuzz` can place it; empty if `fuzz` does not draw it."""
    is_in_the_loop: ClassVar[bool] = False
    """Whether the rank carries it out itself, in its training loop."""
    ends_run: ClassVar[bool] = False
    """Whether it ends the run, in one way or another."""
    decides_operation: ClassVar[bool] = False
    """Whether it determines the outcome of the operation at its point; only one fault can."""
    splits_write: ClassVar[bool] = False
    """Whether it needs a write that can be split."""
    ends_interpreter: ClassVar[bool] = False
    """Whether the shutdown of a rank's interpreter is part of the run."""
    asks_to_end: ClassVar[str | None] = None
    """The signal by which it asks a job to save once more and end, if it does."""
    rests_on: ClassVar[str | None] = None
    """The promise without which a run that it strikes shows nothing, if there is one."""
    needs_nodes: ClassVar[bool] = False
    """Whether it needs ranks on several nodes."""
    needs_own_ranks: ClassVar[bool] = False
    """Whether it needs ranks that the harness itself starts."""
    needs_plain_directory: ClassVar[bool] = False
    """Whether it needs a directory that the ranks see without a mount in between."""
    parts_ranks: ClassVar[bool] = False
    """Whether ranks can lose contact with each other."""
    is_from_outside: ClassVar[bool] = False
    """Whether something other than the job can change the directory."""
    is_beside_others: ClassVar[bool] = True
    """Whether an exploration can strike the same run."""
    simplest: ClassVar[Mapping[str, Any]] = {}
    """The simplest values of settings that have no default."""

    at: Point

    @property
    def asks(self) -> str | None:
        """Returns `rests_on`, unless it depends on the settings."""
        return self.rests_on

    @property
    def is_deadly(self) -> bool:
        """Whether it leaves a rank no time to record anything."""
        return False

    @property
    def lasts(self) -> bool:
        """Whether it lasts until the run ends."""
        return False

    @property
    def answers(self) -> str | None:
        """The error that operations answer, if they do."""
        return None

    @property
    def repeats(self) -> bool:
        """Whether later operations can answer it, too."""
        return False

    @property
    def second_host(self) -> str | None:
        """The host on which a second job is started, if one is."""
        return None

    @property
    def disk(self) -> str | None:
        """The file system whose power is cut, if it is."""
        return None

    @property
    def starved_steps(self) -> int | None:
        """How many steps the manager's background threads do not run, if it starves them."""
        return None

    @property
    def action(self) -> Acting | None:
        """The operator's action, if there is one."""
        return None

    def ranks_hit(self, world: World) -> tuple[int, ...]:
        """Returns the ranks that it hits."""
        rank: AnyRank = self.settings.rank
        return tuple(range(world.size)) if rank == "all" else (rank,)

    def label(self) -> str:
        """Returns the fault and its target, for the id of a strike: `fail-EIO-rank0`."""
        rank: AnyRank = self.settings.rank
        target = "all" if rank == "all" else f"rank{rank}"
        error = getattr(self.settings, "error", None)
        return "-".join(word for word in (self.word, error, target) if word)

    def describe(self) -> str:
        """Returns the event as titles phrase it: `rank 1 is killed`."""
        rank: AnyRank = self.settings.rank
        return f"all ranks {self.does[1]}" if rank == "all" else f"rank {rank} {self.does[0]}"

    def simpler_settings(self) -> Iterator[Mapping[str, Any]]:
        """Yields changes that simplify one setting: to its default, or to a smaller number."""
        now = self.settings
        defaults = {
            name: field.default
            for name, field in type(now).model_fields.items()
            if not field.is_required()
        }
        for name, least in {**defaults, **self.simplest}.items():
            if getattr(now, name) != least:
                yield {name: least}
        if isinstance(getattr(now, "rank", None), int) and now.rank > 0:
            yield {"rank": 0}

    def carry_out(self, strike: PlannedStrike, effects: Effects) -> Treatment | None:
        """Strikes a run; returns the treatment of the operation at its point, if there is one.

        A fault in the loop is carried out by the rank itself and never gets here.
        """
        raise NotImplementedError(f"{self.word} is not carried out from outside")

    def impossible(self, around: Surroundings) -> Iterator[tuple[Place, str]]:
        """Yields the settings that cannot happen, and why; places are relative to the fault.

        Whether the ranks, saves and steps exist is checked for all faults alike.
        """
        return iter(())

    def may_be_silent_s(self) -> float:
        """Returns how long it can keep its ranks from recording anything, in seconds."""
        return 0.0

    def stalls(self, timeout_s: float | None) -> bool:
        """Whether the operation can return too late for the manager, or never.

        `timeout_s` is when the manager gives up on an operation, if the scenario sets it.
        """
        return False

    def may_end_run(self, *, goes_on: bool, timeout_s: float | None) -> bool:
        """Whether a struck run can end before its last step.

        `goes_on` says whether the training loop continues after a failed save.
        """
        return self.ends_run and self.asks_to_end is None

    def may_fail_saves(self, timeout_s: float | None) -> bool:
        """Whether it can make saves raise while the ranks go on."""
        return self.stalls(timeout_s)

    def owes(self) -> Owed | None:
        """Returns the event that must follow it in the trace, if any."""
        return None


class OperationFault(Fault):
    """Base of the faults that hit one operation of one rank."""

    decides_operation: ClassVar[bool] = True
    drawn_at: ClassVar[tuple[str, ...]] = ("operation",)

    @model_validator(mode="after")
    def _hits_an_operation(self) -> OperationFault:
        if not self.at.is_operation:
            found = "step" if self.at.during is None else "during"
            raise ValueError(
                f"`{self.word}` hits an operation: its point has `save`, not `{found}`"
            )
        if self.at.when == "after":
            raise ValueError(f"`{self.word}` hits the operation itself: `when: after` is too late")
        if self.at.rank not in (None, self.settings.rank):
            raise ValueError(f"`{self.word}` hits the rank at the point: leave `at.rank` out")
        return self


class LoopFault(Fault):
    """Base of the faults that a rank carries out itself, after a step or as it enters a period."""

    drawn_at: ClassVar[tuple[str, ...]] = ("step", "period")
    is_in_the_loop: ClassVar[bool] = True

    @model_validator(mode="after")
    def _falls_in_the_loop(self) -> LoopFault:
        if self.at.is_operation or self.at.once_published:
            raise ValueError(
                f"`{self.word}` strikes in the training loop: its point has only `step` or `during`"
            )
        if self.at.rank is not None:
            raise ValueError(f"`{self.word}` strikes in the rank that it hits: leave `at.rank` out")
        return self


class LeavingFault(LoopFault):
    """Base of those with which an exception leaves the loop."""

    ends_run: ClassVar[bool] = True
    ends_interpreter: ClassVar[bool] = True

    def leaves(self) -> type[BaseException]:
        """Returns the exception that leaves the rank's loop."""
        raise NotImplementedError(self.word)
