"""The base of the layouts: what a checkpoint directory looks like from outside.

A layout writes down what differs from the values here, and stands in `registry.py`. It makes and
reads the names of checkpoints, knows the pointer to the newest one where there is any, the kinds of
files, what shows the phases of a save, and what a whole checkpoint is. It is an instance without
state, and reads nothing but the tree that it is given; `published` alone looks at the disk.
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
    """How plans and commands spell it."""
    prefix: ClassVar[str]
    """The name of a checkpoint before its step."""
    pointer: ClassVar[str | None] = None
    """The name that leads to the newest checkpoint; None where the highest step is the newest."""
    completes: ClassVar[str | None] = None
    """The file that makes a directory a checkpoint; None where its name alone does."""
    shards: ClassVar[str] = "*.distcp"
    """The files with the tensors, which all mean the same, as a pattern."""
    seals: ClassVar[tuple[str, ...]] = ()
    """Patterns of the names of files that say what belongs to a checkpoint."""
    summary: ClassVar[str]
    """The file of a checkpoint that says most about it, for people who edit it by operator."""
    pickles: ClassVar[tuple[str, ...]] = ()
    """The files that are pickles or hold one."""
    tells: ClassVar[frozenset[str]] = frozenset()
    """Which of `freeze` and `tokens_seen` a checkpoint says."""

    # Names.

    def name_of(self, step: int) -> str:
        """The name of the checkpoint of a step."""
        return f"{self.prefix}{step}"

    def step_of(self, name: str) -> int | None:
        """The step of a checkpoint's name; None for every other name."""
        digits = name.removeprefix(self.prefix)
        is_one = name == self.prefix + digits and digits.isascii() and digits.isdigit()
        return int(digits) if is_one else None

    def step_in(self, name: str) -> int | None:
        """The step that occurs anywhere in a name, as in a staging directory's."""
        found = self._anywhere.search(name)
        return int(found[1]) if found else None

    def renumber(self, text: str, steps: Callable[[int], int]) -> str:
        """The text with other steps in the names of checkpoints that occur in it."""
        return self._anywhere.sub(lambda found: self.name_of(steps(int(found[1]))), text)

    @cached_property
    def _anywhere(self) -> re.Pattern[str]:
        return re.compile(re.escape(self.prefix) + r"([0-9]+)")

    @property
    def any_name(self) -> str:
        """A pattern that the name of every checkpoint fits."""
        return f"{self.prefix}*"

    @property
    def lookalikes(self) -> tuple[str, ...]:
        """Names that begin as those of checkpoints do and are none."""
        return (f"{self.prefix}7.bak", f"{self.prefix}x")

    def owned(self, name: str) -> bool:
        """Whether a name in the checkpoint directory is the pointer or a checkpoint's."""
        return name == self.pointer or self.step_of(name) is not None

    # Files and phases.

    def tracker(self) -> PhaseTracker:
        """A fresh tracker for the operations of one run."""
        return PhaseTracker(self)

    def is_pointer(self, path: str) -> bool:
        """Whether a path is the pointer, or a name that it has until it takes the old one's."""
        return self.pointer is not None and "/" not in path and self.pointer in path

    def is_seal(self, path: str) -> bool:
        """Whether a file says what belongs to a checkpoint; it may have a temporary ending."""
        name = path.rpartition("/")[2].lower()
        return any(
            fnmatchcase(name, seal) or fnmatchcase(name, f"{seal}[.~_-]*") for seal in self.seals
        )

    def is_completing(self, path: str) -> bool:
        """Whether the file at the path is the one that makes its directory a checkpoint."""
        top, _, file = path.partition("/")
        return file == self.completes and self.step_of(top) is not None

    def pattern_of(self, path: str) -> str:
        """A path in a checkpoint as a scenario names it: all shards are meant together."""
        return self.shards if fnmatchcase(path, self.shards) else path

    # What is there.

    def checkpoints(self, tree: Tree) -> dict[str, int]:
        """The directories that are called checkpoints, and their steps."""
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
        """Where the pointer leads."""
        return Resolved(state="absent")

    @abstractmethod
    def defects(self, tree: Tree, name: str, world: World) -> tuple[str, ...]:
        """Why the directory `name` is not a whole checkpoint; empty when it is."""

    def freeze(self, tree: Tree, name: str) -> object | None:  # noqa: ARG002
        """The freeze metadata of a checkpoint, None where it has none."""
        return None

    def tokens_seen(self, tree: Tree, name: str) -> object | None:  # noqa: ARG002
        """How many tokens a checkpoint says it has seen, None where it does not say."""
        return None

    def published(self, root: Path) -> int | None:
        """The step of the newest published checkpoint on disk now, None where there is none."""
        steps = [
            step
            for place in (root.iterdir() if root.is_dir() else ())
            if (step := self.step_of(place.name)) is not None
            and (place / (self.completes or ".")).exists()
        ]
        return max(steps, default=None)
