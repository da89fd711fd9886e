"""Draws the strikes of a run: faults at points that a clean run of the same job has.

At most one fault ends the run, and it comes last, so that the others have fired by then.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from random import Random

from harness.faults.actions import DISPLACING
from harness.faults.answers import fitting, meets
from harness.faults.base import AnyRank, OneRank, Target
from harness.faults.delay import Delay, Pausing
from harness.faults.exit_ import Exit
from harness.faults.fail import Fail, Failing, Until
from harness.faults.hang import Hang
from harness.faults.kill import Kill
from harness.faults.point import Point
from harness.faults.power_cut import PowerCut, PowerCutting
from harness.faults.raise_ import Raise, Raising
from harness.faults.registry import KINDS, AnyFault
from harness.faults.retransmit import RETRANSMITTED, Retransmit
from harness.faults.second_job import SecondJob
from harness.faults.short_write import ShortWrite
from harness.faults.sigterm import Sigterm, Terminating
from harness.faults.starve import Starve, Starving
from harness.faults.stop import Stop, Stopping
from harness.search.generate.chance import often, pick
from harness.search.generate.external_actors import (
    draw_operator,
    draw_second_job,
    has_operator,
    has_second_job,
)
from harness.search.generate.past import ends_run, is_of_load
from harness.search.generate.strikable import (
    Faults,
    StrikableSpan,
    as_default,
    draw_point,
    either_side,
)
from harness.words import ERRORS, EXCEPTIONS, LOADING, PERIODS, READS

NOT_DRAWN = (*(kind.word for kind in KINDS if not kind.drawn_at), *DISPLACING)
"""Faults of jobs on two nodes, and of a launcher; Ctrl-C, for which there is no rule yet; and a
directory that is moved away from a job, which few checkpointers notice. The outcome of a cut link
depends on its timing; SLURM's own daemons take half a minute to start."""

_MOST_STARVED = 3
"""Steps; with an interval of 1 or 2 the next save is due by then."""
_FILE_SYSTEM = "ext4"
"""Likely to exist on every machine that can cut a power at all."""


def draw_faults(random: Random, strikable: StrikableSpan) -> Faults:
    """Draws one fault that ends the run, one that does not, or both in turn; none if none fits."""
    calm: Faults = ()
    if often(random, 40):
        alone = often(random, 50)
        calm = draw_calm(random, replace(strikable, comes_through=alone))
        if calm and (alone or ends_run(calm, goes_on=strikable.goes_on)):
            return calm
    return (*calm, *_draw_ending(random, strikable, calm))


def draw_calm(random: Random, strikable: StrikableSpan) -> Faults:
    """Draws a fault that the run survives: of storage, threads, an external actor, or a stop."""
    kinds: list[Callable[[Random, StrikableSpan], Faults]] = []
    if strikable.number and "storage" not in strikable.without:
        kinds += [_draw_failing_load] * 2
    if strikable.saves and "storage" not in strikable.without:
        kinds += [_draw_storage] * 12
    if "loop" not in strikable.without and strikable.in_background:
        kinds += [_draw_starve] * 2
    if has_operator(strikable):
        kinds += [draw_operator] * 4
    if has_second_job(strikable):
        kinds += [draw_second_job] * 2
    return pick(random, kinds)(random, strikable) if kinds else ()


def _draw_failing_load(random: Random, strikable: StrikableSpan) -> Faults:
    """Draws an error that a load meets once or twice, and that says nothing of the checkpoint."""
    rank = random.randrange(strikable.world.size)
    operation = pick(random, LOADING)
    kinds = READS[:1] if operation == "open" else READS[1:]
    error = pick(random, fitting(kinds))
    layout = strikable.candidates.layout
    files = layout.shards if rank else layout.seals[0]
    path = pick(random, (f"{layout.any_name}/*", f"{layout.any_name}/{files}"))
    at = Point(phase="load", operation=operation, path=path, nth=pick(random, (1, 1, 2)))
    return (Fail(fail=Failing(rank=rank, error=error, times=pick(random, (1, 1, 2))), at=at),)


def _draw_starve(random: Random, strikable: StrikableSpan) -> Faults:
    """Draws a save whose background threads do not run while training goes on."""
    steps = [step for step in strikable.saves if step < strikable.until]
    # A deadline of the scenario would be that of a rank that waits for a starved one.
    if not steps or strikable.checkpoint.timeout_s is not None:
        return ()
    step = pick(random, steps)
    more = random.randrange(1, min(_MOST_STARVED, strikable.until - step) + 1)
    rank = random.randrange(strikable.world.size)
    starving = Starving(rank=pick(random, ("all", "all", rank)), steps=more)
    return (Starve(starve=starving, at=Point(step=step)),)


def _draw_storage(random: Random, strikable: StrikableSpan) -> Faults:
    save = random.randrange(1, len(strikable.saves) + 1)
    at = draw_point(random, strikable, save)
    if at is None or at.rank is None:
        return ()
    return (_draw_storage_fault(random, strikable, at, at.rank),)


def _draw_ending(random: Random, strikable: StrikableSpan, earlier: Faults) -> Faults:
    """Draws the fault that ends the run, later than those before it."""
    begun, reached = _after(strikable, earlier)
    lasts = any(_lasts(one) for one in earlier)
    kinds: list[Callable[[], Faults]] = []
    if begun < len(strikable.saves) and not lasts:
        kinds += [lambda: _end_in_save(random, strikable, begun)] * 6
    if strikable.until > reached:
        kinds += [lambda: _end_at_step(random, strikable, reached)] * 3
    if not earlier and strikable.number:
        kinds += [lambda: _end_in_load(random, strikable)]
    if periods := _periods(strikable, earlier):
        kinds += [lambda: _end_in_period(random, strikable, periods)] * 2
    if not earlier and not strikable.number and strikable.candidates.outside_of_saves():
        kinds += [lambda: _end_outside(random, strikable)]
    return pick(random, kinds)() if kinds else ()


def _after(strikable: StrikableSpan, earlier: Faults) -> tuple[int, int]:
    """Returns the saves begun and the step finished when the faults so far have struck.

    In a later run it is unknown which of its saves come after a step: then none does.
    """
    if not earlier:
        return 0, strikable.first
    first, at = earlier[0], earlier[0].at
    if at.phase == "load":
        return 0, strikable.first
    if at.step is not None:
        begun = sum(step <= at.step for step in strikable.counted)
        return (len(strikable.saves) if strikable.number else begun), at.step
    healed = first.fail.until if isinstance(first, Fail) else None
    begun = (healed.save if healed is not None else at.save) or 0
    waits = isinstance(first, SecondJob) and strikable.in_background
    # Training goes on while a background save waits for the second job to end.
    return begun, strikable.until if waits else max(strikable.first, strikable.saves[begun - 1])


def _lasts(fault: AnyFault) -> bool:
    """Whether later saves may lack some of their operations."""
    return not is_of_load(fault) and _fails_on(fault)


def _fails_on(fault: AnyFault) -> bool:
    return isinstance(fault, Hang) or (isinstance(fault, Fail) and fault.fail.times != 1)


def _end_in_save(random: Random, strikable: StrikableSpan, begun: int) -> Faults:
    save = random.randrange(begun + 1, len(strikable.saves) + 1)
    at = draw_point(random, strikable, save)
    return () if at is None else (_draw_signal(random, strikable, at, at.rank or 0),)


def _end_outside(random: Random, strikable: StrikableSpan) -> Faults:
    at = pick(random, strikable.candidates.outside_of_saves()).named
    return (_draw_kill(random, strikable, either_side(random, at), at.rank or 0),)


def _end_in_load(random: Random, strikable: StrikableSpan) -> Faults:
    rank = random.randrange(strikable.world.size)
    path = pick(random, (None, strikable.candidates.layout.shards))
    at = Point(rank=rank, phase="load", path=path, nth=pick(random, (1, 2)))
    return (_draw_kill(random, strikable, at, rank),)


def _periods(strikable: StrikableSpan, earlier: Faults) -> tuple[str, ...]:
    """Returns the periods that the run enters, and that come after earlier faults."""
    left_out = set[str]() if strikable.number else {"loading"}
    if not strikable.evaluations:
        left_out.add("evaluation")
    if earlier:
        left_out |= {*PERIODS} - {"ending"}
    return tuple(one for one in PERIODS if one not in left_out)


def _end_in_period(random: Random, strikable: StrikableSpan, periods: tuple[str, ...]) -> Faults:
    period = pick(random, periods)
    nth = random.randrange(1, strikable.evaluations + 1) if period == "evaluation" else 1
    at = Point.model_validate({"during": period, "nth": nth})
    rank = random.randrange(strikable.world.size)
    if "loop" not in strikable.without and often(random, 30):
        return (_draw_in_loop(random, at, rank),)
    return (_draw_signal(random, strikable, at.model_copy(update={"rank": rank}), rank),)


def _draw_in_loop(random: Random, at: Point, rank: int) -> AnyFault:
    """Draws an end that a rank brings about itself."""
    if often(random, 50):
        target: AnyRank = pick(random, ("all", rank if at.during != "building" else "all"))
        return Exit(exit=Target(rank=target), at=at)
    raising = Raising(rank=rank, error=pick(random, EXCEPTIONS))
    return Raise.model_validate({"raise": raising, "at": at})


def _end_at_step(random: Random, strikable: StrikableSpan, reached: int) -> Faults:
    """Draws a step late enough that the saves and steps with faults of their own have begun."""
    step = random.randrange(reached + 1, strikable.until + 1)
    rank = random.randrange(strikable.world.size)
    if "loop" not in strikable.without and often(random, 40):
        return (_draw_in_loop(random, Point(step=step), rank),)
    saved = any(one < step for one in strikable.saves)
    published = saved and often(random, 40)
    at = Point(step=step, once_published=published, rank=rank)
    return (_draw_signal(random, strikable, at, rank),)


def _draw_signal(random: Random, strikable: StrikableSpan, at: Point, rank: int) -> AnyFault:
    """Draws SIGKILL, a power cut, or SIGTERM, which lets the loop save once more."""
    if "power" not in strikable.without and not strikable.relocated and often(random, 15):
        journal = pick(random, ("lost", "kept"))
        power = PowerCutting.model_validate({"filesystem": _FILE_SYSTEM, "journal": journal})
        return PowerCut(power_cut=power, at=as_default(at, "all"))
    if "signals" in strikable.without or not often(random, 20):
        return _draw_kill(random, strikable, at, rank)
    target: AnyRank = pick(random, ("all", rank))
    grace = pick(random, (None, 2.0))
    return Sigterm(sigterm=Terminating(rank=target, grace_s=grace), at=as_default(at, target))


def _draw_kill(random: Random, strikable: StrikableSpan, at: Point, rank: int) -> AnyFault:
    others = [one for one in range(strikable.world.size) if one != rank]
    target: AnyRank = pick(random, ("all", "all", rank, *others[:1]))
    return Kill(kill=Target(rank=target), at=as_default(at, target))


def _draw_storage_fault(random: Random, strikable: StrikableSpan, at: Point, rank: int) -> AnyFault:
    """Draws a storage fault for an operation of a save, with an error that fits it."""
    kind, point = at.operation or "", at.model_copy(update={"rank": None, "when": "before"})
    kinds: list[Callable[[], AnyFault]] = [
        lambda: Delay(delay=Pausing(rank=rank, seconds=pick(random, (0.2, 0.5))), at=point),
        lambda: Stop(stop=Stopping(rank=rank, seconds=pick(random, (0.2, 0.5))), at=point),
    ]
    if kind == "write":
        kinds += [lambda: ShortWrite(short_write=OneRank(rank=rank), at=point)] * 2
    if strikable.is_last:
        return pick(random, kinds)()
    if strikable.goes_on and kind in RETRANSMITTED:
        kinds.append(lambda: Retransmit(retransmit=OneRank(rank=rank), at=point))
    if strikable.goes_on and strikable.checkpoint.timeout_s is not None:
        # Only for this fault does a job have a deadline of its own.
        kinds += [lambda: Hang(hang=OneRank(rank=rank), at=point)] * 4
    errors = [one for one in ERRORS if meets(one, kind)]
    if errors:
        error = pick(random, errors)
        kinds += [
            lambda: Fail(fail=_draw_failing(random, strikable, error, point, rank), at=point)
        ] * 3
    return pick(random, kinds)()


def _draw_failing(
    random: Random, strikable: StrikableSpan, error: str, at: Point, rank: int
) -> Failing:
    later = range((at.save or 0) + 1, len(strikable.saves) + 1)
    if strikable.goes_on and later and often(random, 25):
        return Failing(rank=rank, error=error, until=Until(save=pick(random, later)))
    return Failing(rank=rank, error=error, times=pick(random, (1, 1, 3, "always")))
