"""Draws what strikes a run: faults at points that a clean run of the same job has.

At most one fault ends the run, and it comes last, so that the others have landed by then.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

from harness.generate.chance import often, pick
from harness.generate.job import Areas
from harness.generate.menu import Menu, Offer
from harness.run.storage_faults import meets
from harness.scenario.schema import (
    AnyFault,
    AnyRank,
    Checkpoint,
    Delay,
    Exit,
    Fail,
    Failing,
    Hang,
    Kill,
    Point,
    Raise,
    ShortWrite,
    Sigterm,
    Stop,
    Target,
    Until,
    World,
)
from harness.scenario.targets import OneRank, Pausing, Raising, Stopping, Terminating
from harness.scenario.words import ERRORS, EXCEPTIONS

ENDING = ("kill", "sigterm", "raise", "exit")
"""The faults after which a run is over."""

NOT_DRAWN = ("power_cut", "second_job", "by_hand", "cut_link", "slow_link", "time_limit")
"""Faults that need root, or that cost ten seconds or more a run, or that change what a clean run of
the job would say of its points."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """What one run has that can be struck.

    `saves` are the steps of the saves that it makes wherever it resumes, `first` is the latest step
    from which it can. `number` is the run's, from 0. After the last run nobody clears away what a
    failing storage has kept from being removed.
    """

    number: int
    is_last: bool
    world: World
    checkpoint: Checkpoint
    menu: Menu
    without: Areas
    first: int
    until: int
    saves: tuple[int, ...]

    @property
    def goes_on(self) -> bool:
        """Whether the training loop goes on after a failed save."""
        return self.checkpoint.on_error == "go_on"


Faults = tuple[AnyFault, ...]


def draw_faults(random: Random, ground: Ground) -> Faults:
    """One fault that ends the run, one that does not, or one after the other; none if none fits."""
    calm = draw_calm(random, ground) if often(random, 30) else ()
    if ends_run(calm, goes_on=ground.goes_on) or (calm and often(random, 50)):
        return calm
    return (*calm, *_draw_ending(random, ground, calm))


def draw_calm(random: Random, ground: Ground) -> Faults:
    """A fault in a save that the run comes through: slow or failing storage, a rank that stops."""
    if not ground.saves or "storage" in ground.without:
        return ()
    save = random.randrange(1, len(ground.saves) + 1)
    at = _draw_point(random, ground, save)
    if at is None or at.rank is None:
        return ()
    return (_draw_storage_fault(random, ground, at, at.rank),)


def _draw_ending(random: Random, ground: Ground, earlier: Faults) -> Faults:
    """The fault that ends a run, later than those before it."""
    begun = earlier[0].at.save or 0 if earlier else 0
    lasts = any(_lasts(one) for one in earlier)
    kinds: list[Callable[[], Faults]] = []
    if begun < len(ground.saves) and not lasts:
        kinds += [lambda: _end_in_save(random, ground, begun)] * 6
    if ground.until > ground.first:
        kinds += [lambda: _end_at_step(random, ground, begun)] * 3
    if not earlier and ground.number:
        kinds += [lambda: _end_in_load(random, ground)]
    if not earlier and not ground.number and ground.menu.outside_of_saves():
        kinds += [lambda: _end_outside(random, ground)]
    return pick(random, kinds)() if kinds else ()


def _lasts(fault: AnyFault) -> bool:
    """Whether later saves may be without some of their operations."""
    return isinstance(fault, Hang) or (isinstance(fault, Fail) and fault.fail.times != 1)


def _end_in_save(random: Random, ground: Ground, begun: int) -> Faults:
    save = random.randrange(begun + 1, len(ground.saves) + 1)
    at = _draw_point(random, ground, save)
    return () if at is None else (_draw_signal(random, ground, at, at.rank or 0),)


def _end_outside(random: Random, ground: Ground) -> Faults:
    at = pick(random, ground.menu.outside_of_saves()).named
    return (_draw_kill(random, ground, _either_side(random, at), at.rank or 0),)


def _end_in_load(random: Random, ground: Ground) -> Faults:
    rank = random.randrange(ground.world.size)
    path = pick(random, (None, "*.distcp"))
    at = Point(rank=rank, phase="load", path=path, nth=pick(random, (1, 2)))
    return (_draw_kill(random, ground, at, rank),)


def _end_at_step(random: Random, ground: Ground, begun: int) -> Faults:
    """Late enough that the saves with faults of their own have begun."""
    least = max(ground.first, ground.saves[begun - 1] if begun else 0)
    if least >= ground.until:
        return ()
    step = random.randrange(least + 1, ground.until + 1)
    rank = random.randrange(ground.world.size)
    if "loop" not in ground.without and often(random, 40):
        at = Point(step=step)
        if often(random, 50):
            return (Exit(exit=Target(rank=pick(random, ("all", rank))), at=at),)
        raising = Raising(rank=rank, error=pick(random, EXCEPTIONS))
        return (Raise.model_validate({"raise": raising, "at": at}),)
    saved = any(one < step for one in ground.saves)
    published = saved and often(random, 40)
    at = Point(step=step, once_published=published, rank=rank)
    return (_draw_signal(random, ground, at, rank),)


def _draw_signal(random: Random, ground: Ground, at: Point, rank: int) -> AnyFault:
    """SIGKILL, or SIGTERM which lets the loop save once more."""
    if "signals" in ground.without or not often(random, 20):
        return _draw_kill(random, ground, at, rank)
    whom: AnyRank = pick(random, ("all", rank))
    grace = pick(random, (None, 2.0))
    return Sigterm(sigterm=Terminating(rank=whom, grace_s=grace), at=_as_default(at, whom))


def _draw_kill(random: Random, ground: Ground, at: Point, rank: int) -> AnyFault:
    others = [one for one in range(ground.world.size) if one != rank]
    whom: AnyRank = pick(random, ("all", "all", rank, *others[:1]))
    return Kill(kill=Target(rank=whom), at=_as_default(at, whom))


def _draw_storage_fault(random: Random, ground: Ground, at: Point, rank: int) -> AnyFault:
    """What one operation of a save can meet. The error fits it, as a file system would answer."""
    kind, point = at.operation or "", at.model_copy(update={"rank": None, "when": "before"})
    kinds: list[Callable[[], AnyFault]] = [
        lambda: Delay(delay=Pausing(rank=rank, seconds=pick(random, (0.2, 0.5))), at=point),
        lambda: Stop(stop=Stopping(rank=rank, seconds=pick(random, (0.2, 0.5))), at=point),
    ]
    if kind == "write":
        kinds.append(lambda: ShortWrite(short_write=OneRank(rank=rank), at=point))
    if ground.is_last:
        return pick(random, kinds)()
    if ground.goes_on and ground.checkpoint.timeout_s is not None:
        # Only for this does a job have a deadline of its own.
        kinds += [lambda: Hang(hang=OneRank(rank=rank), at=point)] * 4
    errors = [one for one in ERRORS if meets(one, kind)]
    if errors:
        error = pick(random, errors)
        kinds += [
            lambda: Fail(fail=_draw_failing(random, ground, error, point, rank), at=point)
        ] * 3
    return pick(random, kinds)()


def _draw_failing(random: Random, ground: Ground, error: str, at: Point, rank: int) -> Failing:
    later = range((at.save or 0) + 1, len(ground.saves) + 1)
    if ground.goes_on and later and often(random, 25):
        return Failing(rank=rank, error=error, until=Until(save=pick(random, later)))
    return Failing(rank=rank, error=error, times=pick(random, (1, 1, 3, "always")))


def _draw_point(random: Random, ground: Ground, save: int) -> Point | None:
    """An operation of a save; each phase is as likely as the others, however short it is.

    Later runs save other steps, and prune from the first save on, as late saves of the first do.
    """
    recorded = save if not ground.number else min(save + 1, ground.menu.saves)
    offers = ground.menu.of_save(recorded)
    if not offers:
        return None
    phases = sorted({one.named.phase or "" for one in offers})
    phase = pick(random, phases)
    offer = pick(random, [one for one in offers if (one.named.phase or "") == phase])
    return _either_side(random, _named(random, offer, ground).model_copy(update={"save": save}))


def _named(random: Random, offer: Offer, ground: Ground) -> Point:
    if offer.counted is not None and (ground.number or often(random, 70)):
        return offer.counted
    return offer.named


def _either_side(random: Random, at: Point) -> Point:
    return at.model_copy(update={"when": pick(random, ("before", "after"))})


def _as_default(at: Point, whom: AnyRank) -> Point:
    """A point without its rank where that is the one that would be taken anyway."""
    usual = 0 if whom == "all" else whom
    return at.model_copy(update={"rank": None}) if at.rank == usual else at


def ends_run(faults: Sequence[AnyFault], *, goes_on: bool) -> bool:
    """Whether a run with these faults may be over before its last step."""
    deadly = Kill | Sigterm | Raise | Exit
    return any(
        isinstance(one, deadly) or (not goes_on and isinstance(one, Fail | Hang)) for one in faults
    )
