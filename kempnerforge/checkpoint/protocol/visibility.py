"""How a client that answers from what it remembers is made to look again, or waited for.

What is remembered, by whom, and what helps:

- the names in a directory, by NFS, SMB and sshfs: opening the directory (NFS asks the server then),
  and a change of this client's own to it, for which a hidden name is made and removed
- what ``latest`` names, for 20 s by sshfs: another name for it, a hard link, is read instead, of
  which nobody can remember anything
- that a name was not there when it was last looked for, by NFS and FUSE: nothing that is harmless
  on every file system, so a name that is listed and not found is waited for

Nothing is made in a directory that may not be changed; then the client is asked as far as reading
goes. Nothing is done, and nothing waited for, on a file system that shows every change at once
(:mod:`file_systems`).
"""

import logging
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeVar

from kempnerforge.checkpoint.errors import UnreadableCheckpointError, shows_damage
from kempnerforge.checkpoint.format import layout
from kempnerforge.checkpoint.format.layout import Leftover, LeftoverKind
from kempnerforge.checkpoint.protocol.catalog import Outline, read_outline, verify_sizes
from kempnerforge.checkpoint.protocol.effects import Runtime
from kempnerforge.checkpoint.protocol.pointer import read_pointer_at
from kempnerforge.checkpoint.protocol.proposal import LoadCandidate
from kempnerforge.checkpoint.protocol.storage import Storage

__all__ = [
    "PAUSES_S",
    "await_listed",
    "await_made",
    "look_afresh",
    "once_visible",
    "when_visible",
]

logger = logging.getLogger(__name__)

T = TypeVar("T")

# Together 31 s: sshfs remembers for 20 s by default, and attributes of directories on NFS, which
# say whether its names are to be looked up again, are remembered for 30 s at least (acdirmin).
PAUSES_S = (0.1, 0.2, 0.5, 1.0, 2.0, 4.0, 8.0, 8.0, 8.0)


def look_afresh(root: Path, runtime: Runtime) -> Outline:
    """Lists ``root``, including checkpoints that another machine has just saved.

    The lock of the directory is not needed: the name that is made is nobody else's.

    Raises:
        UnreadableCheckpointError: A checkpoint is listed and cannot be found.
        OSError: The directory cannot be listed.
    """
    storage = runtime.storage
    await_listed(root, runtime)
    if not storage.may_lag(root):
        return read_outline(root, storage)
    _open_again(root, storage)
    changes = storage.may_change(root)
    latest = _make_other_name(root, runtime) if changes else None
    found = _await_all_listed(read_outline(root, storage), runtime)
    return found if latest is None else replace(found, latest=latest)


def _make_other_name(root: Path, runtime: Runtime) -> str | None:
    """Have the client forget what it remembers of ``root``.

    Quiet where that cannot be done: the names are looked at all the same.

    Returns:
        What ``latest`` names, where that could be read by another name.
    """
    storage, save_id = runtime.storage, runtime.process.new_save_id()
    other = root / layout.format_latest_link(save_id)
    try:
        _name_again(root / layout.LATEST, other, runtime)
    except OSError as error:  # there is no `latest`, or hard links are not for everybody
        logger.debug("%s has no second name: %s", root / layout.LATEST, error)
        _make_and_remove(root, storage, save_id)
        return None
    try:
        return read_pointer_at(other, storage)
    finally:
        try:
            storage.unlink(other)
        except OSError as error:
            logger.debug("left to the next save: %s: %s", other, error)


def _name_again(latest: Path, other: Path, runtime: Runtime) -> None:
    """Make a hard link; one that is seen and not found was replaced, so what is seen is old."""
    storage, clock = runtime.storage, runtime.clock
    for pause_s in PAUSES_S:
        try:
            return storage.make_name(other, latest)
        except FileNotFoundError:
            if storage.stamp(latest) is None or 2 * pause_s > clock.seconds_left():
                raise
            logger.warning("%s is not what is seen of it, looking again in %s s", latest, pause_s)
        clock.sleep(pause_s)
    return storage.make_name(other, latest)


def _make_and_remove(root: Path, storage: Storage, save_id: str) -> None:
    folder = root / layout.format_leftover(
        Leftover(kind=LeftoverKind.staging, step=0, save_id=save_id)
    )
    try:
        storage.make_directory(folder)
        storage.remove_tree(folder)
    except OSError as error:
        logger.debug("%s: what a cache remembers of it stays: %s", root, error)


def await_listed(root: Path, runtime: Runtime) -> None:
    """Wait for a directory that another one lists and that is not found."""
    storage, clock = runtime.storage, runtime.clock
    for pause_s in PAUSES_S:
        if storage.stamp(root) is not None or not storage.may_lag(root.parent):
            return
        _open_again(root.parent, storage)
        if root.name not in storage.names(root.parent) or 2 * pause_s > clock.seconds_left():
            return
        logger.warning("%s is listed and not found, looking again in %s s", root, pause_s)
        clock.sleep(pause_s)


def await_made(path: Path, runtime: Runtime) -> None:
    """Wait for a directory that another rank has made and this one does not find.

    Returns also where it does not come, since what is done in it says so better.
    """
    storage, clock = runtime.storage, runtime.clock
    for pause_s in PAUSES_S:
        if storage.is_directory(path):
            return
        # Each that was looked for before it was made: the checkpoint directory was, at the start.
        for folder in (*reversed(path.parents), path):
            _open_again(folder, storage)
        seen = next((folder for folder in path.parents if storage.is_directory(folder)), None)
        is_late = seen is not None and storage.may_lag(seen)
        if storage.is_directory(path) or not is_late or 2 * pause_s > clock.seconds_left():
            return
        logger.warning("%s is not found yet, looking again in %s s", path, pause_s)
        clock.sleep(pause_s)


def _await_all_listed(found: Outline, runtime: Runtime) -> Outline:
    """``found``, or a later look at the same directory, of which each checkpoint is there.

    Raises:
        UnreadableCheckpointError: One is listed all the while and not found, so nobody knows
            whether it is the newest.
    """
    storage, clock = runtime.storage, runtime.clock
    for pause_s in (*PAUSES_S, None):
        missing = _not_found(found, storage)
        if missing is None:
            return found
        path = found.root / missing
        if pause_s is None or 2 * pause_s > clock.seconds_left():
            break
        logger.warning("%s is listed and not found, looking again in %s s", path, pause_s)
        clock.sleep(pause_s)
        found = read_outline(found.root, storage)
    raise UnreadableCheckpointError(
        f"{path} is listed and cannot be found, as when a client of a network file system "
        "remembers that it was not there; it may be the newest, so nothing older is taken: try "
        "again, or name a checkpoint",
        path=str(path),
    )


def _not_found(found: Outline, storage: Storage) -> str | None:
    return next((name for name in found.steps if storage.stamp(found.root / name) is None), None)


def once_visible(
    call: Callable[[], T],
    path: Path,
    runtime: Runtime,
    *,
    late: Callable[[BaseException], bool],
) -> T:
    """Result of ``call``, repeated while what it reads at ``path`` may only be seen too late.

    Args:
        call: Reads a checkpoint.
        path: That checkpoint.
        runtime: The effects of this call.
        late: Whether an error is one for which waiting may help.

    Raises:
        Exception: What the last attempt raised, or the first for which waiting is no help.
    """
    storage, clock = runtime.storage, runtime.clock
    for pause_s in PAUSES_S:
        try:
            return call()
        except Exception as error:
            in_time = 2 * pause_s <= clock.seconds_left()
            if not (in_time and late(error) and storage.may_lag(path.parent)):
                raise
            logger.warning("%s; it may be seen late, looking again in %s s", error, pause_s)
        clock.sleep(pause_s)
        _open_again(path.parent, storage)
    return call()


def when_visible(
    prepare: Callable[[LoadCandidate], T], candidate: LoadCandidate, runtime: Runtime
) -> T:
    """Result of ``prepare(candidate)``, once this rank sees what rank 0 has chosen.

    Raises:
        Exception: What the last attempt raised, or the first for which waiting is no help.
    """
    choice = candidate.choice
    if choice.manifest is not None and runtime.storage.may_lag(choice.path.parent):
        share = replace(choice.manifest, files=candidate.share)
        sizes = partial(verify_sizes, choice.path, share, runtime.storage)
        once_visible(sizes, choice.path, runtime, late=shows_damage)
    reading = partial(prepare, candidate)
    return once_visible(reading, choice.path, runtime, late=_lacks_something)


def _lacks_something(error: BaseException) -> bool:
    """Whether something that was to be read is missing, whatever that was made into."""
    found: BaseException | None = error
    while found is not None:
        if isinstance(found, OSError) and shows_damage(found):
            return True
        found = found.__cause__
    return False


def _open_again(directory: Path, storage: Storage) -> None:
    """Open a directory; quiet where that cannot be done, because who lists it next learns why."""
    try:
        storage.stamps(directory, (layout.LATEST,))
    except OSError as error:
        logger.debug("%s cannot be opened: %s", directory, error)
