"""The tree that a layout reads: a checkpoint directory at one instant."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeVar, cast

Fact = TypeVar("Fact")


@dataclass(slots=True, eq=False)
class Content:
    """The bytes of one file at one time, with what was found out about them."""

    data: bytearray = field(default_factory=bytearray)
    facts: dict[str, Any] = field(default_factory=dict)

    def fact(self, name: str, find: Callable[[bytes], Fact]) -> Fact:
        """The result of `find` for these bytes, cached as long as they stay the same."""
        if name not in self.facts:
            self.facts[name] = find(bytes(self.data))
        return cast(Fact, self.facts[name])


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
