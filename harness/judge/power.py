"""Determines the losses of a power cut: names that are gone or back again, and lost bytes."""

from __future__ import annotations

from dataclasses import dataclass

from harness.disk.disk import Disk
from harness.disk.profiles import PROFILES
from harness.disk.replay import happened
from harness.disk.tree import Directory, File, Symlink, TreeNode
from harness.evidence.evidence import Evidence

_Bytes = tuple[int, str]
"""The size and the digest of a file."""
Tree = dict[str, _Bytes | str | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """The directory at the instant of the cut, compared with the disk afterwards."""

    gone: tuple[str, ...]
    """Names that had not reached the disk."""
    back: tuple[str, ...]
    """Names that had been removed, and whose removal had not reached the disk."""
    other: tuple[str, ...]
    """Names that are there, with other bytes or another text."""
    lost_bytes: int

    def __str__(self) -> str:
        words = (("gone", self.gone), ("back", self.back), ("changed", self.other))
        counts = [f"{len(names)} names {word}" for word, names in words if names]
        return ", ".join([*counts, f"{self.lost_bytes} bytes lost"]) if counts else "nothing lost"


def taken(evidence: Evidence, run: int) -> Taken | None:
    """Returns the losses of the power cut that ended a run; None if there was none."""
    operations = evidence.runs[run].operations
    if not operations or operations[-1].kind != "cut":
        return None
    disk = Disk(PROFILES["posix"])
    disk.follow(happened(evidence, run, len(operations) - 1))
    before = _flat(disk.files.root)
    disk.apply(run, operations[-1], evidence.runs[run].written)
    after = _flat(disk.files.root)
    found_again = [after[path] for path in after.keys() - before.keys()]
    other = [path for path in before.keys() & after.keys() if before[path] != after[path]]
    return Taken(
        gone=tuple(sorted(before.keys() - after.keys())),
        back=tuple(sorted(after.keys() - before.keys())),
        other=tuple(sorted(other)),
        lost_bytes=sum(
            max(0, _size(data) - _size(after.get(path)))
            for path, data in before.items()
            if path in after or data not in found_again
        ),
    )


def _flat(directory: Directory, prefix: str = "") -> Tree:
    found: Tree = {}
    for name, node in directory.entries.items():
        found[prefix + name] = _value(node)
        if isinstance(node, Directory):
            found |= _flat(node, f"{prefix}{name}/")
    return found


def _value(node: TreeNode) -> _Bytes | str | None:
    if isinstance(node, File):
        return node.content.size, node.content.digest()
    return node.text if isinstance(node, Symlink) else None


def _size(value: _Bytes | str | None) -> int:
    return value[0] if isinstance(value, tuple) else 0
