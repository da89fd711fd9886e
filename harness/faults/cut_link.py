"""The cable of one node is pulled, and put back after some seconds or never.

Fault model: packets in flight are lost, connections stay open on both sides, and no process is
notified. The ranks of one node still reach each other. The checkpoint directory is shared over a
separate storage network, which is never cut.

What must survive: no rank waits beyond the manager's deadline; every rank learns that the save
failed, and each side names the other; no half of a save is committed; the job continues once the
cable is back, and otherwise restarts. Out of scope: packets that are reordered, doubled or garbled,
a cut of one direction alone, and a cut after a save was decided on, whose last answer cannot be
delivered.
"""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from harness.faults.base import Fault, Owed
from harness.faults.effects import Effects, PlannedStrike
from harness.part import Part
from harness.world import World

_PUT_BACK = Owed(word="healed", otherwise="its cable was never put back")


class LinkCut(Part):
    """Which node's cable is pulled, and for how long."""

    node: int = Field(1, ge=0, le=1)
    seconds: float | None = Field(None, gt=0, description="default: it is never put back")


class CutLink(Fault):
    """One node loses the other nodes, but not the checkpoint directory."""

    word: ClassVar[str] = "cut_link"
    parts_ranks: ClassVar[bool] = True
    needs_nodes: ClassVar[bool] = True
    is_beside_others: ClassVar[bool] = False
    area: ClassVar[str | None] = "network"
    drawn_at: ClassVar[tuple[str, ...]] = ()
    cut_link: LinkCut

    def ranks_hit(self, world: World) -> tuple[int, ...]:
        return tuple(
            rank for rank in range(world.size) if world.node_of(rank) == self.cut_link.node
        )

    def label(self) -> str:
        return f"cut_link-node{self.cut_link.node}"

    @property
    def lasts(self) -> bool:
        """Whether the cable is never put back."""
        return self.cut_link.seconds is None

    def may_be_silent_s(self) -> float:
        return self.cut_link.seconds or 0.0

    def may_end_run(self, *, goes_on: bool, timeout_s: float | None) -> bool:
        return self.lasts

    def may_fail_saves(self, timeout_s: float | None) -> bool:
        return True

    def owes(self) -> Owed | None:
        return None if self.lasts else _PUT_BACK

    def describe(self) -> str:
        return "a node is cut off"

    def carry_out(self, strike: PlannedStrike, effects: Effects) -> None:
        effects.cut_link(strike, self.cut_link.node, self.cut_link.seconds)
        effects.record_fired(strike)
