"""The interface through which the protocol has the tensors of a save planned and written.

The messages that the ranks exchange about them (a proposal, an assignment, where everything was
written) are opaque to the protocol.
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
        """The files, by name within the shard directory."""


class MergedPlans(Protocol):
    """The plans of all ranks, without duplicates; on rank 0."""

    @property
    def ranks_of(self) -> Mapping[int | None, tuple[int, ...]]:
        """Ranks by the stage whose shard directory they share."""

    @property
    def has_rank_values(self) -> bool:
        """Whether ranks write different values under one name."""

    def assign(self, rank: int, proposed: Any) -> Any:
        """Returns the answer to a rank that proposed this."""

    def encode(self, stage: int | None, written: Sequence[Any], *, save_id: str) -> bytes:
        """Returns the content of a stage's ``.metadata``.

        Args:
            stage: The stage.
            written: What the ranks of the stage wrote, in rank order.
            save_id: Id of this save.
        """


class Bulk(Protocol):
    """One rank's tensors of one save, detached from training."""

    def propose(self) -> Any:
        """Returns the message to rank 0."""

    def merge(
        self, proposed: Sequence[Any], ranks_of: Mapping[int | None, tuple[int, ...]]
    ) -> MergedPlans:
        """Distributes the values over the ranks; called on rank 0.

        Args:
            proposed: The messages of all ranks, by rank.
            ranks_of: Ranks by the stage whose shard directory they share.
        """

    def write(
        self, directory: Path, assigned: Any, *, meanwhile: Callable[[], object]
    ) -> WrittenFiles:
        """Writes this rank's part; durable on return, except its entry in ``directory``.

        Args:
            directory: The shard directory.
            assigned: The part to write.
            meanwhile: Called once the file has been created, possibly while it is being written.
        """
