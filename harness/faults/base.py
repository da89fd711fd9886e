"""The base of all faults: the word, the point, and the ranks that they hit."""

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
    """A regular expression, checked."""
    try:
        re.compile(text)
    except re.error as error:
        raise ValueError(f"{text!r} is no regular expression: {error}") from None
    return text


class Target(Part):
    """Which rank a fault hits."""

    rank: AnyRank = "all"


class OneRank(Part):
    """The one rank whose operation a fault hits."""

    rank: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Owed:
    """An event that has to follow a strike: its word in the trace, the text if it is missing."""

    word: str
    otherwise: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """The run that a fault falls in, as far as the fault has to know it.

    `saves` is how many there are at most. `goes_on` says whether the training loop goes on after a
    save that failed, `is_requeued` whether SLURM starts the job again afterwards.
    """

    until_step: int
    saves: int
    goes_on: bool
    ranks: int
    most_ranks: int
    is_requeued: bool


class Fault(Worded):
    """Something that is injected, and where. The settings say which ranks it hits."""

    area: ClassVar[str | None] = None
    """The first word of titles; None for the mode of the saves."""
    does: ClassVar[tuple[str, str]] = ("", "")
    """The verb of titles, for one rank and for several: `is killed`, `are killed`."""
    drawn_at: ClassVar[tuple[str, ...]] = ("step", "operation")
    """Where `fuzz` lets it fall; nowhere if it draws none."""
    is_deadly: ClassVar[bool] = False
    """Whether it leaves a rank no time to say a word."""
    is_in_the_loop: ClassVar[bool] = False
    """Whether the rank carries it out itself, in its training loop."""
    ends_run: ClassVar[bool] = False
    """Whether the run is over with it, in one way or another."""
    ends_interpreter: ClassVar[bool] = False
    """Whether what the interpreter of a rank does at its end is a part of the run."""
    asks_to_end: ClassVar[str | None] = None
    """The signal by which it asks a job to save once more and end, if it does."""
    needs_nodes: ClassVar[bool] = False
    """Whether it needs ranks on several nodes."""
    needs_own_ranks: ClassVar[bool] = False
    """Whether it needs ranks that no other launcher starts."""
    needs_plain_directory: ClassVar[bool] = False
    """Whether it needs a directory that the ranks see without a mount in between."""
    parts_ranks: ClassVar[bool] = False
    """Whether ranks may not reach each other any more."""
    is_from_outside: ClassVar[bool] = False
    """Whether others than the job may change the directory."""
    is_beside_others: ClassVar[bool] = True
    """Whether an exploration may strike the run, too."""
    simplest: ClassVar[Mapping[str, Any]] = {}
    """The simplest values of settings that have no default."""

    at: Point

    @property
    def lasts(self) -> bool:
        """Whether it is never over while the run goes on."""
        return False

    @property
    def answers(self) -> str | None:
        """The error that operations answer, if they do."""
        return None

    @property
    def repeats(self) -> bool:
        """Whether later operations may answer it, too."""
        return False

    @property
    def second_host(self) -> str | None:
        """Where a second job is started, if one is."""
        return None

    @property
    def disk(self) -> str | None:
        """The file system whose power is cut, if it is."""
        return None

    @property
    def action(self) -> Acting | None:
        """The action of an operator, if there is one."""
        return None

    def ranks_hit(self, world: World) -> tuple[int, ...]:
        """The ranks that it hits."""
        rank: AnyRank = self.settings.rank
        return tuple(range(world.size)) if rank == "all" else (rank,)

    def label(self) -> str:
        """The fault and its target, for the id of a strike: `fail-EIO-rank0`."""
        rank: AnyRank = self.settings.rank
        whom = "all" if rank == "all" else f"rank{rank}"
        error = getattr(self.settings, "error", None)
        return "-".join(word for word in (self.word, error, whom) if word)

    def described(self) -> str:
        """The event in the words of a title: `rank 1 is killed`."""
        rank: AnyRank = self.settings.rank
        return f"all ranks {self.does[1]}" if rank == "all" else f"rank {rank} {self.does[0]}"

    def simpler_settings(self) -> Iterator[Mapping[str, Any]]:
        """Changes of single settings that say less, or smaller numbers; the default says least."""
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
        """Strike a run; what it does to the operation at its point is returned.

        A fault in the loop is carried out by the rank itself and never comes here.
        """
        raise NotImplementedError(f"{self.word} is not carried out from outside")

    def impossible(self, around: Surroundings) -> Iterator[tuple[Place, str]]:
        """Yields the settings that cannot happen, and why; places are relative to the fault.

        That ranks, saves and steps exist is looked at for all faults alike.
        """
        return iter(())

    def may_be_silent_s(self) -> float:
        """How long it may keep its ranks from telling anything, in seconds."""
        return 0.0

    def stalls(self, timeout_s: float | None) -> bool:
        """Whether the operation may come back too late for the manager, or never does.

        `timeout_s` is when the manager gives up on an operation, where the scenario says so.
        """
        return False

    def may_end_run(self, *, goes_on: bool, timeout_s: float | None) -> bool:
        """Whether a run that it has struck may be over before its last step.

        `goes_on` says whether the training loop goes on after a save that failed.
        """
        return self.ends_run and self.asks_to_end is None

    def may_fail_saves(self, timeout_s: float | None) -> bool:
        """Whether saves may raise for it while the ranks go on."""
        return self.stalls(timeout_s)

    def owes(self) -> Owed | None:
        """The event that has to follow it in the trace, if any."""
        return None


class OperationFault(Fault):
    """Base of the faults that hit one operation of one rank, instead of or around it."""

    drawn_at: ClassVar[tuple[str, ...]] = ("operation",)

    @model_validator(mode="after")
    def _hits_an_operation(self) -> OperationFault:
        if self.at.step is not None:
            raise ValueError(f"`{self.word}` hits an operation: its point has `save`, not `step`")
        if self.at.when == "after":
            raise ValueError(f"`{self.word}` hits the operation itself: `when: after` is too late")
        if self.at.rank not in (None, self.settings.rank):
            raise ValueError(f"`{self.word}` hits the rank at the point: leave `at.rank` out")
        return self


class LoopFault(Fault):
    """Base of the faults that a rank carries out itself when it has finished a step."""

    drawn_at: ClassVar[tuple[str, ...]] = ("step",)
    is_in_the_loop: ClassVar[bool] = True
    ends_run: ClassVar[bool] = True
    ends_interpreter: ClassVar[bool] = True

    def leaves(self) -> type[BaseException]:
        """The exception that leaves the loop of the rank."""
        raise NotImplementedError(self.word)

    @model_validator(mode="after")
    def _falls_in_the_loop(self) -> LoopFault:
        if self.at.step is None or self.at.once_published:
            raise ValueError(
                f"`{self.word}` falls in the training loop: its point has `step` alone"
            )
        if self.at.rank is not None:
            raise ValueError(f"`{self.word}` falls in the rank that it hits: leave `at.rank` out")
        return self
