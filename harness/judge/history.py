"""The checkpoint directory as it could be seen, instant by instant, over all runs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from harness.content import Content
from harness.disk.disk import Disk
from harness.disk.profiles import PROFILES
from harness.disk.replay import Stretch, at_rest, by_actor
from harness.disk.tree import TreeNode
from harness.disk.view import View
from harness.evidence.evidence import DirectoryEntry, Evidence
from harness.judge.marks import Marks, Top, mark, top_names
from harness.layouts.base import Layout
from harness.layouts.tree import Resolved, Tree
from harness.world import World


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundCheckpoint:
    """One directory that has the name of a checkpoint.

    `identity` distinguishes it from another directory that took its name; `version` grows with
    every change inside.
    """

    step: int
    defects: tuple[str, ...]
    freeze: object | None
    tokens_seen: object | None
    identity: int
    version: int
    files: Mapping[str, Content] = field(default_factory=dict, compare=False, repr=False)
    """Its files by their paths in it, if nothing is missing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DirectoryState:
    """The result of one look at the checkpoint directory."""

    latest: Resolved
    found: dict[str, FoundCheckpoint]
    latest_defects: tuple[str, ...] = ()
    """Of the directory that `latest` names, whatever its name is."""

    def keeps_one_set_aside(self) -> bool:
        """Whether `latest` leads to a whole checkpoint that temporarily has another name."""
        aside = self.latest.state == "checkpoint" and self.latest.name not in self.found
        return aside and not self.latest_defects

    def whole(self) -> dict[str, FoundCheckpoint]:
        """Returns the checkpoints without defects."""
        return {name: one for name, one in self.found.items() if not one.defects}


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """The three views of the tree after an operation that changed one of them.

    `live` is what a kill leaves, `durable` and `journaled` what a power cut can leave. `operator`
    marks what was found after an external actor had changed the directory; before the run, the
    index is -1. `by_cut` marks what the power cut that ended the run has left, or what the plan
    began with. `marks` are the operators' marks until then.
    """

    run: int
    index: int
    live: DirectoryState
    durable: DirectoryState
    journaled: DirectoryState
    operator: bool = False
    by_cut: bool = False
    marks: Marks = field(default_factory=Marks)


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """All moments in their order, and how the replay compares with the disk after each run."""

    layout: Layout
    moments: tuple[Moment, ...]
    ends: tuple[DirectoryState, ...]
    """The live state after each run."""
    gaps: tuple[str, ...]
    """Where the replayed tree differs from what was on disk: the trace missed something."""
    marks: tuple[Marks, ...]
    """Changes of the operator that were in the directory when each run began."""
    left: Marks
    """The same when the last run was over."""
    tops: tuple[Mapping[str, Top], ...]
    """The names in the directory itself after each run."""
    begins: tuple[Mapping[str, Top], ...]
    """The same when each run began, after the operator's actions."""

    def starts(self, run: int) -> DirectoryState:
        """Returns the live state before a run, after the operator's actions."""
        for moment in self.moments:
            if moment.run == run and moment.operator and moment.index < 0:
                return moment.live
        return self.ends[run - 1] if run else _NOTHING

    def sound(self, run: int) -> dict[str, FoundCheckpoint]:
        """Returns the checkpoints before a run that are whole and that no operator had damaged."""
        damaged = self.marks[run].damaged
        whole = self.starts(run).whole()
        return {name: one for name, one in whole.items() if one.identity not in damaged}

    def durable_at(self, run: int, operations: int) -> DirectoryState:
        """Returns the state that a power cut would have left after so many operations of a run."""
        moment = self._before(run, operations)
        return _NOTHING if moment is None else moment.durable

    def live_at(self, run: int, operations: int) -> DirectoryState:
        """Returns the state after so many operations of a run."""
        moment = self._before(run, operations)
        return _NOTHING if moment is None else moment.live

    def _before(self, run: int, operations: int) -> Moment | None:
        before = (run, operations)
        return next((m for m in reversed(self.moments) if (m.run, m.index) < before), None)


_NOTHING = DirectoryState(latest=Resolved(state="absent"), found={})


def replay(evidence: Evidence) -> History:
    """Replays the operations of all runs and looks at the directory after each."""
    watch = _Watch(evidence.plan.layout, evidence.plan.workload.world)
    files = watch.disk.files
    moments: list[Moment] = []
    ends: list[DirectoryState] = []
    gaps: list[str] = []
    marks: list[Marks] = []
    tops: list[Mapping[str, Top]] = []
    begins: list[Mapping[str, Top]] = []
    for number, run in enumerate(evidence.runs):
        watch.world = evidence.plan.workload_of(number).world
        between = evidence.at_rest.get(number)
        if between is not None:
            moments.append(watch.after_operator(number, -1, at_rest(evidence, number)))
            gaps += _differences(f"before run {number}", files.snapshot(), between.after)
        files.end_run()
        marks.append(watch.marks)
        begins.append(top_names(files))
        if evidence.given is not None and number == evidence.plan.past - 1:
            watch.disk.apply(number, evidence.given.operation, evidence.given.written)
            moments.append(watch.moment(number, -1, by_cut=True))
        for actor, stretch in by_actor(Stretch(number, run.operations, run.written)):
            if actor == "cut" and run.cut is not None:
                when = f"run {number}, before the power cut"
                gaps += _differences(when, files.snapshot(), run.cut.before)
            if actor == "operator":
                last = stretch.operations[-1].index
                moments.append(watch.after_operator(number, last, (stretch,)))
            else:
                moments += watch.after_each(stretch)
        files.end_run()
        ends.append(watch.states[0])
        tops.append(top_names(files))
        gaps += _differences(f"run {number}", files.snapshot(), run.after)
    return History(
        layout=evidence.plan.layout,
        moments=tuple(moments),
        ends=tuple(ends),
        gaps=tuple(gaps),
        marks=tuple(marks),
        left=watch.marks,
        tops=tuple(tops),
        begins=tuple(begins),
    )


_States = tuple[DirectoryState, DirectoryState, DirectoryState]


class _Watch:
    """Looks at the directory again only if something changed. `marks` are the operators' so far."""

    def __init__(self, layout: Layout, world: World) -> None:
        self.disk = Disk(PROFILES["posix"])
        self.world, self.marks = world, Marks()
        self._layout = layout
        self._worlds: dict[int, World] = {}
        self._views = (
            View(self.disk, "live"),
            View(self.disk, "durable"),
            View(self.disk, "journaled"),
        )
        self.states: _States = (_NOTHING, _NOTHING, _NOTHING)
        self._watched: set[int] = set()
        self._root_versions = (0, 0)
        self._known: dict[tuple[bool, str, int], FoundCheckpoint] = {}

    def after_operator(self, run: int, index: int, actions: Iterable[Stretch]) -> Moment:
        """Replays an operator's actions; returns what is there then."""
        self.marks = mark(self.disk, actions, self.marks, self._layout)
        return self.moment(run, index, operator=True)

    def after_each(self, stretch: Stretch) -> Iterator[Moment]:
        """Replays operations; yields what is there after each that changed the directory."""
        for operation in stretch.operations:
            self.disk.apply(stretch.run, operation, stretch.written)
            if self._look():
                yield self.moment(stretch.run, operation.index, by_cut=operation.kind == "cut")

    def moment(
        self, run: int, index: int, *, operator: bool = False, by_cut: bool = False
    ) -> Moment:
        """Returns what is there now."""
        self._look()
        live, durable, journaled = self.states
        return Moment(
            run=run,
            index=index,
            live=live,
            durable=durable,
            journaled=journaled,
            operator=operator,
            by_cut=by_cut,
            marks=self.marks,
        )

    def _look(self) -> bool:
        """Looks at the three states; returns whether any of them changed."""
        touched = self.disk.files.touched
        if not touched:
            return False
        root = self.disk.files.root
        names_changed = self._names_changed()
        relevant = names_changed or any(node.number in self._watched for node in touched)
        touched.clear()
        if not relevant:
            return False
        live, durable, journaled = (self._state(view) for view in self._views)
        self._watched = {
            node.number
            for entries in (root.entries, self.disk.durable_entries(root))
            for name, node in entries.items()
            if self._layout.owned(name)
        }
        before, self.states = self.states, (live, durable, journaled)
        return self.states != before

    def _names_changed(self) -> bool:
        """Whether the names in the checkpoint directory itself have changed."""
        root = self.disk.files.root
        now = (hash(_shape(root.entries)), hash(_shape(self.disk.durable_entries(root))))
        changed, self._root_versions = now != self._root_versions, now
        return changed

    def _state(self, view: View) -> DirectoryState:
        found = {
            name: self._look_at(view, name, step)
            for name, step in self._layout.checkpoints(view).items()
        }
        latest = self._layout.latest(view)
        return DirectoryState(
            latest=latest, found=found, latest_defects=self._defects(view, latest, found)
        )

    def _defects(
        self, view: View, latest: Resolved, found: dict[str, FoundCheckpoint]
    ) -> tuple[str, ...]:
        if latest.state != "checkpoint" or latest.name is None:
            return ()
        if latest.name in found:
            return found[latest.name].defects
        node = view.node(latest.name)
        world = self.world if node is None else self._worlds.get(node.number, self.world)
        return self._look_inside(view, latest.name, world)

    def _look_inside(self, view: View, name: str, world: World) -> tuple[str, ...]:
        unsynced = (
            f"{path or 'it'} has bytes that were not synced" for path in view.unsynced(name)
        )
        return (*self._layout.defects(view, name, world), *unsynced)

    def _look_at(self, view: View, name: str, step: int) -> FoundCheckpoint:
        node = view.node(name)
        assert node is not None, "the layout named a directory that the view does not show"
        key = (view is self._views[0], name, node.number)
        known = self._known.get(key)
        if known is None or known.version != view.version(node):
            # A checkpoint has the stages of the run that made it, whichever run looks at it.
            world = self._worlds.setdefault(node.number, self.world)
            defects = self._look_inside(view, name, world)
            known = FoundCheckpoint(
                step=step,
                defects=defects,
                freeze=self._layout.freeze(view, name),
                tokens_seen=self._layout.tokens_seen(view, name),
                identity=node.number,
                version=view.version(node),
                files={} if defects else dict(_files(view, name)),
            )
            self._known[key] = known
        return known


def _files(tree: Tree, name: str) -> Iterator[tuple[str, Content]]:
    """Yields the files of a checkpoint by their paths in it."""
    folders = [""]
    while folders:
        folder = folders.pop()
        for one in tree.names(f"{name}/{folder}".rstrip("/")):
            path = f"{folder}{one}"
            if tree.kind(f"{name}/{path}") == "directory":
                folders.append(f"{path}/")
            elif tree.kind(f"{name}/{path}") == "file":
                yield path, tree.content(f"{name}/{path}")


def _shape(entries: Mapping[str, TreeNode]) -> tuple[tuple[str, int], ...]:
    return tuple((name, node.number) for name, node in entries.items())


def _differences(
    when: str, replayed: dict[str, DirectoryEntry], found: dict[str, DirectoryEntry]
) -> list[str]:
    gaps: list[str] = []
    for path in sorted((replayed.keys() | found.keys()) - {"."}):
        here, there = replayed.get(path), found.get(path)
        if here != there:
            gaps.append(
                f"{when}: {path}: {_describe(here)} by the trace, {_describe(there)} on disk"
            )
    return gaps


def _describe(entry: DirectoryEntry | None) -> str:
    return "absent" if entry is None else f"{entry.kind} {entry.detail}".strip()
