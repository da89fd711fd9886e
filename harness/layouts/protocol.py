"""The interface of a checkpoint layout for judges and supervisor, and of the tree it reads."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from harness.content import Content
from harness.world import World


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
    """Where `latest` leads: nowhere, to a missing name, to a checkpoint, or astray."""

    state: Literal["absent", "dangling", "checkpoint", "astray"]
    name: str | None = None
    detail: str = ""


class Tracker(Protocol):
    """Assigns each operation of one run to a save and a phase, one after the other."""

    def save_began(self, rank: int, step: int, ordinal: int) -> None:
        """Note that `rank` is about to call `save`, for the `ordinal`-th time in this run."""

    def place(
        self, rank: int, kind: str, path: str, target: str | None
    ) -> tuple[int | None, str | None]:
        """Returns the save (its ordinal) and the phase of the operation."""


class Layout(Protocol):
    """A checkpoint directory as seen from outside."""

    def tracker(self) -> Tracker:
        """Returns a fresh tracker for one run."""

    def checkpoints(self, tree: Tree) -> dict[str, int]:
        """Returns the directories with the name of a checkpoint, and their steps."""

    def latest(self, tree: Tree) -> Resolved:
        """Resolves `latest`."""

    def defects(self, tree: Tree, name: str, world: World) -> tuple[str, ...]:
        """Returns why the directory `name` is not a whole checkpoint; empty if it is."""

    def freeze(self, tree: Tree, name: str) -> object | None:
        """Returns the freeze metadata of a checkpoint, or None."""

    def tokens_seen(self, tree: Tree, name: str) -> object | None:
        """Returns the number of tokens seen that a checkpoint states, or None."""

    def owned(self, name: str) -> bool:
        """Whether a name in the checkpoint directory is one of the layout's final names."""

    def published(self, root: Path) -> int | None:
        """Returns the step of the newest published checkpoint on disk now, or None."""
