"""A directory of which nothing is known: no name in it means a checkpoint."""

from __future__ import annotations

from typing import ClassVar

from harness.layouts.base import Layout
from harness.layouts.tree import Tree
from harness.world import World


class UnknownLayout(Layout):
    """The directory of a command, whose names mean nothing to the harness."""

    name: ClassVar[str] = "unknown"
    prefix: ClassVar[str] = ""
    summary: ClassVar[str] = ""
    is_closed: ClassVar[bool] = False

    def step_of(self, name: str) -> int | None:  # noqa: ARG002
        """Returns None: no name is a checkpoint's."""
        return None

    def step_in(self, name: str) -> int | None:  # noqa: ARG002
        """Returns None: no number in a name is a step."""
        return None

    def defects(self, tree: Tree, name: str, world: World) -> tuple[str, ...]:  # noqa: ARG002
        """Returns nothing: what is whole is not known."""
        return ()
