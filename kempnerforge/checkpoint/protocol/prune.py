"""Deleting: old checkpoints, and what dead runs left behind.

A checkpoint is renamed away and the rename made durable before its first file goes, so that a half
deleted directory never carries a checkpoint's name. Failures to delete are logged, never raised: a
save that is durable is not undone because something old resists.
"""

import logging
from collections.abc import Callable, Collection
from functools import partial
from pathlib import Path

from kempnerforge.checkpoint.format import layout
from kempnerforge.checkpoint.format.layout import Leftover, LeftoverKind
from kempnerforge.checkpoint.protocol.catalog import Outline, inspect
from kempnerforge.checkpoint.protocol.effects import Runtime
from kempnerforge.checkpoint.protocol.pointer import Pointer, read_pointer
from kempnerforge.checkpoint.protocol.register import Register, Survey
from kempnerforge.checkpoint.protocol.replacing import (
    find_unfinished,
    is_whole,
    perform,
    plan_completion,
)
from kempnerforge.checkpoint.protocol.retention import Kept, RetentionPolicy
from kempnerforge.checkpoint.protocol.storage import Storage

__all__ = [
    "delete",
    "finish_off",
    "make_ready",
    "may_need_recovery",
    "recover",
    "remove",
    "retire",
    "tidy",
]

logger = logging.getLogger(__name__)


def retire(
    root: Path,
    register: Register,
    policy: RetentionPolicy,
    runtime: Runtime,
    *,
    just_saved: int,
    damaged: Collection[str] = (),
) -> tuple[Path, ...]:
    """Rename away what the policy no longer keeps.

    Nothing goes while a checkpoint cannot be read: it may be one that counts, or the one that tells
    which others training descends from. Nor does anything while there is one of another job: what
    is old for this job may be what that one resumes from.

    Args:
        root: The checkpoint directory.
        register: What there is.
        policy: What to keep of it.
        runtime: The effects of this call.
        just_saved: A step that stays.
        damaged: Save ids of checkpoints that are known to be damaged.

    Returns:
        The directories to :func:`remove`, under names that no checkpoint has.
    """
    if policy.keep_last_n <= 0:
        return ()
    latest = read_pointer(root, runtime.storage)
    target = None if latest is None else layout.step_of(Path(latest).name)
    protected = {just_saved} if target is None else {just_saved, target}
    survey = register.recall_heads(root, runtime)
    victims = _victims(survey, policy, protected, damaged)
    if victims and survey is not (survey := register.confirm(root, runtime)):
        victims = _victims(survey, policy, protected, damaged)
    if survey.unread:
        names = ", ".join(sorted(entry.path.name for entry in survey.unread))
        logger.warning("retention in %s waits until %s can be read", root, names)
        return ()
    if not victims:
        return ()
    if others := register.foreign():
        names = ", ".join(f"{layout.format_step(head.step)} ({head.save_id})" for head in others)
        logger.warning(
            "retention in %s deletes nothing beside saves of another job: %s", root, names
        )
        return ()
    with register.own_change(root, runtime.storage):
        renamed = _rename_away(root, victims, runtime)
    register.retired(renamed)
    return tuple(renamed.values())


def _victims(
    survey: Survey, policy: RetentionPolicy, protected: Collection[int], damaged: Collection[str]
) -> tuple[int, ...]:
    aside = survey.aside()
    kept = (
        Kept(
            step=head.step,
            sequence=head.sequence,
            damaged=head.save_id in damaged,
            aside=head.save_id in aside,
        )
        for head in survey.committed().values()
    )
    return policy.victims(kept, protected=protected)


def _rename_away(root: Path, steps: Collection[int], runtime: Runtime) -> dict[str, Path]:
    """Where the checkpoints are now, by the names that they had."""
    renamed: dict[str, Path] = {}
    storage = runtime.storage
    for step in steps:
        path = root / layout.format_step(step)
        name = layout.format_leftover(
            Leftover(kind=LeftoverKind.trash, step=step, save_id=runtime.process.new_save_id())
        )
        try:
            storage.rename(path, root / name)
            renamed[path.name] = root / name
        except OSError as error:
            _say_once(runtime, f"checkpoint {path} cannot be retired: {error.strerror or error}")
    if renamed:
        storage.sync_directory(root)
    return renamed


def remove(paths: tuple[Path, ...], runtime: Runtime) -> None:
    """:func:`delete` directories that carry no checkpoint's name, in memory at least.

    First that they carry none is made durable: after a failed sync or a death, a directory may have
    lost its name in memory only, and a power cut would give the name to what is left of it.
    """
    durable = []
    for path in paths:
        try:
            runtime.storage.sync_directory(path.parent)
            durable.append(path)
        except OSError as error:
            _say_once(runtime, f"left to the next save: {path} cannot be removed: {error}")
    delete(tuple(durable), runtime)


def delete(paths: tuple[Path, ...], runtime: Runtime) -> None:
    """Delete directories that carry no checkpoint's name, durably.

    The versions of a replacement that is half way stay: ``latest`` names one of them.
    """
    for path in paths:
        try:
            if _is_needed(path, runtime.storage):
                logger.warning("%s stays: the replacement that it belongs to is half way", path)
            else:
                runtime.storage.remove_tree(path)
        except (OSError, RecursionError) as error:  # the latter of folders that are very deep
            _say_once(runtime, f"left to the next save: {path} cannot be removed: {error}")


def _say_once(runtime: Runtime, message: str) -> None:
    """Of a failed removal, which each save tries again."""
    is_first = runtime.process.says_first(message)
    logger.log(logging.WARNING if is_first else logging.DEBUG, "%s", message)


def _is_needed(path: Path, storage: Storage) -> bool:
    unfinished = find_unfinished(read_pointer(path.parent, storage))
    return unfinished is not None and path.name in (unfinished.new, unfinished.old)


def may_need_recovery(found: Outline) -> bool:
    """Whether :func:`recover` may find something to do in the directory that was looked at."""
    names = frozenset(found.names)
    aside = any(_missing_original(name, names) for name in found.leftovers)
    return aside or find_unfinished(found.latest) is not None


def _is_in_use(name: str, runtime: Runtime) -> bool:
    """Whether a hidden name is that of a save which goes on in this process."""
    if not layout.is_leftover(name):
        return False
    leftover = layout.parse_leftover(name)
    save_id = layout.parse_latest_link(name) if leftover is None else leftover.save_id
    return save_id is not None and runtime.process.is_under_way(save_id)


def recover(root: Path, runtime: Runtime, *, spares: Callable[[str], bool] | None = None) -> None:
    """Give back their names to checkpoints that were under hidden ones when a run died.

    Args:
        root: The checkpoint directory.
        runtime: The effects of this call.
        spares: Tells a hidden name that is in use from one that a dead run left; by default those
            of saves of this process are in use.

    A ``latest`` that names a hidden version shows a replacement that was half way, which is
    completed. A ``.replaced-step_N-<id>`` without a ``step_N`` is the only whole version of that
    step; if there are several, the one that was committed last.

    Raises:
        OSError: What a dead run left half done stays for the most part, because a move failed.
        UnreadableCheckpointError: It stays, because one version cannot be read at present.
        NewerFormatError: It stays, because one was written by a newer version of this package.
    """
    spares = spares or partial(_is_in_use, runtime=runtime)
    _complete_replacement(root, runtime, spares)
    _give_names_back(root, runtime.storage, spares)


def _complete_replacement(root: Path, runtime: Runtime, spares: Callable[[str], bool]) -> None:
    storage = runtime.storage
    latest = read_pointer(root, storage)
    found = find_unfinished(latest)
    if found is None or spares(found.new):
        return

    def whole(name: str) -> bool:
        return is_whole(inspect(root / name, storage), storage, step=found.step)

    pointer = Pointer.as_it_is(root, runtime, save_id=found.save_id)
    for move in plan_completion(found, storage.names(root), latest, whole=whole):
        logger.warning("completing what a run that died began: %s -> %s", move.name, move.target)
        perform(move, pointer)


def _give_names_back(root: Path, storage: Storage, spares: Callable[[str], bool]) -> None:
    names = frozenset(name for name in storage.names(root) if not spares(name))
    hidden = filter(layout.is_leftover, names)
    aside = [inspect(root / name, storage) for name in hidden if _missing_original(name, names)]
    for entry in aside:
        if entry.is_questionable:
            entry.refuse()
    for entry in sorted(aside, key=lambda entry: entry.sequence, reverse=True):
        step_name = _missing_original(entry.path.name, names)
        if step_name is None or not is_whole(entry, storage, step=layout.parse_step(step_name)):
            continue
        logger.warning("%s was set aside by a run that died; it is %s again", entry.path, step_name)
        storage.rename(entry.path, root / step_name)
        storage.sync_directory(root)
        names |= {step_name}


def _missing_original(name: str, names: Collection[str]) -> str | None:
    """The checkpoint's name that a set-aside directory had, if nothing has it now."""
    leftover = layout.parse_leftover(name)
    if leftover is None or leftover.kind is not LeftoverKind.replaced:
        return None
    step_name = layout.format_step(leftover.step)
    return None if step_name in names else step_name


def finish_off(
    root: Path, runtime: Runtime, *, spares: Callable[[str], bool] | None = None
) -> None:
    """Complete what dead runs left half done; only for who has the lock of the directory.

    Set-aside checkpoints get their names back, and all names become durable; staging, replaced and
    trash directories and unplaced links go. Foreign names are left alone, and so are those of a
    save that goes on in this process: another manager's, or a later one than who asks for this.

    Args:
        root: The checkpoint directory.
        runtime: The effects of this call.
        spares: As for :func:`recover`.

    Raises:
        CheckpointError: As :func:`recover`; then nothing goes.
        OSError: The same.
    """
    storage, spares = runtime.storage, spares or partial(_is_in_use, runtime=runtime)
    recover(root, runtime, spares=spares)
    names = [name for name in storage.names(root) if not spares(name)]
    if names:
        # A run that died between a rename and its sync left a name that a power cut would take.
        storage.sync_directory(root)
    abandoned = [
        name
        for name in names
        if layout.is_leftover(name)
        and layout.parse_leftover(name) is not None
        and not _missing_original(name, names)
    ]
    for name in abandoned:
        logger.info("removing %s, left by a run that ended before it was done", name)
    remove(tuple(root / name for name in abandoned), runtime)
    for name in filter(layout.parse_latest_link, filter(layout.is_leftover, names)):
        try:
            storage.unlink(root / name)
        except OSError as error:
            _say_once(runtime, f"left to the next save: {root / name} cannot be removed: {error}")


def tidy(root: Path, runtime: Runtime, register: Register) -> None:
    """Learn what there is, and :func:`finish_off` if that shows a need; for who has the lock.

    Raises:
        CheckpointError: As :func:`finish_off`.
        OSError: The same, or the directory cannot be listed.
    """
    survey = register.look(root, runtime)
    spares = _spared(runtime, register)
    abandoned = [name for name in survey.leftovers() if not spares(name)]
    if abandoned or find_unfinished(read_pointer(root, runtime.storage)) is not None:
        finish_off(root, runtime, spares=spares)
        register.look(root, runtime)
    elif survey.names:
        runtime.storage.sync_directory(root)  # for the reason that finish_off has


def make_ready(root: Path, runtime: Runtime, register: Register) -> None:
    """:func:`tidy` for a save, which says what another job has saved there meanwhile.

    Raises:
        CheckpointError: As :func:`tidy`.
        OSError: The same.
    """
    tidy(root, runtime, register)
    register.take_stock()
    for head in register.foreign():
        logger.warning(
            "%s was committed by another job since this one loaded or first saved (save %s, after "
            "%s): this job goes on, deletes nothing in %s and does not replace it until it is gone "
            "or this job loads or starts again; see that only one job writes there",
            layout.format_step(head.step),
            head.save_id,
            head.parent or "nothing",
            root,
        )


def _spared(runtime: Runtime, register: Register) -> Callable[[str], bool]:
    """Tells names of saves under way, of this process or of a job that came after this one."""
    return lambda name: _is_in_use(name, runtime) or register.is_anothers_work(name)
