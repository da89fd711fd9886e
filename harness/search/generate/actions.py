"""Draws what a hand does between two runs. There is damage only where another checkpoint stays."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from harness.faults.actions import (
    Action,
    Cutting,
    Delete,
    FlipBit,
    Flipping,
    Foreign,
    HalfDelete,
    Hostile,
    Latest,
    Leaving,
    Leftover,
    OnFiles,
    Placing,
    Pointing,
    Relocate,
    Swap,
    Swapping,
    Truncate,
    Write,
    Writing,
)
from harness.layouts.base import Layout
from harness.search.generate.chance import often, pick
from harness.search.generate.job import Areas
from harness.search.generate.menu import Menu
from harness.search.generate.past import Past

_PLACES = ("elsewhere", "moved")


def draw_actions(
    random: Random, past: Past, menu: Menu, *, relocated: bool, without: Areas
) -> tuple[Action, ...]:
    """One or two actions that surely find something to hit; none where that is not certain."""
    if "at_rest" in without or not past.certain:
        return ()
    kinds = [_draw_latest] * (menu.layout.pointer is not None)
    kinds += [_draw_leftover] * bool(menu.leftovers)
    if free_names(past.foreign, menu.layout, links=True):
        kinds.insert(0, _draw_foreign)
    first: list[Action] = []
    if kinds and often(random, 50):
        first = [pick(random, kinds)(random, past, menu)]
    if len(past.certain) > 1 and menu.files and (not first or often(random, 30)):
        # A link that leads elsewhere and damage to where it leads are two stories.
        first = [one for one in first if not isinstance(one, Latest)]
        return (*first, draw_damage(random, past.certain, menu))
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
    """Names that are free beside the checkpoints; a link needs a checkpoint as its target."""
    foreign = (
        ("notes.txt", "file"),
        *((name, "directory") for name in layout.lookalikes),
        ("best", "link"),
    )
    return tuple(one for one in foreign if one[0] not in taken and (links or one[1] != "link"))


def draw_foreign(random: Random, free: tuple[tuple[str, str], ...]) -> Action:
    """A name that no hand has taken so far."""
    path, kind = pick(random, free)
    return Foreign.model_validate({"foreign": {"path": path, "kind": kind}})


def _draw_foreign(random: Random, past: Past, menu: Menu) -> Action:
    return draw_foreign(random, free_names(past.foreign, menu.layout, links=True))


def _draw_leftover(random: Random, past: Past, menu: Menu) -> Action:
    del past
    return Leftover(leftover=Leaving.model_validate({"kind": pick(random, menu.leftovers)}))


def _draw_latest(random: Random, past: Past, menu: Menu) -> Action:
    """The link is lost, or is set back to an older checkpoint."""
    del menu
    if len(past.certain) > 1 and often(random, 50):
        return Latest(latest=Pointing(step=past.certain[-2]))
    becomes = pick(random, ("absent", "dangling", "directory"))
    return Latest(latest=Pointing.model_validate({"becomes": becomes}))


def draw_damage(random: Random, steps: tuple[int, ...], menu: Menu) -> Action:
    """To the newest of these checkpoints; the one before it stays whole."""
    layout = menu.layout
    top = layout.name_of(steps[-1])
    path = f"{top}/{pick(random, menu.files)}"
    kinds: list[Callable[[], Action]] = [
        lambda: FlipBit(flip_bit=Flipping(path=path)),
        lambda: Truncate(truncate=Cutting(path=path, to=pick(random, (None, 0, 1)))),
        lambda: Delete(delete=OnFiles(path=pick(random, (path, top)))),
        lambda: HalfDelete(half_delete=OnFiles(path=top)),
        lambda: Write(write=Writing(path=f"{top}/{layout.summary}", text=pick(random, ("{}", "")))),
    ]
    pickles = [one for one in menu.files if one.endswith(layout.pickles)]
    if pickles:
        kinds.append(lambda: Hostile(hostile=OnFiles(path=f"{top}/{pick(random, pickles)}")))
    if len(steps) > 2 and layout.shards in menu.files:
        against = layout.name_of(steps[-2])
        kinds += [lambda: Swap(swap=Swapping(path=f"{top}/{layout.shards}", against=against))] * 3
    return pick(random, kinds)()
