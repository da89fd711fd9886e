"""The link of one node carries only a given number of kilobits a second from then on.

What must survive: the job; a slow peer is not a dead one.
"""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from harness.faults.base import Fault
from harness.faults.effects import Effects, PlannedStrike
from harness.part import Part
from harness.world import World


class Slowing(Part):
    """Which node's link is slowed, and to what rate."""

    node: int = Field(1, ge=0, le=1)
    kbit_s: int = Field(ge=64)


class SlowLink(Fault):
    """The link to one node carries less from then on."""

    word: ClassVar[str] = "slow_link"
    needs_nodes: ClassVar[bool] = True
    is_beside_others: ClassVar[bool] = False
    area: ClassVar[str | None] = "network"
    drawn_at: ClassVar[tuple[str, ...]] = ()
    slow_link: Slowing

    def ranks_hit(self, world: World) -> tuple[int, ...]:
        return tuple(
            rank for rank in range(world.size) if world.node_of(rank) == self.slow_link.node
        )

    def label(self) -> str:
        return f"slow_link-node{self.slow_link.node}"

    def describe(self) -> str:
        return "the link to a node is slow"

    def carry_out(self, strike: PlannedStrike, effects: Effects) -> None:
        effects.slow_link(self.slow_link.node, self.slow_link.kbit_s)
        effects.record_fired(strike)
