"""Draws what comes from outside of the job while it runs: a hand, and a second job.

The run comes through either. A hand does only what is certain to find something to hit and to leave
the next run a checkpoint to start from, whatever ends this one later.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from harness.faults.actions import Action, Latest, Pointing
from harness.faults.by_hand import ByHand
from harness.faults.point import Point
from harness.faults.second_job import Joining, SecondJob
from harness.search.generate.actions import draw_damage, draw_foreign, free_names
from harness.search.generate.chance import often, pick
from harness.search.generate.ground import Faults, Ground, as_default, draw_point

_IN_USE = "(?i)in use"
_PUBLISHED = ("publish", "prune")
_TRIES = 4
_MOST_RANKS = 2
"""Two jobs of two ranks are as many as two cores run well."""


def has_second_job(ground: Ground) -> bool:
    """Whether a second job fits: it holds one rank up for longer than a short deadline."""
    fits = ground.world.size <= _MOST_RANKS and ground.checkpoint.timeout_s is None
    return fits and "two_jobs" not in ground.without and bool(_between_saves(ground))


def draw_second_job(random: Random, ground: Ground) -> Faults:
    """Between two saves or in one."""
    at = pick(random, _between_saves(ground))(random, ground)
    if at is None or (at.save == len(ground.saves) and at.phase in _PUBLISHED):
        return ()
    rank = at.rank or 0
    point = at.model_copy(update={"rank": None, "when": "before"})
    return (SecondJob(second_job=Joining(rank=rank, refused=_IN_USE), at=point),)


def has_hand(ground: Ground) -> bool:
    """Whether there is an instant at which a hand can act."""
    return "by_hand" not in ground.without and bool(_ever(ground))


def draw_by_hand(random: Random, ground: Ground) -> Faults:
    """One action at a step or in a save, rather where there are checkpoints already."""
    found = [pick(random, _ever(ground))(random, ground) for _ in range(_TRIES)]
    instants = [_once_published(random, ground, one) for one in found if one is not None]
    at = max(instants, key=lambda one: len(standing(ground, one)), default=None)
    action = None if at is None else _draw_action(random, ground, at)
    if at is None or action is None:
        return ()
    return (ByHand(by_hand=action, at=as_default(at, 0)),)


_Instant = Callable[[Random, Ground], Point | None]


def _ever(ground: Ground) -> tuple[_Instant, ...]:
    """Any step and any save."""
    steps = range(ground.first + 1, ground.until + 1)
    return (_at_step(steps),) * 2 * bool(steps) + (_in_save(1),) * bool(ground.saves)


def _between_saves(ground: Ground) -> tuple[_Instant, ...]:
    """From the end of the first save on, which takes the directory for the job, to the last one.

    Behind that a second job would have nothing to save, and so nothing to be refused for.
    """
    if len(ground.saves) < 2:
        return ()
    steps = range(ground.saves[0] + 1, ground.saves[-1] + 1)
    return _at_step(steps), _in_save(2)


def _at_step(steps: range) -> _Instant:
    def draw(random: Random, ground: Ground) -> Point:
        return Point(step=pick(random, steps), rank=random.randrange(ground.world.size))

    return draw


def _in_save(least: int) -> _Instant:
    def draw(random: Random, ground: Ground) -> Point | None:
        return draw_point(random, ground, random.randrange(least, len(ground.saves) + 1))

    return draw


def _once_published(random: Random, ground: Ground, at: Point) -> Point:
    saved = at.step is not None and any(step < at.step for step in ground.saves)
    if not saved or not ground.in_background:
        return at
    return at.model_copy(update={"once_published": often(random, 70)})


def _draw_action(random: Random, ground: Ground, at: Point) -> Action | None:
    there = standing(ground, at)
    if not there and often(random, 50):
        return None  # a name beside the checkpoints is all that a hand could give
    free = free_names(ground.foreign, ground.menu.layout, links=bool(there))
    kinds: list[Callable[[], Action]] = [lambda: draw_foreign(random, free)] if free else []
    is_quiet = at.step is not None and (at.once_published or not ground.in_background)
    if there and is_quiet and ground.menu.layout.pointer is not None:
        kinds += [lambda: _draw_latest(random, there)] * 2
    if ground.menu.files and (len(there) > 1 or (there and _saves_again(ground, at))):
        kinds += [lambda: draw_damage(random, there, ground.menu)] * 4
    return pick(random, kinds)() if kinds else None


def _draw_latest(random: Random, there: tuple[int, ...]) -> Action:
    """The link is lost, or is set back to an older checkpoint; no save is about to swap it."""
    if len(there) > 1 and often(random, 50):
        return Latest(latest=Pointing(step=there[-2]))
    becomes = pick(random, ("absent", "dangling", "directory"))
    return Latest(latest=Pointing.model_validate({"becomes": becomes}))


def standing(ground: Ground, at: Point) -> tuple[int, ...]:
    """The steps of this run whose checkpoints are whole at a point, and that retention keeps.

    A save under way may be about to remove the oldest. Only of the first run is it known which
    step a save that is counted has.
    """
    if at.step is not None:
        begun = tuple(step for step in ground.saves if step < at.step)
        under_way = 0 if at.once_published or not ground.in_background else 1
    else:
        begun = ground.counted[: at.save] if not ground.number else ()
        under_way = 1
    done = tuple(step for step in begun[: len(begun) - under_way] if step)
    keep = ground.checkpoint.keep_last_n
    if keep <= 0:
        return done
    return done[max(0, len(done) - (keep - under_way)) :]


def _saves_again(ground: Ground, at: Point) -> bool:
    """Whether the run certainly comes to a save after this."""
    later = at.step is None or any(step >= at.step for step in ground.saves)
    return ground.comes_through and later
