"""Draws external actors while the job runs: an operator, and a second job.

The run survives both. An operator's action is certain to find something to hit and to leave the
next run a checkpoint to start from, whatever ends this run later.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from harness.faults.actions import Action, Pointing, SetLatest
from harness.faults.operator import Operator
from harness.faults.point import Point
from harness.faults.second_job import Joining, SecondJob
from harness.search.generate.actions import draw_damage, draw_foreign, free_names
from harness.search.generate.chance import often, pick
from harness.search.generate.strikable import Faults, StrikableSpan, as_default, draw_point

_IN_USE = "(?i)in use"
_PUBLISHED = ("publish", "prune")
_TRIES = 4
_MOST_RANKS = 2
"""Two jobs of two ranks are as many as two cores run well."""


def has_second_job(strikable: StrikableSpan) -> bool:
    """Whether a second job fits: it pauses one rank for longer than a short deadline."""
    fits = strikable.world.size <= _MOST_RANKS and strikable.checkpoint.timeout_s is None
    return fits and "two_jobs" not in strikable.without and bool(_between_saves(strikable))


def draw_second_job(random: Random, strikable: StrikableSpan) -> Faults:
    """Draws a second job between two saves or in one."""
    at = pick(random, _between_saves(strikable))(random, strikable)
    if at is None or (at.save == len(strikable.saves) and at.phase in _PUBLISHED):
        return ()
    rank = at.rank or 0
    point = at.model_copy(update={"rank": None, "when": "before"})
    return (SecondJob(second_job=Joining(rank=rank, refused=_IN_USE), at=point),)


def has_operator(strikable: StrikableSpan) -> bool:
    """Whether there is an instant at which an operator can act."""
    return "operator" not in strikable.without and bool(_ever(strikable))


def draw_operator(random: Random, strikable: StrikableSpan) -> Faults:
    """Draws one action at a step or in a save, preferably when there are checkpoints already."""
    found = [pick(random, _ever(strikable))(random, strikable) for _ in range(_TRIES)]
    instants = [_once_published(random, strikable, one) for one in found if one is not None]
    at = max(instants, key=lambda one: len(standing(strikable, one)), default=None)
    action = None if at is None else _draw_action(random, strikable, at)
    if at is None or action is None:
        return ()
    return (Operator(operator=action, at=as_default(at, 0)),)


_Instant = Callable[[Random, StrikableSpan], Point | None]


def _ever(strikable: StrikableSpan) -> tuple[_Instant, ...]:
    """Returns any step and any save."""
    steps = range(strikable.first + 1, strikable.until + 1)
    return (_at_step(steps),) * 2 * bool(steps) + (_in_save(1),) * bool(strikable.saves)


def _between_saves(strikable: StrikableSpan) -> tuple[_Instant, ...]:
    """Returns the instants from the end of the first save, which locks the directory, to the last.

    After that a second job would have nothing to save, and so would not be refused.
    """
    if len(strikable.saves) < 2:
        return ()
    steps = range(strikable.saves[0] + 1, strikable.saves[-1] + 1)
    return _at_step(steps), _in_save(2)


def _at_step(steps: range) -> _Instant:
    def draw(random: Random, strikable: StrikableSpan) -> Point:
        return Point(step=pick(random, steps), rank=random.randrange(strikable.world.size))

    return draw


def _in_save(least: int) -> _Instant:
    def draw(random: Random, strikable: StrikableSpan) -> Point | None:
        return draw_point(random, strikable, random.randrange(least, len(strikable.saves) + 1))

    return draw


def _once_published(random: Random, strikable: StrikableSpan, at: Point) -> Point:
    saved = at.step is not None and any(step < at.step for step in strikable.saves)
    if not saved or not strikable.in_background:
        return at
    return at.model_copy(update={"once_published": often(random, 70)})


def _draw_action(random: Random, strikable: StrikableSpan, at: Point) -> Action | None:
    there = standing(strikable, at)
    if not there and often(random, 50):
        return None  # the only possible action would be a name beside the checkpoints
    free = free_names(strikable.foreign, strikable.candidates.layout, links=bool(there))
    kinds: list[Callable[[], Action]] = [lambda: draw_foreign(random, free)] if free else []
    is_quiet = at.step is not None and (at.once_published or not strikable.in_background)
    if there and is_quiet and strikable.candidates.layout.pointer is not None:
        kinds += [lambda: _draw_latest(random, there)] * 2
    if strikable.candidates.files and (len(there) > 1 or (there and _saves_again(strikable, at))):
        kinds += [lambda: draw_damage(random, there, strikable.candidates)] * 4
    return pick(random, kinds)() if kinds else None


def _draw_latest(random: Random, there: tuple[int, ...]) -> Action:
    """Draws a lost or set-back link; no save is about to swap it."""
    if len(there) > 1 and often(random, 50):
        return SetLatest(latest=Pointing(step=there[-2]))
    becomes = pick(random, ("absent", "dangling", "directory"))
    return SetLatest(latest=Pointing.model_validate({"becomes": becomes}))


def standing(strikable: StrikableSpan, at: Point) -> tuple[int, ...]:
    """Returns the steps of this run whose checkpoints are whole at a point, and retained.

    A save under way may be about to remove the oldest. Only in the first run is the step of the
    n-th save known.
    """
    if at.step is not None:
        begun = tuple(step for step in strikable.saves if step < at.step)
        under_way = 0 if at.once_published or not strikable.in_background else 1
    else:
        begun = strikable.counted[: at.save] if not strikable.number else ()
        under_way = 1
    done = tuple(step for step in begun[: len(begun) - under_way] if step)
    keep = strikable.checkpoint.keep_last_n
    if keep <= 0:
        return done
    return done[max(0, len(done) - (keep - under_way)) :]


def _saves_again(strikable: StrikableSpan, at: Point) -> bool:
    """Whether the run certainly reaches a save after this."""
    later = at.step is None or any(step >= at.step for step in strikable.saves)
    return strikable.comes_through and later
