"""Judges a state of the disk as a directory: would a resume find what it must?

    latest_durable   the pointer is absent or leads to a whole checkpoint
    whole_or_absent  every directory with a checkpoint's name is a whole checkpoint
    nothing_lost     what was acknowledged to a rank, and the job has not removed since,
                     is there; the pointer, if it is there, leads to the newest of these or to
                     a later one

A directory is whole if it holds, name for name and byte for byte, what it held at some instant of
the run at which the layout found nothing wrong with it under this name, before its removal began.
So files that only its implementation knows count as well.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from harness.disk.state import Parts, PartTree
from harness.layouts.base import Layout
from harness.world import World


class StateDefect(NamedTuple):
    """A defect of a state: the property that it breaks, and how."""

    property: str
    name: str
    """The checkpoint that it concerns."""
    text: str


class Needs(NamedTuple):
    """The checkpoints that must be there at an instant, because they were acknowledged."""

    steps: frozenset[int]
    """Every step that was acknowledged to the job."""
    present: frozenset[str]
    """The checkpoints of these steps that the job itself has not removed."""


@dataclass(slots=True)
class _SeenStages:
    parts: set[int]
    digests: set[str]


class DirectoryJudge:
    """Knows which trees are whole checkpoints, and remembers every answer."""

    def __init__(self, parts: Parts, layout: Layout, world: World) -> None:
        self._parts, self._layout, self._world = parts, layout, world
        self._whole: dict[str, _SeenStages] = {}
        self._checked: set[tuple[str, int]] = set()
        self._faults: dict[tuple[tuple[tuple[str, int], ...], Needs], tuple[StateDefect, ...]] = {}

    def learn(self, live: int) -> None:
        """Note which checkpoints the running job finds whole at this instant."""
        fresh = [one for one in self._parts.names(live) if one not in self._checked]
        if not fresh:
            return
        self._checked.update(fresh)
        tree = PartTree(self._parts, live)
        checkpoints = self._layout.checkpoints(tree)
        for name, number in fresh:
            if name in checkpoints and not self._layout.defects(tree, name, self._world):
                self._accept(name, number)

    def skip(self, live: int) -> None:
        """Note what the removal of a checkpoint leaves: it is not whole any more."""
        self._checked.update(self._parts.names(live))

    def needs(self, live: int, steps: frozenset[int]) -> Needs:
        """Returns the checkpoints that a power cut must not take at this instant."""
        checkpoints = self._layout.checkpoints(PartTree(self._parts, live))
        present = {
            name
            for name, number in self._parts.names(live)
            if checkpoints.get(name) in steps and self.is_whole(name, number)
        }
        return Needs(steps, frozenset(present))

    def is_whole(self, name: str, number: int) -> bool:
        """Whether the tree is a whole checkpoint of that name."""
        seen = self._whole.get(name)
        if seen is None:
            return False
        if number in seen.parts:
            return True
        if self._parts.digest(number) in seen.digests:
            seen.parts.add(number)
            return True
        return False

    def owned(self, root: int) -> tuple[tuple[str, int], ...]:
        """Returns the names in a state that mean something to a resume."""
        return tuple(one for one in self._parts.names(root) if self._layout.owned(one[0]))

    def seen_by_resume(self, root: int) -> tuple[tuple[str, object], ...]:
        """Returns what a resume sees of a state: for foreign names, whether they are whole."""
        found: list[tuple[str, object]] = []
        for name, number in self._parts.names(root):
            if self._layout.owned(name):
                found.append((name, self._parts.digest(number)))
            else:
                found.append((name, any(self.is_whole(known, number) for known in self._whole)))
        return tuple(found)

    def faults(self, root: int, needs: Needs) -> tuple[StateDefect, ...]:
        """Returns the defects of a state; empty if a resume finds what it must."""
        key = (self.owned(root), needs)
        known = self._faults.get(key)
        if known is None:
            known = self._faults[key] = tuple(self._find(root, *key))
        return known

    def _accept(self, name: str, number: int) -> None:
        seen = self._whole.setdefault(name, _SeenStages(set(), set()))
        seen.parts.add(number)
        seen.digests.add(self._parts.digest(number))

    def _find(
        self, root: int, owned: tuple[tuple[str, int], ...], needs: Needs
    ) -> list[StateDefect]:
        tree = PartTree(self._parts, root)
        latest = self._layout.latest(tree)
        steps = self._layout.checkpoints(tree)
        whole = {name for name, number in owned if name in steps and self.is_whole(name, number)}
        faults: list[StateDefect] = []
        if latest.state == "checkpoint" and latest.name not in whole:
            why = self._why(tree, latest.name or "")
            detail = f"`{self._layout.pointer}` names {latest.name}, {why}"
            faults.append(StateDefect("latest_durable", latest.name or "", detail))
        elif latest.state not in ("absent", "checkpoint"):
            name = latest.name or self._layout.pointer or ""
            faults.append(StateDefect("latest_durable", name, latest.detail))
        faults += [
            StateDefect("whole_or_absent", name, f"{name}, {self._why(tree, name)}")
            for name in steps
            if name not in whole
        ]
        current = None if latest.state != "checkpoint" else steps.get(latest.name or "")
        lost = self._lost({name: steps[name] for name in whole}, current, needs)
        return faults + ([StateDefect("nothing_lost", *lost)] if lost is not None else [])

    def _why(self, tree: PartTree, name: str) -> str:
        defects = self._layout.defects(tree, name, self._world)
        if defects:
            return f"where {defects[0]}"
        return "which is complete by its layout, but is not what the job had written there"

    def _lost(
        self, whole: dict[str, int], current: int | None, needs: Needs
    ) -> tuple[str, str] | None:
        """Returns an acknowledged checkpoint that is missing, and how.

        `current` is the step that the pointer names.
        """
        if not needs.steps:
            return None
        newest = max(needs.steps)
        name = self._layout.name_of(newest)
        if all(step < newest for step in whole.values()):
            return name, f"no whole checkpoint of step {newest} or later"
        gone = sorted(needs.present - whole.keys())
        if gone:
            return gone[0], f"{gone[0]} is gone, and the job did not remove it"
        if current is not None and current < newest:
            return name, f"`{self._layout.pointer}` still names {self._layout.name_of(current)}"
        return None
