"""The strikable points of one run."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from harness.faults.base import AnyRank
from harness.faults.point import Point
from harness.faults.registry import AnyFault
from harness.scenario.schema import Checkpoint
from harness.search.generate.candidates import CandidatePoint, Candidates
from harness.search.generate.chance import often, pick
from harness.search.generate.job import Areas
from harness.world import World

Faults = tuple[AnyFault, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class StrikableSpan:
    """The strikable part of one run.

    `saves` are the steps of the saves that it makes wherever it resumes, `first` is the latest step
    from which it can; `evaluations` counts those that it makes in any case. `number` is the run's,
    from 0. After the last run nothing clears away what failing storage has kept from being removed.
    `relocated` says whether the directory was or will be moved, `foreign` holds the names that
    operators have created, `comes_through` promises that nothing ends the run before its last step.
    """

    number: int
    is_last: bool
    world: World
    checkpoint: Checkpoint
    candidates: Candidates
    without: Areas
    first: int
    until: int
    saves: tuple[int, ...]
    evaluations: int = 0
    relocated: bool = False
    foreign: frozenset[str] = frozenset()
    comes_through: bool = False

    @property
    def goes_on(self) -> bool:
        """Whether the training loop continues after a failed save."""
        return self.checkpoint.on_error == "go_on"

    @property
    def counted(self) -> tuple[int, ...]:
        """The steps of the saves of a first run, which can save before its first step."""
        window = self.checkpoint.dyn_ckpt_window
        return (0, *self.saves) if window is not None and window.start == 0 else self.saves

    @property
    def in_background(self) -> bool:
        """Whether a save can still be under way in later steps."""
        return self.checkpoint.async_mode != "disabled"


def draw_point(random: Random, strikable: StrikableSpan, save: int) -> Point | None:
    """Draws an operation of a save; each phase is equally likely, however short it is.

    Later runs save other steps, and prune from the first save on, like late saves of the first run.
    """
    recorded = save if not strikable.number else min(save + 1, strikable.candidates.saves)
    candidates = strikable.candidates.of_save(recorded)
    if not candidates:
        return None
    phases = sorted({one.named.phase or "" for one in candidates})
    phase = pick(random, phases)
    candidate = pick(random, [one for one in candidates if (one.named.phase or "") == phase])
    return either_side(
        random, _named(random, candidate, strikable).model_copy(update={"save": save})
    )


def _named(random: Random, candidate: CandidatePoint, strikable: StrikableSpan) -> Point:
    if candidate.counted is not None and (strikable.number or often(random, 70)):
        return candidate.counted
    return candidate.named


def either_side(random: Random, at: Point) -> Point:
    """Draws the instant before the operation or after it."""
    return at.model_copy(update={"when": pick(random, ("before", "after"))})


def as_default(at: Point, target: AnyRank) -> Point:
    """Returns a point without its rank if that is the default."""
    usual = 0 if target == "all" else target
    return at.model_copy(update={"rank": None}) if at.rank == usual else at
