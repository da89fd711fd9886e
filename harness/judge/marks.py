"""Tracks an operator's marks in a checkpoint directory: damage, and foreign names.

A checkpoint is damaged if a file that it had holds other bytes or is gone. It is identified by the
directory itself and not by its name, so a new save of the same step is not damaged.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from harness.disk.disk import Disk
from harness.disk.replay import Stretch
from harness.disk.tree import Directory, FileSystem, Symlink
from harness.evidence.evidence import DirectoryEntry
from harness.layouts.base import Layout

Top = tuple[int, int]
"""The node that has a name in the directory itself, and its version."""

_LIKE_A_DEAD_RUN = "leftover"
"""The action whose names a checkpointer must remove; all other names are foreign to it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Marks:
    """Operators' marks at the beginning of a run, including those of earlier runs."""

    damaged: Mapping[int, str] = field(default_factory=dict)
    """By directory, the first path below it that was changed or removed."""
    foreign: Mapping[int, tuple[str, int]] = field(default_factory=dict)
    """By node, the name that it got and its version."""


def mark(disk: Disk, actions: Iterable[Stretch], known: Marks, layout: Layout) -> Marks:
    """Replays an operator's actions, and notes their marks."""
    files, foreign = disk.files, dict(known.foreign)
    before, tops = files.snapshot(), top_names(files)
    for action in actions:
        earlier = {number for number, _ in top_names(files).values()}
        disk.go_on(action)
        # What comes back with the whole directory was there before, and is no new mark.
        if action.action == _LIKE_A_DEAD_RUN or _puts_back(action):
            continue
        for name, (number, version) in top_names(files).items():
            made = number not in earlier and not _is_new_latest(files, name, layout)
            if made or number in foreign:
                foreign[number] = (name, version)
    return Marks(damaged={**known.damaged, **_damage(before, tops, files)}, foreign=foreign)


def _puts_back(action: Stretch) -> bool:
    return any(one.kind == "put_back" for one in action.operations)


def top_names(files: FileSystem) -> dict[str, Top]:
    """Returns the names in the directory itself."""
    return {name: (node.number, node.version) for name, node in files.root.entries.items()}


def _is_new_latest(files: FileSystem, name: str, layout: Layout) -> bool:
    """Whether it is a repointed link: that stays the checkpointer's, which will replace it."""
    return layout.owned(name) and isinstance(files.root.entries[name], Symlink)


def _damage(
    before: Mapping[str, DirectoryEntry], tops: Mapping[str, Top], files: FileSystem
) -> dict[int, str]:
    after = files.snapshot()
    found: dict[int, str] = {}
    for path, entry in sorted(before.items()):
        top = path.partition("/")[0]
        node = files.root.entries.get(top)
        same = isinstance(node, Directory) and node.number == tops[top][0]
        if same and entry.kind == "file" and after.get(path) != entry:
            found.setdefault(tops[top][0], path)
    return found
