"""What is durable after any history, against a model that starts over with every operation."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.crash_states import flatten
from benchmarks.naive_states import Tree
from harness.crash.choose import everything
from harness.disk.disk import Disk
from harness.disk.profiles import PROFILES
from harness.disk.state import Parts
from harness.disk.tree import Directory, File, FileSystem, Symlink, TreeNode
from harness.disk.view import View
from harness.evidence.operation import Operation
from tests.harness.crash.histories import TREES, random_run
from tests.harness.judge.cases import RunCase

_Names = dict[tuple[int, str], TreeNode]
"""What a name in a directory, which is given by its number, leads to."""


def shown(view: View, path: str = ".") -> Tree:
    found: Tree = {}
    for name in view.names(path):
        place = name if path == "." else f"{path}/{name}"
        match view.kind(place):
            case "directory":
                found |= {place: None, **shown(view, place)}
            case "symlink":
                found[place] = view.text(place)
            case _:
                found[place] = view.content(place).read()
    return found


@dataclass(slots=True)
class _Naive:
    """Durable are whole changes of names, each with all earlier ones of the same names."""

    live: FileSystem = field(default_factory=FileSystem)
    changes: list[dict[tuple[int, str], TreeNode | None]] = field(default_factory=list)
    settled: set[int] = field(default_factory=set)
    synced: dict[int, bytes] = field(default_factory=dict)

    def follow(self, operation: Operation, written: bytes) -> None:
        node, before = self.live.opened(operation), self._names()
        self.live.apply(operation, written)
        now = self._names()
        keys = {key for key in before.keys() | now.keys() if before.get(key) != now.get(key)}
        self.changes.append({key: now.get(key) for key in keys})
        if operation.kind == "sync":
            self.settled = set(range(len(self.changes)))
            self._keep_bytes([one for _, one in self.live.nodes()])
        elif operation.kind == "fsync" and isinstance(node, Directory):
            self._settle({key for one in self.changes for key in one if key[0] == node.number})
        elif operation.kind == "fsync" and node is not None:
            self._keep_bytes([node])

    def tree(self) -> Tree:
        """Returns the tree that is durable now."""
        names: _Names = {}
        for place in sorted(self.settled):
            for key, inner in self.changes[place].items():
                names.pop(key, None)
                names |= {} if inner is None else {key: inner}
        return self._walk(self.live.root.number, "", names)

    def _settle(self, keys: set[tuple[int, str]]) -> None:
        """All changes of these names, and before each of them all that changed the same names."""
        wanted = {place for place, one in enumerate(self.changes) if one.keys() & keys}
        while (
            more := {
                earlier
                for place in wanted
                for earlier in range(place)
                if self.changes[earlier].keys() & self.changes[place].keys()
            }
            - wanted
        ):
            wanted |= more
        self.settled |= wanted

    def _names(self) -> _Names:
        directories = [self.live.root, *(one for _, one in self.live.nodes())]
        return {
            (one.number, name): node
            for one in directories
            if isinstance(one, Directory)
            for name, node in one.entries.items()
        }

    def _keep_bytes(self, nodes: list[TreeNode]) -> None:
        self.synced |= {one.number: one.content.read() for one in nodes if isinstance(one, File)}

    def _walk(self, number: int, prefix: str, names: _Names) -> Tree:
        found: Tree = {}
        for (directory, name), node in names.items():
            if directory != number:
                continue
            if isinstance(node, Symlink):
                found[prefix + name] = node.text
            elif isinstance(node, File):
                found[prefix + name] = self.synced.get(node.number, b"")
            else:
                found[prefix + name] = None
                found |= self._walk(node.number, f"{prefix}{name}/", names)
        return found


def disk_after(run: RunCase) -> Disk:
    disk = Disk(PROFILES["posix"])
    for operation in run.operations:
        disk.apply(0, operation, bytes(run.written))
    return disk


def durable(run: RunCase) -> Tree:
    return shown(View(disk_after(run), "durable"))


@given(seed=st.integers(0, 1 << 32))
@settings(max_examples=100, deadline=None)
def test_what_is_durable_is_that_of_a_naive_model(seed: int) -> None:
    run, naive, disk = random_run(Random(seed), 60, TREES), _Naive(), Disk(PROFILES["posix"])
    for operation in run.operations:
        naive.follow(operation, bytes(run.written))
        disk.apply(0, operation, bytes(run.written))
        assert shown(View(disk, "durable")) == naive.tree(), operation


@given(seed=st.integers(0, 1 << 32), length=st.integers(1, 60))
@settings(max_examples=50, deadline=None)
def test_a_choice_that_loses_nothing_and_a_sync_of_everything_show_the_live_tree(
    seed: int, length: int
) -> None:
    run = random_run(Random(seed), length, TREES)
    disk = disk_after(run)
    live = shown(View(disk, "live"))
    parts = Parts(disk)
    assert flatten(parts, parts.state(everything(disk))) == live
    run.do("sync", ".")
    assert durable(run) == live


def folders(*names: str) -> RunCase:
    run = RunCase()
    for name in names:
        run.do("mkdir", name)
    return run


def moved_twice() -> RunCase:
    """A file that is durable as one/a, and is moved over two/a to three/a."""
    run = folders("one", "two", "three")
    run.put("one/a", b"xx")
    run.do("sync", ".")
    run.do("rename", "one/a", "two/a")
    run.do("rename", "two/a", "three/a")
    return run


@pytest.mark.parametrize(
    ("synced", "place"), [("three", "three/a"), ("two", "three/a"), ("one", "two/a")]
)
def test_a_chain_of_renames_never_loses_or_doubles_a_file(synced: str, place: str) -> None:
    run = moved_twice()
    run.do("fsync", synced)
    assert durable(run) == {"one": None, "two": None, "three": None, place: b"xx"}


def test_a_file_behind_a_durable_rename_stays_until_its_removal_is_durable() -> None:
    run = folders("one", "two")
    run.put("one/a", b"new")
    run.put("two/a", b"old")
    run.do("sync", ".")
    run.do("rename", "one/a", "two/a")
    run.do("unlink", "two/a")
    run.do("fsync", "one")
    assert durable(run) == {"one": None, "two": None, "two/a": b"new"}
    run.do("fsync", "two")
    assert durable(run) == {"one": None, "two": None}


def test_an_exchange_is_durable_on_both_sides_though_one_side_has_moved_on() -> None:
    run = folders("one", "two")
    run.put("a", b"11")
    run.put("one/a", b"22")
    run.do("sync", ".")
    run.do("exchange", "a", "one/a")
    run.do("rename", "a", "two/a")
    run.do("fsync", "one")
    assert durable(run) == {"a": b"22", "one": None, "one/a": b"11", "two": None}


def test_what_is_unsynced_stays_so_while_the_directory_is_moved_away() -> None:
    run = folders("one")
    run.put("a", b"11")
    run.do("sync", ".")
    run.do("rename", "a", "one/a")
    run.do("displace", ".")
    run.do("fsync", ".")
    assert durable(run) == {}
    run.do("put_back", ".")
    assert durable(run) == {"a": b"11", "one": None}
    run.do("fsync", "one")
    assert durable(run) == {"one": None, "one/a": b"11"}
