"""Makes file-system clients refresh their caches, or waits until the caches expire.

What clients cache, and what helps:

- The names in a directory (NFS, SMB, sshfs): opening the directory, upon which NFS asks the server,
  and a change by this client, for which a hidden name is created and removed.
- The target of ``latest`` (sshfs, for 20 s): reading it through a new hard link, which cannot be in
  any cache.
- That a name did not exist when it was last looked up (NFS, FUSE): nothing that is harmless on
  every file system. So this waits for a name that is listed but not found.

Nothing is created in a directory that may not be changed; then only the reading measures are taken.
Nothing is done, and nothing waited for, on a file system that shows every change at once
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

# Together 31 s: sshfs caches for 20 s by default, and NFS caches attributes of directories, which
# decide whether names are looked up again, for at least 30 s (acdirmin).
PAUSES_S = (0.1, 0.2, 0.5, 1.0, 2.0, 4.0, 8.0, 8.0, 8.0)


def look_afresh(root: Path, runtime: Runtime) -> Outline:
    """Lists ``root``, including checkpoints that another machine has just saved.

    The lock of the directory is not needed, because only a unique name is created.

    Raises:
        UnreadableCheckpointError: A checkpoint is listed but cannot be found.
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
    """Makes the client refresh its cache of ``root``.

    Errors are ignored, because the names can be listed anyway.

    Returns:
        The target of ``latest``, if it could be read through another name.
    """
    storage, save_id = runtime.storage, runtime.process.new_save_id()
    other = root / layout.format_latest_link(save_id)
    try:
        _name_again(root / layout.LATEST, other, runtime)
    except OSError as error:  # no `latest`, or hard links are not allowed
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
    """Creates a hard link; waits if ``latest`` is listed but not found, as the listing is old."""
    storage, clock = runtime.storage, runtime.clock
    for pause_s in PAUSES_S:
        try:
            return storage.make_name(other, latest)
        except FileNotFoundError:
            if storage.stamp(latest) is None or 2 * pause_s > clock.seconds_left():
                raise
            logger.warning("%s is seen in an old state, looking again in %s s", latest, pause_s)
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
        logger.debug("%s: cannot refresh caches: %s", root, error)


def await_listed(root: Path, runtime: Runtime) -> None:
    """Waits for a directory that is listed in its parent but not found."""
    storage, clock = runtime.storage, runtime.clock
    for pause_s in PAUSES_S:
        if storage.stamp(root) is not None or not storage.may_lag(root.parent):
            return
        _open_again(root.parent, storage)
        if root.name not in storage.names(root.parent) or 2 * pause_s > clock.seconds_left():
            return
        logger.warning("%s is listed but not found, looking again in %s s", root, pause_s)
        clock.sleep(pause_s)


def await_made(path: Path, runtime: Runtime) -> None:
    """Waits for a directory that another rank has created but that this rank does not find.

    Also returns if it does not appear: the next operation in it raises the better error.
    """
    storage, clock = runtime.storage, runtime.clock
    for pause_s in PAUSES_S:
        if storage.is_directory(path):
            return
        # Also its parents, if they were looked up before they existed, as at the start of a job.
        for folder in (*reversed(path.parents), path):
            _open_again(folder, storage)
        seen = next((folder for folder in path.parents if storage.is_directory(folder)), None)
        is_late = seen is not None and storage.may_lag(seen)
        if storage.is_directory(path) or not is_late or 2 * pause_s > clock.seconds_left():
            return
        logger.warning("%s is not found yet, looking again in %s s", path, pause_s)
        clock.sleep(pause_s)


def _await_all_listed(found: Outline, runtime: Runtime) -> Outline:
    """Returns ``found``, or a later listing, of which every checkpoint can be found.

    Raises:
        UnreadableCheckpointError: A checkpoint stays listed but not found, and it may be the
            newest.
    """
    storage, clock = runtime.storage, runtime.clock
    for pause_s in (*PAUSES_S, None):
        missing = _not_found(found, storage)
        if missing is None:
            return found
        path = found.root / missing
        if pause_s is None or 2 * pause_s > clock.seconds_left():
            break
        logger.warning("%s is listed but not found, looking again in %s s", path, pause_s)
        clock.sleep(pause_s)
        found = read_outline(found.root, storage)
    raise UnreadableCheckpointError(
        f"{path} is listed but cannot be found, as when a client of a network file system has "
        "cached that it does not exist; it may be the newest, so nothing older is taken: try "
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
    """Returns the result of ``call``; retries while ``path`` may not be fully visible yet.

    Args:
        call: Reads a checkpoint.
        path: The checkpoint.
        runtime: The effects of this call.
        late: Returns whether waiting may help against an error.

    Raises:
        Exception: The error of the last attempt, or the first error that waiting cannot help.
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
    """Returns the result of ``prepare(candidate)``, once this rank sees what rank 0 has chosen.

    Raises:
        Exception: The error of the last attempt, or the first error that waiting cannot help.
    """
    choice = candidate.choice
    if choice.manifest is not None and runtime.storage.may_lag(choice.path.parent):
        partition = replace(choice.manifest, files=candidate.partition)
        sizes = partial(verify_sizes, choice.path, partition, runtime.storage)
        once_visible(sizes, choice.path, runtime, late=shows_damage)
    reading = partial(prepare, candidate)
    return once_visible(reading, choice.path, runtime, late=_lacks_something)


def _lacks_something(error: BaseException) -> bool:
    """Whether an error, or one that it wraps, means that a file is missing."""
    found: BaseException | None = error
    while found is not None:
        if isinstance(found, OSError) and shows_damage(found):
            return True
        found = found.__cause__
    return False


def _open_again(directory: Path, storage: Storage) -> None:
    """Opens a directory; ignores errors, because the next listing reports them."""
    try:
        storage.stamps(directory, (layout.LATEST,))
    except OSError as error:
        logger.debug("%s cannot be opened: %s", directory, error)
