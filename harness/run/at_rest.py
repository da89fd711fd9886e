"""Does what a plan wants done to the checkpoint directory between two runs, and proves it.

Every deed has to change the directory: it is listed before and after each one. The first that finds
nothing to hit, or changes nothing, is the last; the run after it does not take place.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from harness.evidence.evidence import AtRest, Done, Entry
from harness.evidence.operation import Operation
from harness.evidence.write import list_entries
from harness.faults.actions import Relocate
from harness.layouts.base import Layout
from harness.plan.model import EXECUTED, Deed
from harness.run.deeds import MissedError, Task, do
from harness.run.hand import Hand


def do_at_rest(
    deeds: Sequence[Deed], root: Path, earlier: Sequence[Operation], layout: Layout
) -> AtRest:
    """Do the deeds one after the other. `earlier` is what the ranks of earlier runs did."""
    hand = Hand(root)
    done: list[Done] = []
    behind: dict[str, Entry] = {}
    (root.parent / EXECUTED).mkdir(exist_ok=True)
    for deed in deeds:
        done.append(_do(deed, hand, earlier, layout))
        if isinstance(deed.action, Relocate):
            behind = list_entries(root)
        if done[-1].problem is not None:
            break
    return AtRest(
        done=tuple(done),
        written=bytes(hand.written),
        after=list_entries(hand.root),
        behind=behind,
    )


def _do(deed: Deed, hand: Hand, earlier: Sequence[Operation], layout: Layout) -> Done:
    action, first = deed.action.word, len(hand.operations)
    before, old = list_entries(hand.root), hand.root
    task = Task(
        hand=hand,
        choice=deed.choice,
        marker=hand.root.parent / EXECUTED / deed.id,
        earlier=earlier,
        layout=layout,
    )
    paths: tuple[str, ...] = ()
    problem: str | None = None
    try:
        paths = do(task, action, getattr(deed.action, action))
        hand.sync()
    except MissedError as error:
        problem = str(error)
    moved = hand.root != old
    if problem is None and (list_entries(hand.root) == before) is not moved:
        problem = "changed nothing" if not moved else "the new directory differs from the old one"
    return Done(
        deed=deed.id,
        action=action,
        paths=paths,
        operations=tuple(hand.operations[first:]),
        problem=problem,
    )
