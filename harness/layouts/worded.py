"""A directory as its user describes it: names of checkpoints, the files that complete one, and the
pointer.

What is in the files is unknown: a checkpoint is whole if its name and these files are there.
"""

from __future__ import annotations

import posixpath
import re
from fnmatch import fnmatchcase
from functools import cached_property
from typing import ClassVar

from harness.layouts.base import Layout
from harness.layouts.tree import Resolved, Tree
from harness.words import STEP_WORD
from harness.world import World

_LONGEST_TEXT = 4096


class WordedLayout(Layout):
    """A layout in words: `checkpoints` is the name of one, with `{step}` and perhaps `*`.

    `complete` has patterns of files that each checkpoint must have. `pointer` is a file with the
    name of the newest checkpoint, or a symlink to it.
    """

    name: ClassVar[str] = "worded"
    prefix: ClassVar[str] = ""
    summary: ClassVar[str] = ""
    is_closed: ClassVar[bool] = False

    def __init__(
        self, *, checkpoints: str, complete: tuple[str, ...] = (), pointer: str | None = None
    ) -> None:
        self._checkpoints, self._complete, self._pointer = checkpoints, complete, pointer

    @property
    def pointer(self) -> str | None:  # type: ignore[override]
        """The name of the pointer, if there is one."""
        return self._pointer

    @cached_property
    def _anywhere(self) -> re.Pattern[str]:
        text = re.escape(self._checkpoints).replace(re.escape("*"), "[^/]*")
        return re.compile(text.replace(re.escape(STEP_WORD), "([0-9]+)"))

    def name_of(self, step: int) -> str:
        """Returns the name of the checkpoint of a step; nothing stands for `*`."""
        return self._checkpoints.replace("*", "").replace(STEP_WORD, str(step))

    def step_of(self, name: str) -> int | None:
        """Returns the step in a checkpoint's name; None for every other name."""
        found = self._anywhere.fullmatch(name)
        return int(found[1]) if found else None

    @property
    def any_name(self) -> str:
        """Returns a pattern that the name of every checkpoint matches."""
        return self._checkpoints.replace(STEP_WORD, "*")

    def checkpoints(self, tree: Tree) -> dict[str, int]:
        """Returns the names of checkpoints, folders or files, whose completing files are there."""
        return {
            name: step
            for name in tree.names(".")
            if (step := self.step_of(name)) is not None and not self._missing(tree, name)
        }

    def latest(self, tree: Tree) -> Resolved:
        """Resolves the pointer; a path in it counts by its last name."""
        kind = None if self._pointer is None else tree.kind(self._pointer)
        if self._pointer is None or kind is None:
            return Resolved(state="absent")
        if kind == "symlink":
            text = tree.text(self._pointer)
        elif kind == "file":
            raw = tree.content(self._pointer).read(0, _LONGEST_TEXT)
            text = raw.decode(errors="replace").strip()
        else:
            return Resolved(state="astray", detail=f"`{self._pointer}` is a {kind}")
        if not text:
            return Resolved(state="astray", detail=f"`{self._pointer}` is empty")
        name = self._named(text)
        if tree.kind(name) is None:
            detail = f"`{self._pointer}` names {name}, which does not exist"
            return Resolved(state="dangling", name=name, detail=detail)
        return Resolved(state="checkpoint", name=name)

    def _named(self, text: str) -> str:
        """Returns the name of the checkpoint that a pointer's text means: some have only a step."""
        name = posixpath.basename(posixpath.normpath(text))
        return self.name_of(int(name)) if name.isdecimal() else name

    def defects(self, tree: Tree, name: str, world: World) -> tuple[str, ...]:  # noqa: ARG002
        """Returns the completing files that the checkpoint does not have."""
        return tuple(f"{one} is missing" for one in self._missing(tree, name))

    def _missing(self, tree: Tree, name: str) -> list[str]:
        there = tree.names(name)
        return [one for one in self._complete if not any(fnmatchcase(file, one) for file in there)]
