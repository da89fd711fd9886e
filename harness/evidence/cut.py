"""The state after a power cut, as the single operation `cut`, which replaces the whole tree.

Its listing names a directory before its contents. It is stored as JSON among the bytes of the run's
writes, after the bytes of the files that it names.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.content import Bytes
from harness.evidence.operation import Operation
from harness.evidence.store import Sink, add_file

Listed = tuple[str, str, object]
"""A path, its kind, and the text of a link, or the position and size of a file's bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TreeListing:
    """The contents of a tree. The positions of bytes refer to `written`."""

    entries: tuple[Listed, ...]
    written: Bytes


def read_entries(root: Path, into: Sink) -> tuple[Listed, ...]:
    """Returns the contents of a directory on disk; adds the bytes of its files to `into`."""
    return tuple(_read(root, "", into))


def _read(directory: Path, prefix: str, into: Sink) -> Iterator[Listed]:
    for place in sorted(directory.iterdir()):
        path = prefix + place.name
        if place.is_symlink():
            # Not Path.readlink, which normalizes the text.
            yield path, "symlink", os.readlink(place)  # noqa: PTH115
        elif place.is_dir():
            yield path, "directory", ""
            yield from _read(place, f"{path}/", into)
        else:
            yield path, "file", add_file(into, place)


def cut_operation(
    entries: Sequence[Listed], into: Sink, *, index: int, rank: int, time_s: float
) -> Operation:
    """Returns the operation; adds its listing to `into`, after the bytes of the files."""
    text = json.dumps(entries).encode()
    return Operation(
        index=index,
        time_s=time_s,
        rank=rank,
        thread=0,
        kind="cut",
        path=".",
        data=into.add(text),
        size=len(text),
    )
