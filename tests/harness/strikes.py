"""Strikes of plans, by the words of the fault and of the point."""

from __future__ import annotations

from typing import Any

from harness.faults.actions import Action
from harness.faults.operator import Operator
from harness.faults.point import Point
from harness.faults.strike import Strike

_NEEDED: dict[str, dict[str, Any]] = {
    "fail": {"error": "EIO"},
    "stop": {"seconds": 1.0},
    "delay": {"seconds": 1.0},
    "second_job": {"refused": "in use"},
}
_OF_NO_RANK = ("power_cut", "time_limit", "cut_link", "slow_link")


def strike(
    fault: str = "kill",
    says: dict[str, Any] | None = None,
    *,
    ranks: tuple[int, ...] = (0,),
    name: str = "s",
    **point: Any,
) -> Strike:
    """A strike whose point is on the first rank that it hits, unless `rank` says otherwise.

    `says` is what stands beside the rank in the fault.
    """
    whom = {} if fault in _OF_NO_RANK else {"rank": ranks[0] if len(ranks) == 1 else "all"}
    settings = {**whom, **_NEEDED.get(fault, {}), **(says or {})}
    at = {key: value for key, value in point.items() if key != "rank"}
    return Strike.model_validate(
        {
            "id": name,
            "ranks": ranks,
            "point": {"rank": ranks[0], **point},
            "fault": {fault: settings, "at": at},
        }
    )


def operator(action: Action, *, name: str = "s", **point: Any) -> Strike:
    """A strike of an operator, at a point of rank 0."""
    fault = Operator(operator=action, at=Point(**point))
    return Strike(id=name, ranks=(), point=Point(rank=0, **point), fault=fault)
