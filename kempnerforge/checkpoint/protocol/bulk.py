"""The tensors of a save, as the protocol knows them: somebody plans, writes and describes them.

What travels between the ranks (a proposal, an assignment, where everything was written) is opaque
to the protocol.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from kempnerforge.checkpoint.format.manifest import FileRecord

__all__ = ["Bulk", "MergedPlans", "WrittenFiles"]


class WrittenFiles(Protocol):
    """The files that one rank wrote."""

    @property
    def files(self) -> Mapping[str, FileRecord]:
        """By name within the shard directory."""


class MergedPlans(Protocol):
    """The plans of all ranks, without duplicates; on rank 0."""

    @property
    def ranks_of(self) -> Mapping[int | None, tuple[int, ...]]:
        """Ranks by the stage whose shard directory they share."""

    @property
    def has_rank_values(self) -> bool:
        """Whether ranks write values of their own under one name."""

    def assign(self, rank: int, proposed: Any) -> Any:
        """The answer to a rank that proposed this."""

    def encode(self, stage: int | None, written: Sequence[Any], *, save_id: str) -> bytes:
        """Content of ``.metadata`` of a stage.

        Args:
            stage: Whose.
            written: By the ranks of the stage, in order.
            save_id: Of this save.
        """


class Bulk(Protocol):
    """One rank's tensors of one save, detached from training."""

    def propose(self) -> Any:
        """The message to rank 0."""

    def merge(
        self, proposed: Sequence[Any], ranks_of: Mapping[int | None, tuple[int, ...]]
    ) -> MergedPlans:
        """Distribute the values over the ranks; on rank 0.

        Args:
            proposed: By rank.
            ranks_of: Ranks by the stage whose shard directory they share.
        """

    def write(
        self, directory: Path, assigned: Any, *, meanwhile: Callable[[], object]
    ) -> WrittenFiles:
        """Write this rank's part; durable on return, but for its name in ``directory``.

        Args:
            directory: Where to.
            assigned: The part.
            meanwhile: Called once the file has its name, maybe while it is being written.
        """
