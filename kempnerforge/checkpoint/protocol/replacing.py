"""Replaces a checkpoint by a new version of its step, even if names cannot be swapped atomically.

``latest`` follows the versions through every rename, so at each instant it leads to a whole one::

      latest                 step_N   .staging-step_N-<id>   .replaced-step_N-<id>
    0 step_N                 old      new
    1 .staging-step_N-<id>   old      new
    2 .staging-step_N-<id>            new                    old
    3 .replaced-step_N-<id>           new                    old
    4 .replaced-step_N-<id>  new                             old
    5 step_N                 new                             old

Each move is durable before the next one begins. If ``latest`` names another step, it stays
unchanged until the end, and only the two renames are made. A move that fails is undone, with all
moves before it. What a dead run left half done is completed by the next holder of the lock:
``latest`` has named the new version by then, so it counts as committed. If the new version turns
out to be damaged, the old one gets its name back instead.
"""

import dataclasses
import logging
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from kempnerforge.checkpoint.errors import CheckpointError, CorruptCheckpointError
from kempnerforge.checkpoint.format import layout
from kempnerforge.checkpoint.format.layout import Leftover, LeftoverKind
from kempnerforge.checkpoint.protocol.catalog import (
    Entry,
    Outline,
    State,
    inspect,
    read_outline,
    verify_sizes,
)
from kempnerforge.checkpoint.protocol.effects import Runtime
from kempnerforge.checkpoint.protocol.pointer import Pointer, UnmovedPointerError
from kempnerforge.checkpoint.protocol.storage import Storage

__all__ = [
    "CannotExchangeError",
    "Move",
    "Replacement",
    "find_unfinished",
    "has_name",
    "is_whole",
    "perform",
    "plan_completion",
    "read_settled",
    "replace",
]

logger = logging.getLogger(__name__)

# Time that a reader waits for a writer between two moves, each of which is a rename and a sync.
_PAUSES_S = (0.02, 0.1, 0.4, 1.0)
_LEFT = (
    "%s: the changes of a failed save cannot be undone (%s); the next start of the job, or "
    "`kempnerforge-ckpt repair`, completes what is half done"
)


class CannotExchangeError(Exception):
    """This file system cannot swap two names; nothing was changed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """One change of a checkpoint directory: a rename, or a new target of ``latest``."""

    name: str
    """The name that is renamed, or ``latest``."""
    target: str
    """Its new name, or the name that ``latest`` gets; None removes ``latest``."""
    swaps: bool = False
    """Whether the two names are swapped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Replacement:
    """Two versions of one step, and the names they have during the replacement."""

    step: int
    save_id: str

    @property
    def name(self) -> str:
        """The final name of the version that counts."""
        return layout.format_step(self.step)

    @property
    def new(self) -> str:
        """The staging directory."""
        return self._hidden(LeftoverKind.staging)

    @property
    def old(self) -> str:
        """The hidden name under which the old version is set aside."""
        return self._hidden(LeftoverKind.replaced)

    def moves_to_free_name(self) -> tuple[Move, ...]:
        """Returns all moves for a step that has no version yet."""
        return (
            Move(name=self.new, target=self.name),
            Move(name=layout.LATEST, target=self.name),
        )

    def moves_by_exchange(self) -> tuple[Move, ...]:
        """Returns all moves if names can be swapped; the old version then has the staging name."""
        return (
            Move(name=self.new, target=self.name, swaps=True),
            Move(name=layout.LATEST, target=self.name),
        )

    def moves(self) -> tuple[Move, ...]:
        """Returns all moves without swapping, if ``latest`` names this step."""
        return (
            Move(name=layout.LATEST, target=self.new),
            Move(name=self.name, target=self.old),
            Move(name=layout.LATEST, target=self.old),
            Move(name=self.new, target=self.name),
            Move(name=layout.LATEST, target=self.name),
        )

    def moves_beside_latest(self) -> tuple[Move, ...]:
        """Returns all moves without swapping, if ``latest`` names another step."""
        return tuple(self.moves()[number] for number in (1, 3, 4))

    def completion(self, names: Collection[str], latest: str | None) -> tuple[Move, ...]:
        """Returns the remaining moves; ``latest`` names, or was to name, a hidden version."""
        if self.new in names and self.name in names:
            return self.moves()[1:]
        if self.new in names and self.old in names:
            return self.moves()[2 if latest == self.new else 3 :]
        only = next((name for name in (self.name, self.new, self.old) if name in names), None)
        return () if only is None else self._naming(only)

    def place_of_old(self, names: Collection[str]) -> str:
        """Returns the present name of the old version."""
        return self.name if self.new in names and self.name in names else self.old

    def withdrawal(self, names: Collection[str]) -> tuple[Move, ...]:
        """Returns the moves that restore the old version, because the new one is damaged.

        There are none if the new one has the step's name: ``latest`` names the old one, and stays.
        """
        old = self.place_of_old(names)
        taken = old != self.name and self.name in names
        return () if taken or old not in names else self._naming(old)

    def _naming(self, version: str) -> tuple[Move, ...]:
        point = Move(name=layout.LATEST, target=self.name)
        return (point,) if version == self.name else (Move(name=version, target=self.name), point)

    def _hidden(self, kind: LeftoverKind) -> str:
        return layout.format_leftover(Leftover(kind=kind, step=self.step, save_id=self.save_id))


def replace(moves: Sequence[Move], pointer: Pointer) -> None:
    """Makes the moves, each durable before the next, or none of them.

    Each new pointer is prepared before the move that precedes it, so that a lack of link support or
    of inodes shows early.

    Raises:
        CannotExchangeError: The first move swaps two names, which is not supported here.
        OSError: A move failed. The earlier moves were undone. If that failed as well, or it cannot
            be seen whether this move was made, ``latest`` leads to a whole version, and the next
            start completes the replacement.
    """
    attempt = _Attempt(pointer)
    try:
        for number in range(len(moves)):
            attempt.make(moves[number:])
    except OSError as error:
        attempt.take_back(error)
        pointer.discard()
        raise


class _Attempt:
    """Makes moves one after the other, and can undo them."""

    def __init__(self, pointer: Pointer) -> None:
        self._pointer = pointer
        # Read once at the beginning, because a later read could fail.
        self._latest = pointer.read()
        self._kind = pointer.kind_of_present()
        self._prepared: str | None = None
        self._back: list[Move] = []
        self._trying: Move | None = None

    def make(self, moves: Sequence[Move]) -> None:
        """Makes the first of ``moves``, after preparing the next pointer among them."""
        move = self._trying = moves[0]
        following = next((one.target for one in moves if one.name == layout.LATEST), None)
        if following is not None and following != self._prepared:
            self._pointer.prepare(following)
            self._prepared = following
        if move.name == layout.LATEST:
            self._pointer.place(move.target, before=self._latest)
        else:
            _rename(move, self._pointer)
        self._made(move)

    def _made(self, move: Move) -> None:
        self._back.append(_inverse(move, latest=self._latest))
        if move.name == layout.LATEST:
            self._latest, self._prepared = move.target, None

    def take_back(self, error: OSError) -> None:
        """Undoes all moves made, last first; stops at the first that cannot be undone."""
        if self._trying is None:
            return
        made = _took_effect(self._trying, self._pointer, self._latest, error)
        if made is None:
            logger.warning(_LEFT, self._pointer.root, error)
            return
        if made:
            self._back.append(_inverse(self._trying, latest=self._latest))
        pointer = dataclasses.replace(self._pointer, kind=self._kind)
        for move in reversed(self._back):
            try:
                perform(move, pointer)
            except OSError as failure:
                logger.warning(_LEFT, pointer.root, failure)
                return


def _took_effect(move: Move, pointer: Pointer, latest: str | None, error: OSError) -> bool | None:
    """Whether a failed move was made nevertheless, but is not durable.

    None if that cannot be seen: if it was made, undoing the earlier moves would lose one version.
    """
    if isinstance(error, UnmovedPointerError):
        return True  # for other machines it may have moved
    try:
        if move.name == layout.LATEST:
            return pointer.read() == move.target != latest
        if move.swaps:
            return has_name(pointer, move.target)
        return move.name not in pointer.storage.names(pointer.root)
    except (OSError, CheckpointError):
        return None


def has_name(pointer: Pointer, name: str) -> bool:
    """Whether the version that is being saved has that name.

    Raises:
        CheckpointError: This cannot be seen at present.
    """
    entry = inspect(pointer.root / name, pointer.storage, heads=True)
    if entry.is_questionable:
        entry.refuse()
    return entry.head is not None and entry.head.save_id == pointer.save_id


def _inverse(move: Move, *, latest: str | None) -> Move:
    """Returns the inverse move; ``latest`` is the former target of the pointer."""
    if move.name == layout.LATEST:
        return Move(name=layout.LATEST, target=latest or "")
    return Move(name=move.target, target=move.name, swaps=move.swaps)


def _rename(move: Move, pointer: Pointer) -> None:
    source, target = pointer.root / move.name, pointer.root / move.target
    if not move.swaps:
        pointer.storage.rename(source, target)
    elif not pointer.storage.exchange(source, target):
        raise CannotExchangeError
    pointer.storage.sync_directory(pointer.root)


def perform(move: Move, pointer: Pointer) -> None:
    """Makes one move, durably."""
    if move.name == layout.LATEST:
        pointer.point(move.target)
    else:
        _rename(move, pointer)


def find_unfinished(latest: str | None) -> Replacement | None:
    """Returns the half-done replacement that a target of ``latest`` shows, if any."""
    leftover = None if latest is None else layout.parse_leftover(latest)
    if leftover is None or leftover.kind is LeftoverKind.trash:
        return None
    return Replacement(step=leftover.step, save_id=leftover.save_id)


def plan_completion(
    found: Replacement, names: Collection[str], latest: str | None, *, whole: Callable[[str], bool]
) -> tuple[Move, ...]:
    """Returns the moves that complete a replacement which a dead run left half done.

    Args:
        found: The replacement.
        names: The names in the checkpoint directory.
        latest: The target of ``latest``.
        whole: Returns whether the directory of that name is a usable version of the step.
    """
    newest = found.new if found.new in names else found.name
    if whole(newest):
        return found.completion(names, latest)
    return found.withdrawal(names) if whole(found.place_of_old(names)) else ()


def is_whole(entry: Entry, storage: Storage, *, step: int | None) -> bool:
    """Whether a directory is a version of ``step`` that has all its files with their sizes.

    Raises:
        UnreadableCheckpointError: This cannot be determined at present.
        NewerFormatError: It was written by a newer version of this package.
    """
    if entry.is_questionable:
        entry.refuse()
    if entry.manifest is None:
        return entry.state is State.plain
    try:
        verify_sizes(entry.path, entry.manifest, storage)
    except CorruptCheckpointError:
        return False
    return entry.step == step


def read_settled(root: Path, runtime: Runtime) -> Outline:
    """`read_outline` for readers without the lock: waits while another job swaps two versions.

    A hidden name in ``latest`` would be gone when the checkpoint is loaded, so this waits for the
    writer. If the writer died, the name stays, and belongs to a whole checkpoint.
    """
    for pause_s in _PAUSES_S:
        found = read_outline(root, runtime.storage)
        if find_unfinished(found.latest) is None:
            return found
        runtime.clock.sleep(pause_s)
    return read_outline(root, runtime.storage)
