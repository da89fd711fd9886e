"""State that the managers of one process share: their saves, what was logged and verified."""

from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager, nullcontext

from kempnerforge.checkpoint.format.manifest import FileRecord
from kempnerforge.checkpoint.protocol.storage import Stamp

__all__ = ["ProcessMemory"]


class ProcessMemory:
    """One process of a job; all its managers belong to that job.

    Args:
        draw: Makes an id that nobody else has.
        building: Within it many objects are built of which none is garbage.
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
        """Files that were verified, by save id, name and record, as they were then."""

    def new_save_id(self) -> str:
        """An id for a save of this process."""
        save_id = self._draw()
        self._own.add(save_id)
        return save_id

    def is_own(self, save_id: str) -> bool:
        """Whether a checkpoint or a hidden name with that id was made here."""
        return save_id in self._own

    def is_under_way(self, save_id: str) -> bool:
        """Whether a save of this process goes on under that id, so that its hidden names stay.

        Those of another process are protected by the lock.
        """
        return save_id in self._under_way

    @contextmanager
    def under_way(self, save_id: str) -> Generator[None, None, None]:
        """A save under that id goes on within, and no other one cleans up after it."""
        self._under_way.add(save_id)
        self._own.add(save_id)
        try:
            yield
        finally:
            self._under_way.discard(save_id)

    def says_first(self, message: str) -> bool:
        """Whether this is said for the first time."""
        is_first = message not in self._said
        self._said.add(message)
        return is_first
