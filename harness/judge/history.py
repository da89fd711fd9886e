"""What could be seen in the checkpoint directory, instant by instant, over all runs."""

from __future__ import annotations

from dataclasses import dataclass

from harness.evidence.evidence import Entry, Evidence
from harness.judge.tree import FileSystem, Node, View
from harness.layout.protocol import Layout, Resolved
from harness.scenario.schema import World


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """One directory that carries the name of a checkpoint.

    `identity` tells one directory from another that took its name; `version` grows with every
    change inside.
    """

    step: int
    defects: tuple[str, ...]
    freeze: object | None
    identity: int
    version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """What one look at the checkpoint directory finds."""

    latest: Resolved
    found: dict[str, Found]

    def whole(self) -> dict[str, Found]:
        """The checkpoints without defects."""
        return {name: one for name, one in self.found.items() if not one.defects}


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """The three views of the tree after an operation that changed one of them.

    `live` is what a kill leaves, `durable` and `journaled` what a power cut can leave.
    """

    run: int
    index: int
    live: State
    durable: State
    journaled: State


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """All moments in their order, and how the replay compares with the disk after each run."""

    layout: Layout
    moments: tuple[Moment, ...]
    ends: tuple[State, ...]
    """The live state after each run."""
    gaps: tuple[str, ...]
    """Where the replayed tree differs from what lay on the disk: the trace missed something."""

    def starts(self, run: int) -> State:
        """The live state before a run."""
        return self.ends[run - 1] if run else _NOTHING

    def durable_at(self, run: int, operations: int) -> State:
        """What a power cut would have left after that many operations of the run."""
        state = _NOTHING
        for moment in self.moments:
            if (moment.run, moment.index) < (run, operations):
                state = moment.durable
        return state


_NOTHING = State(latest=Resolved(state="absent"), found={})


def replay(evidence: Evidence, layout: Layout) -> History:
    """Replay the operations of all runs and look at the directory after each."""
    watch = _Watch(layout, evidence.plan.workload.world)
    moments: list[Moment] = []
    ends: list[State] = []
    gaps: list[str] = []
    for number, run in enumerate(evidence.runs):
        for operation in run.operations:
            watch.files.apply(operation, run.written)
            states = watch.look()
            if states is not None:
                live, durable, journaled = states
                moment = Moment(
                    run=number,
                    index=operation.index,
                    live=live,
                    durable=durable,
                    journaled=journaled,
                )
                moments.append(moment)
        watch.files.end_run()
        ends.append(moments[-1].live if moments else _NOTHING)
        gaps += _differences(number, watch.files.snapshot(), run.after)
    return History(layout=layout, moments=tuple(moments), ends=tuple(ends), gaps=tuple(gaps))


_States = tuple[State, State, State]


class _Watch:
    """Looks at the directory again only where something changed."""

    def __init__(self, layout: Layout, world: World) -> None:
        self.files = FileSystem()
        self._layout = layout
        self._world = world
        self._views = (
            View(self.files, "live"),
            View(self.files, "durable"),
            View(self.files, "journaled"),
        )
        self._states: _States = (_NOTHING, _NOTHING, _NOTHING)
        self._watched: set[int] = set()
        self._root_versions = (0, 0)
        self._known: dict[tuple[bool, str, int], Found] = {}

    def look(self) -> _States | None:
        """The three states, or None when none of them changed."""
        touched = self.files.touched
        if not touched:
            return None
        root = self.files.root
        names_changed = self._names_changed()
        relevant = names_changed or any(node.number in self._watched for node in touched)
        touched.clear()
        if not relevant:
            return None
        live, durable, journaled = (self._state(view) for view in self._views)
        self._watched = {
            node.number
            for entries in (root.entries, root.synced)
            for name, node in entries.items()
            if self._layout.owned(name)
        }
        if (live, durable, journaled) == self._states:
            return None
        self._states = (live, durable, journaled)
        return self._states

    def _names_changed(self) -> bool:
        """Whether the names in the checkpoint directory itself are others than before."""
        root = self.files.root
        now = (hash(_shape(root.entries)), hash(_shape(root.synced)))
        changed, self._root_versions = now != self._root_versions, now
        return changed

    def _state(self, view: View) -> State:
        found = {
            name: self._look_at(view, name, step)
            for name, step in self._layout.checkpoints(view).items()
        }
        return State(latest=self._layout.latest(view), found=found)

    def _look_at(self, view: View, name: str, step: int) -> Found:
        node = view.node(name)
        assert node is not None, "the layout named a directory that the view does not show"
        key = (view is self._views[0], name, node.number)
        known = self._known.get(key)
        if known is None or known.version != view.version(node):
            known = Found(
                step=step,
                defects=(
                    *self._layout.defects(view, name, self._world),
                    *(f"{path} has bytes that were not synced" for path in view.unsynced(name)),
                ),
                freeze=self._layout.freeze(view, name),
                identity=node.number,
                version=view.version(node),
            )
            self._known[key] = known
        return known


def _shape(entries: dict[str, Node]) -> tuple[tuple[str, int], ...]:
    return tuple((name, node.number) for name, node in entries.items())


def _differences(run: int, replayed: dict[str, Entry], found: dict[str, Entry]) -> list[str]:
    gaps: list[str] = []
    for path in sorted((replayed.keys() | found.keys()) - {"."}):
        here, there = replayed.get(path), found.get(path)
        if here != there:
            gaps.append(f"run {run}: {path}: {_tell(here)} by the trace, {_tell(there)} on disk")
    return gaps


def _tell(entry: Entry | None) -> str:
    return "absent" if entry is None else f"{entry.kind} {entry.detail}".strip()
