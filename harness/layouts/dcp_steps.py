"""torch's DCP in `step-N` folders: no pointer, and `.metadata` makes a folder a checkpoint.

DCP writes the shards of all ranks first, and `.metadata`, which names them, last. A folder without
it is a save that is under way or was torn. The newest checkpoint is the one of the highest step.

Out of scope: pipeline stages, which programs with DCP keep in one folder, and several folders that
hold one checkpoint together.
"""

from __future__ import annotations

from typing import ClassVar

from harness.layouts.archive import METADATA
from harness.layouts.base import Layout
from harness.layouts.files import shard_defects
from harness.layouts.tree import Tree
from harness.world import World


class DcpSteps(Layout):
    """Folders as `torch.distributed.checkpoint` fills them, one for each step."""

    name: ClassVar[str] = "dcp_steps"
    prefix: ClassVar[str] = "step-"
    completes: ClassVar[str | None] = METADATA
    seals: ClassVar[tuple[str, ...]] = (METADATA,)
    summary: ClassVar[str] = METADATA
    pickles: ClassVar[tuple[str, ...]] = (METADATA,)

    def defects(self, tree: Tree, name: str, world: World) -> tuple[str, ...]:  # noqa: ARG002
        """Returns the files that `.metadata` names and that are missing or too short."""
        return tuple(shard_defects(tree, name, name))
