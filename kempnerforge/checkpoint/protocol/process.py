"""State shared by the managers of one process: their saves, logged messages, verified files."""

from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager, nullcontext

from kempnerforge.checkpoint.format.manifest import FileRecord
from kempnerforge.checkpoint.protocol.storage import Stamp

__all__ = ["ProcessMemory"]


class ProcessMemory:
    """The memory of one process of a job; all its managers belong to that job.

    Args:
        draw: Creates a unique id.
        building: A context for building many objects, none of which is garbage.
    """

    def __init__(
        self,
        draw: Callable[[], str],
        *,
        building: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        self._draw = draw
        self.building = building
        self._under_way: set[str] = set()
        self._own: set[str] = set()
        self._said: set[str] = set()
        self.intact: dict[tuple[str, str, FileRecord], Stamp] = {}
        """Verified files, by save id, name and record, with their stamps at that time."""

    def new_save_id(self) -> str:
        """Returns an id for a save of this process."""
        save_id = self._draw()
        self._own.add(save_id)
        return save_id

    def is_own(self, save_id: str) -> bool:
        """Whether this process made the checkpoint or hidden name with that id."""
        return save_id in self._own

    def is_under_way(self, save_id: str) -> bool:
        """Whether a save of this process is in progress under that id, so its hidden names stay.

        The lock protects those of another process.
        """
        return save_id in self._under_way

    @contextmanager
    def under_way(self, save_id: str) -> Generator[None, None, None]:
        """Marks a save as in progress within the block, so that no other save removes its files."""
        self._under_way.add(save_id)
        self._own.add(save_id)
        try:
            yield
        finally:
            self._under_way.discard(save_id)

    def says_first(self, message: str) -> bool:
        """Whether this message is logged for the first time."""
        is_first = message not in self._said
        self._said.add(message)
        return is_first
