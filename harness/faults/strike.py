"""A fault of a plan: which ranks it hits, and the point at which it strikes."""

from __future__ import annotations

import re

from harness.faults.base import Fault
from harness.faults.point import Point
from harness.faults.registry import AnyFault
from harness.part import Decided
from harness.world import World


class Strike(Decided):
    """A fault at a point. `ranks` are the ranks that it hits; `point.rank` is always set."""

    id: str
    ranks: tuple[int, ...]
    point: Point
    fault: AnyFault


def make_strike(fault: Fault, number: int, world: World) -> Strike:
    """Returns the strike of a fault in the run `number`, with this arrangement of the ranks."""
    ranks = fault.ranks_hit(world)
    first = ranks[0] if ranks else 0
    at_rank = first if fault.at.rank is None else fault.at.rank
    elsewhere = "" if at_rank == first else f"-at-rank{at_rank}"
    point = fault.at.model_copy(update={"rank": at_rank})
    return Strike(
        id=f"run{number}.{fault.label()}{elsewhere}-{_name_point(point)}",
        ranks=ranks,
        point=point,
        fault=fault,
    )


def _name_point(point: Point) -> str:
    if point.during is not None:
        return "-".join([point.during, *([str(point.nth)] if point.nth > 1 else [])])
    if point.step is not None:
        return f"step{point.step}" + ("-once-published" if point.once_published else "")
    path = None if point.path is None else re.sub(r"[^A-Za-z0-9_.]+", "_", point.path)
    save = None if point.save is None else f"save{point.save}"
    words = (save, point.phase, point.operation, path, str(point.nth), point.when)
    return "-".join(word for word in words if word)
