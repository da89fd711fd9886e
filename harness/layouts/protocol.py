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
        """The node at `path`; a symlink is not followed."""

    def names(self, path: str) -> tuple[str, ...]:
        """The names in a directory, sorted; none where `path` is no directory."""

    def text(self, path: str) -> str:
        """The text of the symlink at `path`."""

    def content(self, path: str) -> Content:
        """The bytes of the file at `path`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolved:
    """Where `latest` leads: nowhere, to a name that is not there, to a checkpoint, or astray."""

    state: Literal["absent", "dangling", "checkpoint", "astray"]
    name: str | None = None
    detail: str = ""


class Tracker(Protocol):
    """Gives each operation of one run its save and its phase, as the operations come."""

    def save_began(self, rank: int, step: int, ordinal: int) -> None:
        """`rank` is about to call `save`, for the `ordinal`-th time in this run."""

    def place(
        self, rank: int, kind: str, path: str, target: str | None
    ) -> tuple[int | None, str | None]:
        """The save (its ordinal) and the phase that the operation belongs to."""


class Layout(Protocol):
    """A checkpoint directory as seen from outside."""

    def tracker(self) -> Tracker:
        """A fresh tracker for one run."""

    def checkpoints(self, tree: Tree) -> dict[str, int]:
        """The directories that carry the name of a checkpoint, and their steps."""

    def latest(self, tree: Tree) -> Resolved:
        """Where `latest` leads."""

    def defects(self, tree: Tree, name: str, world: World) -> tuple[str, ...]:
        """Why the directory `name` is not a whole checkpoint; empty when it is."""

    def freeze(self, tree: Tree, name: str) -> object | None:
        """The freeze metadata of a checkpoint, None where it has none."""

    def tokens_seen(self, tree: Tree, name: str) -> object | None:
        """How many tokens a checkpoint says it has seen, None where it does not say."""

    def owned(self, name: str) -> bool:
        """Whether a name in the checkpoint directory is one of the layout's final names."""

    def published(self, root: Path) -> int | None:
        """The step of the newest published checkpoint on disk now, None where there is none."""
