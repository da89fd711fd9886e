"""The tree that a layout reads: a checkpoint directory at one instant."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

from harness.content import Content


class Tree(Protocol):
    """A checkpoint directory at one instant. Paths are relative; "." is the directory itself."""

    def kind(self, path: str) -> Literal["file", "directory", "symlink"] | None:
        """Returns the kind of node at `path`; does not follow a symlink."""

    def names(self, path: str) -> tuple[str, ...]:
        """Returns the names in a directory, sorted; none if `path` is not a directory."""

    def text(self, path: str) -> str:
        """Returns the text of the symlink at `path`."""

    def content(self, path: str) -> Content:
        """Returns the bytes of the file at `path`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolved:
    """Where the pointer leads: nowhere, to a missing name, to a checkpoint, or astray."""

    state: Literal["absent", "dangling", "checkpoint", "astray"]
    name: str | None = None
    detail: str = ""
