"""The tree that a layout reads: a checkpoint directory at one instant."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

from harness.content import Content


class Tree(Protocol):
    """A checkpoint directory at one instant. Paths are relative; "." is the directory itself."""

    def kind(self, path: str) -> Literal["file", "directory", "symlink"] | None:
        """The node at `path`; a symlink is not followed."""

    def names(self, path: str) -> tuple[str, ...]:
        """The names in a directory, sorted; none where `path` is no directory."""

    def text(self, path: str) -> str:
        """The text of the symlink at `path`."""

    def content(self, path: str) -> Content:
        """The bytes of the file at `path`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolved:
    """Where the pointer leads: nowhere, to a name that is not there, to a checkpoint, or astray."""

    state: Literal["absent", "dangling", "checkpoint", "astray"]
    name: str | None = None
    detail: str = ""
