"""The result of a command: its newest checkpoint, or the files that the user names.

Equal bytes are equal results. Where bytes differ, the values in the files are compared by name, as
the command's own interpreter reads them.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.evidence.operation import Operation
from harness.jobs.command.files import is_dcp, is_readable

Read = Callable[[Sequence[Path]], list[Mapping[str, str] | str]]
"""Reads the values of files, or says why one cannot be read."""

_BYTES = ""
"""The name of the value of a file without named values."""
_DIGITS = re.compile(r"\d")


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultDifference:
    """One file of the result that is not as in the reference, and the first values that differ."""

    path: str
    text: str

    def __str__(self) -> str:
        return f"{self.path} {self.text}"


def newest_checkpoint(operations: Sequence[Operation], directory: Path) -> str | None:
    """Returns the newest checkpoint that a run left: a folder with a number in its name, or a file.

    Pointers and logs are passed over where anything else was written: a file whose values can be
    read, or else one with a number in its name.
    """
    written = [
        one.target if one.kind in ("rename", "exchange", "link") and one.target else one.path
        for one in reversed(operations)
        if not one.error and one.kind in ("write", "rename", "exchange", "link")
    ]
    there = [one for one in dict.fromkeys(written) if (directory / one).exists()]
    units = [_unit_of(one) for one in there]
    readable = [one for one in units if is_readable(str(directory / one))]
    folders = [one for one in units if (directory / one).is_dir()]
    numbered = [one for one in units if _DIGITS.search(one)]
    return next(iter([*folders, *readable, *numbered, *units]), None)


def _unit_of(path: str) -> str:
    parts = path.split("/")
    for end in range(len(parts) - 1, 0, -1):
        if _DIGITS.search(parts[end - 1]):
            return "/".join(parts[:end])
    return path


def files_below(root: Path, patterns: Iterable[str]) -> dict[str, Path]:
    """Returns the files that the patterns name, and those in the folders that they name.

    A folder of DCP is one of them, as a whole.
    """
    found: dict[str, Path] = {}
    for pattern in patterns:
        for place in sorted(root.glob(pattern)):
            inside = sorted(place.rglob("*")) if place.is_dir() else [place]
            for one in inside:
                whole = one.parent if is_dcp(str(one.parent)) else one
                if one.is_file():
                    found[str(whole.relative_to(root))] = whole
    return found


def digest_of(path: Path) -> str:
    """Returns the BLAKE2b of a file's bytes, or of those of a folder's files with their names."""
    if path.is_dir():
        files = sorted(one for one in path.rglob("*") if one.is_file())
        text = "\0".join(f"{one.relative_to(path)}\0{digest_of(one)}" for one in files)
        return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """The result of the uninterrupted command: bytes and values of its result by file.

    `varies` has the files that two uninterrupted runs left different; they are not compared, nor is
    one that could not be read: other bytes can be the same values.
    """

    patterns: tuple[str, ...]
    digests: Mapping[str, str]
    values: Mapping[str, Mapping[str, str] | str]
    varies: frozenset[str] = frozenset()

    @property
    def unreadable(self) -> Mapping[str, str]:
        """Why files could not be read, by name."""
        return {name: one for name, one in self.values.items() if isinstance(one, str)}

    def differences(self, root: Path, read: Read) -> list[ResultDifference]:
        """Returns what is different in another directory; values are read where bytes differ."""
        found = files_below(root, self.patterns)
        different = [
            name
            for name in self.digests
            if name not in self.varies
            and name not in self.unreadable
            and name in found
            and digest_of(found[name]) != self.digests[name]
        ]
        missing = [
            ResultDifference(path=name, text="is missing")
            for name in self.digests
            if name not in self.varies and name not in found
        ]
        values = read([found[name] for name in different]) if different else []
        told = zip(different, values, strict=True)
        return missing + [
            ResultDifference(path=name, text=text)
            for name, there in told
            if (text := _compared(self.values[name], there)) is not None
        ]


def make_reference(patterns: tuple[str, ...], root: Path, read: Read) -> Reference:
    """Returns the reference that a directory holds."""
    files = files_below(root, patterns)
    values = read(list(files.values()))
    return Reference(
        patterns=patterns,
        digests={name: digest_of(path) for name, path in files.items()},
        values=dict(zip(files, values, strict=True)),
    )


def _compared(here: Mapping[str, str] | str, there: Mapping[str, str] | str) -> str | None:
    """Returns how values differ, or None."""
    if isinstance(there, str):
        return f"cannot be read: {there}"
    if isinstance(here, str) or _BYTES in here:
        return "has other bytes"
    names = [name for name in {**here, **there} if here.get(name) != there.get(name)]
    if not names:
        return None
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"differs in {', '.join(names[:3])}{more}"
