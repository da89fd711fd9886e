"""The base of the layouts: what a checkpoint directory looks like from outside.

A layout defines what differs from the values here, and is listed in `registry.py`. It makes and
parses the names of checkpoints, and knows the pointer to the newest one, if there is any, the kinds
of files, what shows the phases of a save, and what a whole checkpoint is. It is an instance without
state, and reads only the tree that it is given; `published` alone looks at the disk.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from harness.layouts.phases import PhaseTracker
from harness.layouts.tree import Resolved, Tree
from harness.world import World


class Layout(ABC):
    """A checkpoint directory as seen from outside."""

    name: ClassVar[str]
    """Its name in plans and commands."""
    prefix: ClassVar[str]
    """The name of a checkpoint before its step."""
    pointer: ClassVar[str | None] = None
    """The name that leads to the newest checkpoint; None if the highest step is the newest."""
    completes: ClassVar[str | None] = None
    """The file that makes a directory a checkpoint; None if its name alone does."""
    shards: ClassVar[str] = "*.distcp"
    """The files with the tensors, which all mean the same, as a pattern."""
    seals: ClassVar[tuple[str, ...]] = ()
    """Patterns of the names of files that list the contents of a checkpoint."""
    summary: ClassVar[str]
    """The file of a checkpoint that says most about it, for operators who edit it."""
    pickles: ClassVar[tuple[str, ...]] = ()
    """The files that are pickles or contain one."""
    states: ClassVar[frozenset[str]] = frozenset()
    """Which of `freeze` and `tokens_seen` a checkpoint states."""
    is_closed: ClassVar[bool] = True
    """Whether every other name in the directory is a leftover."""

    # Names.

    def name_of(self, step: int) -> str:
        """Returns the name of the checkpoint of a step."""
        return f"{self.prefix}{step}"

    def step_of(self, name: str) -> int | None:
        """Returns the step in a checkpoint's name; None for every other name."""
        digits = name.removeprefix(self.prefix)
        is_one = name == self.prefix + digits and digits.isascii() and digits.isdigit()
        return int(digits) if is_one else None

    def step_in(self, name: str) -> int | None:
        """Returns the step that occurs anywhere in a name, as in a staging directory's."""
        found = self._anywhere.search(name)
        return int(found[1]) if found else None

    def renumber(self, text: str, steps: Callable[[int], int]) -> str:
        """Returns the text with other steps in the names of checkpoints that occur in it."""
        return self._anywhere.sub(lambda found: self.name_of(steps(int(found[1]))), text)

    @cached_property
    def _anywhere(self) -> re.Pattern[str]:
        """The name of a checkpoint, wherever it occurs; its group is the step."""
        return re.compile(re.escape(self.prefix) + r"([0-9]+)")

    @property
    def any_name(self) -> str:
        """Returns a pattern that the name of every checkpoint matches."""
        return f"{self.prefix}*"

    @property
    def lookalikes(self) -> tuple[str, ...]:
        """Returns names that begin like those of checkpoints and are none."""
        return (f"{self.prefix}7.bak", f"{self.prefix}x")

    def owned(self, name: str) -> bool:
        """Whether a name in the checkpoint directory is the pointer or a checkpoint's."""
        return name == self.pointer or self.step_of(name) is not None

    # Files and phases.

    def tracker(self) -> PhaseTracker:
        """Returns a fresh tracker for the operations of one run."""
        return PhaseTracker(self)

    def is_pointer(self, path: str) -> bool:
        """Whether a path is the pointer, or its temporary name before it replaces the old one."""
        return self.pointer is not None and "/" not in path and self.pointer in path

    def is_seal(self, path: str) -> bool:
        """Whether a file lists the contents of a checkpoint; it can have a temporary suffix."""
        name = path.rpartition("/")[2].lower()
        return any(
            fnmatchcase(name, seal) or fnmatchcase(name, f"{seal}[.~_-]*") for seal in self.seals
        )

    def is_completing(self, path: str) -> bool:
        """Whether the file at the path is the one that makes its directory a checkpoint."""
        top, _, file = path.partition("/")
        return file == self.completes and self.step_of(top) is not None

    def pattern_of(self, path: str) -> str:
        """Returns a path in a checkpoint as a scenario names it: one pattern for all shards."""
        return self.shards if fnmatchcase(path, self.shards) else path

    # What is there.

    def checkpoints(self, tree: Tree) -> dict[str, int]:
        """Returns the directories that are named as checkpoints, and their steps."""
        found: dict[str, int] = {}
        for name in tree.names("."):
            step = self.step_of(name)
            is_there = tree.kind(name) == "directory" and (
                self.completes is None or tree.kind(f"{name}/{self.completes}") is not None
            )
            if step is not None and is_there:
                found[name] = step
        return found

    def latest(self, tree: Tree) -> Resolved:  # noqa: ARG002
        """Resolves the pointer."""
        return Resolved(state="absent")

    @abstractmethod
    def defects(self, tree: Tree, name: str, world: World) -> tuple[str, ...]:
        """Returns why the directory `name` is not a whole checkpoint; empty if it is."""

    def freeze(self, tree: Tree, name: str) -> object | None:  # noqa: ARG002
        """Returns the freeze metadata of a checkpoint, or None."""
        return None

    def tokens_seen(self, tree: Tree, name: str) -> object | None:  # noqa: ARG002
        """Returns the number of tokens seen that a checkpoint states, or None."""
        return None

    def published(self, root: Path) -> int | None:
        """Returns the step of the newest published checkpoint on disk now, or None."""
        steps = [
            step
            for place in (root.iterdir() if root.is_dir() else ())
            if (step := self.step_of(place.name)) is not None
            and (place / (self.completes or ".")).exists()
        ]
        return max(steps, default=None)
