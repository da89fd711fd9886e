"""Draws an operator's actions between two runs: damage only if another checkpoint stays."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from harness.faults.actions import (
    Action,
    AddLeftover,
    Delete,
    FlipBit,
    Flipping,
    Foreign,
    HalfDelete,
    Hostile,
    Leaving,
    OnFiles,
    Placing,
    Pointing,
    Relocate,
    SetLatest,
    Swap,
    Swapping,
    Truncate,
    Truncation,
    Write,
    Writing,
)
from harness.layouts.base import Layout
from harness.search.generate.candidates import Candidates
from harness.search.generate.chance import often, pick
from harness.search.generate.job import Areas
from harness.search.generate.past import Past

_PLACES = ("elsewhere", "moved")


def draw_actions(
    random: Random, past: Past, candidates: Candidates, *, relocated: bool, without: Areas
) -> tuple[Action, ...]:
    """Draws one or two actions that surely find something to hit; none if that is not certain."""
    if "at_rest" in without or not past.certain:
        return ()
    kinds = [_draw_latest] * (candidates.layout.pointer is not None)
    kinds += [_draw_leftover] * bool(candidates.leftovers)
    if free_names(past.foreign, candidates.layout, links=True):
        kinds.insert(0, _draw_foreign)
    first: list[Action] = []
    if kinds and often(random, 50):
        first = [pick(random, kinds)(random, past, candidates)]
    if len(past.certain) > 1 and candidates.files and (not first or often(random, 30)):
        # A link that leads elsewhere and damage to its target are two causes.
        first = [one for one in first if not isinstance(one, SetLatest)]
        return (*first, draw_damage(random, past.certain, candidates))
    if not relocated and not first:
        return (
            Relocate(
                relocate=Placing(how=pick(random, ("move", "copy")), to=pick(random, _PLACES))
            ),
        )
    return tuple(first)


def free_names(
    taken: frozenset[str], layout: Layout, *, links: bool
) -> tuple[tuple[str, str], ...]:
    """Returns free names beside the checkpoints; a link needs a checkpoint as its target."""
    foreign = (
        ("notes.txt", "file"),
        *((name, "directory") for name in layout.lookalikes),
        ("best", "link"),
    )
    return tuple(one for one in foreign if one[0] not in taken and (links or one[1] != "link"))


def draw_foreign(random: Random, free: tuple[tuple[str, str], ...]) -> Action:
    """Draws a name that no operator has taken so far."""
    path, kind = pick(random, free)
    return Foreign.model_validate({"foreign": {"path": path, "kind": kind}})


def _draw_foreign(random: Random, past: Past, candidates: Candidates) -> Action:
    return draw_foreign(random, free_names(past.foreign, candidates.layout, links=True))


def _draw_leftover(random: Random, past: Past, candidates: Candidates) -> Action:
    del past
    return AddLeftover(
        leftover=Leaving.model_validate({"kind": pick(random, candidates.leftovers)})
    )


def _draw_latest(random: Random, past: Past, candidates: Candidates) -> Action:
    """Draws a lost link, or one that is set back to an older checkpoint."""
    del candidates
    if len(past.certain) > 1 and often(random, 50):
        return SetLatest(latest=Pointing(step=past.certain[-2]))
    becomes = pick(random, ("absent", "dangling", "directory"))
    return SetLatest(latest=Pointing.model_validate({"becomes": becomes}))


def draw_damage(random: Random, steps: tuple[int, ...], candidates: Candidates) -> Action:
    """Draws damage to the newest of these checkpoints; the one before it stays whole."""
    layout = candidates.layout
    top = layout.name_of(steps[-1])
    path = f"{top}/{pick(random, candidates.files)}"
    kinds: list[Callable[[], Action]] = [
        lambda: FlipBit(flip_bit=Flipping(path=path)),
        lambda: Truncate(truncate=Truncation(path=path, to=pick(random, (None, 0, 1)))),
        lambda: Delete(delete=OnFiles(path=pick(random, (path, top)))),
        lambda: HalfDelete(half_delete=OnFiles(path=top)),
        lambda: Write(write=Writing(path=f"{top}/{layout.summary}", text=pick(random, ("{}", "")))),
    ]
    pickles = [one for one in candidates.files if one.endswith(layout.pickles)]
    if pickles:
        kinds.append(lambda: Hostile(hostile=OnFiles(path=f"{top}/{pick(random, pickles)}")))
    if len(steps) > 2 and layout.shards in candidates.files:
        against = layout.name_of(steps[-2])
        kinds += [lambda: Swap(swap=Swapping(path=f"{top}/{layout.shards}", against=against))] * 3
    return pick(random, kinds)()
