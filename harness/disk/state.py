"""One state of the disk after a power cut, built of shared parts so that thousands are cheap.

Equal trees have equal numbers: a directory is the set of its names with the numbers of what they
name, a file is a version of its changes. No bytes are copied until they are needed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from harness.content import Content
from harness.disk.changes import Version
from harness.disk.disk import Disk
from harness.disk.profiles import Kept
from harness.disk.tree import Directory, File, Symlink, TreeNode
from harness.evidence.cut import TreeListing

Names = tuple[tuple[str, int], ...]
Part = tuple[Literal["directory"], Names] | tuple[Literal["file"], Version] | tuple[
    Literal["symlink"], str
]  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class SurvivingChanges:
    """The changes that a power cut keeps. A file not in `versions` is complete."""

    kept: Kept
    versions: Mapping[int, Version]


class Parts:
    """Every tree that was met, by number."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        self._numbers: dict[Part, int] = {}
        self._parts: list[Part] = []
        self._steady: dict[tuple[int, int], int] = {}
        self._contents: dict[Version, Content] = {}
        self._digests: dict[int, str] = {}
        self._adopted = 0

    def state(self, choice: SurvivingChanges) -> int:
        """Returns the number of the tree that a choice leaves."""
        return self._of(self._disk.files.root, choice)[0]

    def adopt(self, listing: TreeListing) -> int:
        """Returns the number of a tree that was found on a disk."""
        inside: dict[str, list[tuple[str, int]]] = {}
        for path, kind, detail in reversed(listing.entries):
            if kind == "directory":
                number = self._number(("directory", tuple(sorted(inside.pop(path, [])))))
            elif kind == "symlink":
                number = self._number(("symlink", str(detail)))
            else:
                assert isinstance(detail, tuple), "a file has a place among the bytes"
                number = self._foreign(Content.of(listing.written, *detail))
            parent, _, name = path.rpartition("/")
            inside.setdefault(parent, []).append((name, number))
        return self._number(("directory", tuple(sorted(inside.get("", [])))))

    def _foreign(self, content: Content) -> int:
        """Returns the number of a file that no operation of the job wrote in this form."""
        self._adopted += 1
        version = Version(-self._adopted, 0)
        self._contents[version] = content
        return self._number(("file", version))

    def names(self, number: int) -> Names:
        """Returns the names of a directory with their trees' numbers; none for anything else."""
        kind, value = self._parts[number]
        return value if kind == "directory" else ()  # type: ignore[return-value]

    def part(self, number: int) -> Part:
        """Returns the node with that number."""
        return self._parts[number]

    def content(self, version: Version) -> Content:
        """Returns the bytes of a version of a file, with facts that were found out about them."""
        found = self._contents.get(version)
        if found is None:
            found = self._contents[version] = self._disk.logs[version.file].content(version)
        return found

    def identity(self, version: Version) -> bytes:
        """Returns a value that is equal for files with equal bytes, and only for these."""
        return self._disk.files.identities.of(self.content(version))

    def outlasts(self, version: Version) -> bool:
        """Whether a version is one that the job was done with, so that many states have it."""
        log = self._disk.logs.get(version.file)
        if log is None or version.damage:
            return False
        return version.upto == len(log.changes) or log.changes[version.upto].empties

    def changed(self, version: Version) -> int:
        """Returns the number of the last change of a file, in the order of all changes."""
        log = self._disk.logs.get(version.file)
        if log is not None and version.upto:
            return log.changes[version.upto - 1].serial
        return self._disk.born.get(version.file, 0)

    def digest(self, number: int) -> str:
        """Returns a digest that is equal for trees with equal names and bytes."""
        known = self._digests.get(number)
        if known is None:
            kind, value = self._parts[number]
            hashed = hashlib.blake2b(kind.encode(), digest_size=16)
            if isinstance(value, Version):
                hashed.update(self.identity(value))
            elif isinstance(value, str):
                hashed.update(value.encode())
            else:
                for name, inner in value:
                    hashed.update(f"\0{name}\0{self.digest(inner)}".encode())
            known = self._digests[number] = hashed.hexdigest()
        return known

    def _number(self, part: Part) -> int:
        number = self._numbers.setdefault(part, len(self._parts))
        if number == len(self._parts):
            self._parts.append(part)
        return number

    def _of(self, node: TreeNode, choice: SurvivingChanges) -> tuple[int, bool]:
        """Returns a tree's number, and whether it is the same in every choice of this instant."""
        if isinstance(node, Directory):
            return self._of_directory(node, choice)
        if not isinstance(node, File):
            assert isinstance(node, Symlink)
            return self._number(("symlink", node.text)), True
        version = choice.versions.get(node.number) or self._whole(node)
        return self._number(("file", version)), node.number not in self._disk.dirty

    def _whole(self, file: File) -> Version:
        """Returns the version with every change applied."""
        log = self._disk.logs.get(file.number)
        if log is not None:
            return log.now()
        untouched = Version(file.number, 0)
        self._contents[untouched] = file.content
        return untouched

    def _of_directory(self, node: Directory, choice: SurvivingChanges) -> tuple[int, bool]:
        key = (node.number, node.version)
        known = self._steady.get(key)
        if known is not None:
            return known, True
        steady = self._disk.is_steady(node)
        names: list[tuple[str, int]] = []
        for name, inner in self._disk.entries(node, choice.kept).items():
            number, settled = self._of(inner, choice)
            names.append((name, number))
            steady = steady and settled
        names.sort()
        number = self._number(("directory", tuple(names)))
        if steady:
            self._steady[key] = number
        return number, steady


class PartTree:
    """A tree of parts, in the form that a layout reads."""

    def __init__(self, parts: Parts, root: int) -> None:
        self._parts = parts
        self._root = root

    def kind(self, path: str) -> Literal["file", "directory", "symlink"] | None:
        """Returns the kind of node at `path`; does not follow a symlink."""
        number = self._find(path)
        return None if number is None else self._parts.part(number)[0]

    def names(self, path: str) -> tuple[str, ...]:
        """Returns the names in a directory."""
        number = self._find(path)
        return () if number is None else tuple(name for name, _ in self._parts.names(number))

    def text(self, path: str) -> str:
        """Returns the text of the symlink at `path`."""
        number = self._find(path)
        value = None if number is None else self._parts.part(number)[1]
        return value if isinstance(value, str) else ""

    def content(self, path: str) -> Content:
        """Returns the bytes of the file at `path`."""
        number = self._find(path)
        value = None if number is None else self._parts.part(number)[1]
        return self._parts.content(value) if isinstance(value, Version) else Content()

    def _find(self, path: str) -> int | None:
        number: int | None = self._root
        for part in path.split("/"):
            if part == ".":
                continue
            if number is None:
                return None
            number = dict(self._parts.names(number)).get(part)
        return number
