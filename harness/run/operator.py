"""An operator that changes a checkpoint directory while no process of the job lives.

Each change is made on disk and recorded as an operation of rank -1, so that judges rebuild the
directory from it as they do from the ranks' operations. The operator syncs what it has changed:
long before the next run begins, everything is on the disk.
"""

from __future__ import annotations

import os
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple, Protocol

from harness.content import Bytes, Content
from harness.evidence.operation import OPERATOR, Operation
from harness.evidence.store import Sink, add_file


class ByteLog(Bytes, Sink, Protocol):
    """Keeps bytes, and reads like them."""


class KeptBytes(NamedTuple):
    """Bytes that were added to those that an operator has written: their place and number."""

    place: int
    size: int


class DirectoryOperator:
    """Changes one directory. Paths are relative to it; the bytes it brings are in `written`."""

    def __init__(self, root: Path, written: ByteLog) -> None:
        self.root = root
        self.operations: list[Operation] = []
        self.written = written
        self._files: dict[str, None] = {}
        self._directories: dict[str, None] = {}

    # What is there.

    def files(self, pattern: str) -> list[str]:
        """Returns the regular files whose path matches a pattern, sorted."""
        return [path for path in self.matches(pattern) if self.is_file(path)]

    def matches(self, pattern: str) -> list[str]:
        """Returns everything whose path matches a pattern, sorted."""
        found = []
        for place, folders, files in os.walk(self.root):
            inside = Path(place).relative_to(self.root)
            found += [(inside / name).as_posix() for name in (*folders, *files)]
        return sorted(path for path in found if fnmatchcase(path, pattern))

    def is_file(self, path: str) -> bool:
        """Whether a regular file is there; a link does not count."""
        return (self.root / path).is_file() and not (self.root / path).is_symlink()

    def is_directory(self, path: str) -> bool:
        """Whether a directory is there; a link does not count."""
        return (self.root / path).is_dir() and not (self.root / path).is_symlink()

    def exists(self, path: str) -> bool:
        """Whether the name is taken, by anything."""
        return os.path.lexists(self.root / path)

    def size(self, path: str) -> int:
        """Returns the size of a file."""
        return (self.root / path).stat().st_size

    def read(self, path: str, start: int = 0, size: int = -1) -> bytes:
        """Returns the bytes of a file, or some of them."""
        with (self.root / path).open("rb") as file:
            file.seek(start)
            return file.read(size)

    def keep(self, path: str) -> KeptBytes:
        """Add the bytes of a file to `written`, for `put_kept`."""
        return KeptBytes(*add_file(self.written, self.root / path))

    # What is changed.

    def put(self, path: str, data: bytes) -> None:
        """Create a file, or replace all of its bytes; the name keeps the same file."""
        self.put_kept(path, KeptBytes(self.written.add(data), len(data)))

    def put_kept(self, path: str, kept: KeptBytes) -> None:
        """Acts like `put`, for bytes that were kept."""
        if not self.exists(path):
            self._renamed(path)
        with (self.root / path).open("wb") as file:
            file.writelines(Content.of(self.written, *kept).chunks())
        self._record("open", path, creates=True, truncates=True)
        self._record_write(path, kept, 0)

    def patch(self, path: str, offset: int, data: bytes) -> None:
        """Overwrite some bytes of a file."""
        with (self.root / path).open("r+b") as file:
            file.seek(offset)
            file.write(data)
        self._record("open", path)
        self._record_write(path, KeptBytes(self.written.add(data), len(data)), offset)

    def cut(self, path: str, size: int) -> None:
        """Keep only the first `size` bytes of a file."""
        os.truncate(self.root / path, size)
        self._files[path] = None
        self._record("truncate", path, size=size)

    def link(self, path: str, text: str) -> None:
        """Create a symlink."""
        os.symlink(text, self.root / path)
        self._renamed(path)
        self._record("symlink", path, target=text)

    def make(self, path: str) -> None:
        """Create a directory."""
        (self.root / path).mkdir()
        self._renamed(path)
        self._directories[path] = None
        self._record("mkdir", path)

    def remove(self, path: str) -> None:
        """Remove a file, a symlink or a whole directory."""
        if self.is_directory(path):
            for inner in sorted(os.listdir(self.root / path)):
                self.remove(f"{path}/{inner}")
            (self.root / path).rmdir()
            self._record("rmdir", path)
        else:
            (self.root / path).unlink()
            self._record("unlink", path)
        self._renamed(path)

    def copy(self, source: str, target: str) -> None:
        """Copy a whole directory; `target` is created."""
        self.make(target)
        for inner in sorted(os.listdir(self.root / source)):
            here, there = f"{source}/{inner}", f"{target}/{inner}"
            if self.is_directory(here):
                self.copy(here, there)
            else:
                self.put_kept(there, self.keep(here))

    def displace(self, *, leaves: str) -> None:
        """Take the directory's name away; if `leaves` is `empty`, an empty directory takes it."""
        self.root.rename(self._away)
        if leaves == "empty":
            self.root.mkdir()
        self._record("displace", ".")

    def put_back(self) -> None:
        """Give the directory its name back; what had it meanwhile is kept elsewhere."""
        if self.root.exists():
            self.root.rename(self.root.with_name(f"{self.root.name}.instead"))
        self._away.rename(self.root)
        self._record("put_back", ".")

    def is_displaced(self) -> bool:
        """Whether the directory has lost its name."""
        return self._away.exists()

    @property
    def _away(self) -> Path:
        return self.root.with_name(f"{self.root.name}.displaced")

    def sync(self) -> None:
        """Make everything durable that was changed since the last sync."""
        for path in (*self._files, *self._directories):
            if not self.exists(path):
                continue
            descriptor = os.open(self.root / path, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            self._record("fsync", path)
        self._files.clear()
        self._directories.clear()

    def _renamed(self, path: str) -> None:
        self._directories[Path(path).parent.as_posix()] = None

    def _record_write(self, path: str, kept: KeptBytes, offset: int) -> None:
        self._files[path] = None
        self._record("write", path, offset=offset, size=kept.size, data=kept.place)

    def _record(
        self, kind: str, path: str, *, target: str | None = None, **more: int | bool | None
    ) -> None:
        self.operations.append(
            Operation(
                index=len(self.operations),
                time_s=0.0,
                rank=OPERATOR,
                thread=0,
                kind=kind,
                path=path,
                target=target,
                **more,  # type: ignore[arg-type]
            )
        )
