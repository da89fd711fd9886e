"""Replacing a checkpoint by a new version of its step, where names cannot be swapped at once.

``latest`` follows the versions through every rename, so at each instant it leads to a whole one::

      latest                 step_N   .staging-step_N-<id>   .replaced-step_N-<id>
    0 step_N                 old      new
    1 .staging-step_N-<id>   old      new
    2 .staging-step_N-<id>            new                    old
    3 .replaced-step_N-<id>           new                    old
    4 .replaced-step_N-<id>  new                             old
    5 step_N                 new                             old

Each move is durable before the next one begins. Where ``latest`` names another step, it stays there
until the end, and only the two renames are made. A move that fails is taken back with all before
it. What a dead run left half way is completed by whoever may change the directory next: ``latest``
has named the new version by then, so it counts as committed. If the new version turns out to be
damaged, the old one gets its name back instead.
"""

import logging
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from kempnerforge.checkpoint import layout
from kempnerforge.checkpoint.catalog import Entry, Outline, State, read_outline, verify_sizes
from kempnerforge.checkpoint.errors import CorruptCheckpointError
from kempnerforge.checkpoint.layout import Leftover, LeftoverKind
from kempnerforge.checkpoint.storage import Storage

__all__ = [
    "Move",
    "Replacement",
    "find_unfinished",
    "is_whole",
    "perform",
    "plan_completion",
    "point_latest",
    "read_settled",
    "replace",
]

logger = logging.getLogger(__name__)

# What a reader waits for a writer between two moves, each of which is a rename and a sync.
_PAUSES_S = (0.02, 0.1, 0.4, 1.0)
_LEFT = (
    "%s: a replacement that failed cannot be taken back (%s); the next start of the job, or "
    "`kempnerforge-ckpt repair`, completes it"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """One change of a checkpoint directory: a rename, or a new target of ``latest``."""

    name: str
    """What is renamed, or ``latest``."""
    target: str
    """Its new name, or what ``latest`` is to name; nothing takes ``latest`` away."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Replacement:
    """Two versions of one step, by the names they have on the way."""

    step: int
    save_id: str

    @property
    def name(self) -> str:
        """What the version that counts is called."""
        return layout.format_step(self.step)

    @property
    def new(self) -> str:
        """The staging directory."""
        return self._hidden(LeftoverKind.staging)

    @property
    def old(self) -> str:
        """Where the old version is set aside."""
        return self._hidden(LeftoverKind.replaced)

    def moves(self) -> tuple[Move, ...]:
        """All moves, for a ``latest`` that names this step."""
        return (
            Move(name=layout.LATEST, target=self.new),
            Move(name=self.name, target=self.old),
            Move(name=layout.LATEST, target=self.old),
            Move(name=self.new, target=self.name),
            Move(name=layout.LATEST, target=self.name),
        )

    def moves_beside_latest(self) -> tuple[Move, ...]:
        """All moves, for a ``latest`` that leads elsewhere."""
        return tuple(self.moves()[number] for number in (1, 3, 4))

    def completion(self, names: Collection[str], latest: str | None) -> tuple[Move, ...]:
        """The moves that are left to make; ``latest`` names, or was to name, a hidden version."""
        if self.new in names and self.name in names:
            return self.moves()[1:]
        if self.new in names and self.old in names:
            return self.moves()[2 if latest == self.new else 3 :]
        only = next((name for name in (self.name, self.new, self.old) if name in names), None)
        return () if only is None else self._naming(only)

    def place_of_old(self, names: Collection[str]) -> str:
        """Where the old version is."""
        return self.name if self.new in names and self.name in names else self.old

    def withdrawal(self, names: Collection[str]) -> tuple[Move, ...]:
        """The moves that make the old version count, because the new one is damaged.

        None where the new one has the step's name: ``latest`` names the old one, and stays.
        """
        old = self.place_of_old(names)
        taken = old != self.name and self.name in names
        return () if taken or old not in names else self._naming(old)

    def _naming(self, version: str) -> tuple[Move, ...]:
        point = Move(name=layout.LATEST, target=self.name)
        return (point,) if version == self.name else (Move(name=version, target=self.name), point)

    def _hidden(self, kind: LeftoverKind) -> str:
        return layout.format_leftover(Leftover(kind=kind, step=self.step, save_id=self.save_id))


def _inverse(move: Move, *, latest: str | None) -> Move:
    """The move back; ``latest`` is what the link named before."""
    if move.name == layout.LATEST:
        return Move(name=layout.LATEST, target=latest or "")
    return Move(name=move.target, target=move.name)


def replace(root: Path, moves: Collection[Move], storage: Storage, *, save_id: str) -> None:
    """Make the moves, each durable before the next, or none of them.

    Raises:
        OSError: One failed. Those made were taken back, or, if that failed as well or it cannot be
            seen whether this one was made, ``latest`` leads to a whole version and the next start
            completes the replacement.
    """
    back: list[Move] = []
    latest = storage.read_link(root / layout.LATEST)  # once: a read half way may fail
    for move in moves:
        try:
            perform(root, move, storage, save_id=save_id)
        except OSError as error:
            made = _took_effect(root, move, storage)
            if made is None:
                logger.warning(_LEFT, root, error)
                raise
            if made:
                back.append(_inverse(move, latest=latest))
            _take_back(root, back, storage, save_id=save_id)
            raise
        back.append(_inverse(move, latest=latest))
        latest = move.target if move.name == layout.LATEST else latest


def _took_effect(root: Path, move: Move, storage: Storage) -> bool | None:
    """Whether a move that failed was made all the same, and only not made durable.

    None where that cannot be seen: to take back the moves before it would lose one version if it
    was made.
    """
    try:
        if move.name == layout.LATEST:
            return storage.read_link(root / layout.LATEST) == move.target
        return move.name not in storage.names(root)
    except OSError:
        return None


def _take_back(root: Path, moves: list[Move], storage: Storage, *, save_id: str) -> None:
    for move in reversed(moves):
        try:
            perform(root, move, storage, save_id=save_id)
        except OSError as error:
            logger.warning(_LEFT, root, error)
            return


def perform(root: Path, move: Move, storage: Storage, *, save_id: str) -> None:
    """Make one move and make it durable."""
    if move.name == layout.LATEST:
        point_latest(root, move.target, storage, save_id=save_id)
        return
    storage.rename(root / move.name, root / move.target)
    storage.sync_directory(root)


def point_latest(root: Path, target: str, storage: Storage, *, save_id: str) -> None:
    """Make ``latest`` name ``target``, durably; a directory of that name is moved aside.

    Without a target ``latest`` is taken away.
    """
    latest, link = root / layout.LATEST, root / layout.format_latest_link(save_id)
    if not target:
        storage.unlink(latest)
        storage.sync_directory(root)
        return
    if storage.is_directory(latest):
        aside = root / f"{layout.LATEST}.aside-{save_id}"
        logger.warning("%s is a directory; renamed to %s", latest, aside.name)
        storage.rename(latest, aside)
    try:
        storage.make_link(link, target)
    except FileExistsError:  # of an attempt that ended before it was placed
        storage.unlink(link)
        storage.make_link(link, target)
    storage.rename(link, latest)
    storage.sync_directory(root)


def find_unfinished(latest: str | None) -> Replacement | None:
    """The replacement that a target of ``latest`` shows to be half way, if it does."""
    leftover = None if latest is None else layout.parse_leftover(latest)
    if leftover is None or leftover.kind is LeftoverKind.trash:
        return None
    return Replacement(step=leftover.step, save_id=leftover.save_id)


def plan_completion(
    found: Replacement, names: Collection[str], latest: str | None, *, whole: Callable[[str], bool]
) -> tuple[Move, ...]:
    """The moves that end a replacement which a dead run left half way.

    Args:
        whole: Whether the directory of that name is a version of the step that can be used.
    """
    newest = found.new if found.new in names else found.name
    if whole(newest):
        return found.completion(names, latest)
    return found.withdrawal(names) if whole(found.place_of_old(names)) else ()


def is_whole(entry: Entry, storage: Storage, *, step: int | None) -> bool:
    """Whether a directory is a version of ``step`` that has all its files with their sizes.

    Raises:
        UnreadableCheckpointError: That cannot be seen at present.
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


def read_settled(root: Path, storage: Storage) -> Outline:
    """`read_outline` for readers without the lock: waits while another job swaps two versions.

    A hidden name that ``latest`` has for a moment would be gone when the checkpoint is loaded, so
    the writer is waited for. One that died has left the name for good; it is a whole checkpoint.
    """
    for pause_s in _PAUSES_S:
        found = read_outline(root, storage)
        if find_unfinished(found.latest) is None:
            return found
        time.sleep(pause_s)
    return read_outline(root, storage)
