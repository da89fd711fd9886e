"""Deletes old checkpoints, and what dead runs left behind.

A checkpoint is renamed, and the rename made durable, before its first file is deleted, so a half
deleted directory never has a checkpoint's name. Failures to delete are logged, never raised: a
durable save must not fail because something old cannot be deleted.
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
    """Renames the checkpoints that the policy no longer retains.

    Nothing is retired while a checkpoint cannot be read: it may count, or be needed to determine
    which others training descends from. Nor is anything retired while there is a checkpoint of
    another job, which may resume from one that is old for this job.

    Args:
        root: The checkpoint directory.
        register: The register of the existing checkpoints.
        policy: The policy that decides which of them to retain.
        runtime: The effects of this call.
        just_saved: A step to retain in any case.
        damaged: Save ids of checkpoints known to be damaged.

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
            "retention in %s deletes nothing while there are saves of another job: %s", root, names
        )
        return ()
    with register.own_change(root, runtime.storage):
        renamed = _rename_away(
            root, _without_older_versions(root, survey, victims, runtime), runtime
        )
    register.retired(renamed)
    return tuple(renamed.values())


def _victims(
    survey: Survey, policy: RetentionPolicy, protected: Collection[int], damaged: Collection[str]
) -> tuple[int, ...]:
    abandoned = survey.abandoned()
    kept = (
        Kept(
            step=head.step,
            sequence=head.sequence,
            damaged=head.save_id in damaged,
            abandoned=head.save_id in abandoned,
        )
        for head in survey.committed().values()
    )
    return policy.victims(kept, protected=protected)


def _without_older_versions(
    root: Path, survey: Survey, steps: Collection[int], runtime: Runtime
) -> tuple[int, ...]:
    """Deletes older versions of these steps; returns the steps that have none left.

    A version whose deletion failed would be taken for the only one, once its ``step_N`` is gone.
    """
    older = {
        name: leftover.step
        for name in survey.leftovers()
        if (leftover := layout.parse_leftover(name)) is not None
        and leftover.kind is LeftoverKind.replaced
        and leftover.step in steps
    }
    if not older:
        return tuple(steps)
    remove(tuple(root / name for name in older), runtime)
    left = {older[name] for name in runtime.storage.names(root) if name in older}
    return tuple(step for step in steps if step not in left)


def _rename_away(root: Path, steps: Collection[int], runtime: Runtime) -> dict[str, Path]:
    """Renames checkpoints; returns their present paths, by their former names."""
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
    """As :func:`delete`, for directories whose renaming may not be durable yet.

    First makes the renaming durable: after a failed sync or a death, a directory may have lost its
    checkpoint's name only in memory, and a power cut would give that name to a half deleted
    directory.
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
    """Deletes directories that durably have no checkpoint's name.

    Keeps the versions of a replacement that is half done, because ``latest`` names one of them.
    """
    for path in paths:
        try:
            if _is_needed(path, runtime.storage):
                logger.warning("%s is kept: the replacement that it belongs to is half done", path)
            else:
                runtime.storage.remove_tree(path)
        except (OSError, RecursionError) as error:  # RecursionError: very deep folders
            _say_once(runtime, f"left to the next save: {path} cannot be removed: {error}")


def _say_once(runtime: Runtime, message: str) -> None:
    """Logs a failed removal once, although every save tries it again."""
    is_first = runtime.process.says_first(message)
    logger.log(logging.WARNING if is_first else logging.DEBUG, "%s", message)


def _is_needed(path: Path, storage: Storage) -> bool:
    unfinished = find_unfinished(read_pointer(path.parent, storage))
    return unfinished is not None and path.name in (unfinished.new, unfinished.old)


def may_need_recovery(found: Outline) -> bool:
    """Whether :func:`recover` may have something to do in this directory."""
    names = frozenset(found.names)
    aside = any(_missing_original(name, names) for name in found.leftovers)
    return aside or find_unfinished(found.latest) is not None


def _is_in_use(name: str, runtime: Runtime) -> bool:
    """Whether a hidden name belongs to a save in progress in this process."""
    if not layout.is_leftover(name):
        return False
    leftover = layout.parse_leftover(name)
    save_id = layout.parse_latest_link(name) if leftover is None else leftover.save_id
    return save_id is not None and runtime.process.is_under_way(save_id)


def recover(root: Path, runtime: Runtime, *, spares: Callable[[str], bool] | None = None) -> None:
    """Gives checkpoints back the names that they lost when a run died.

    If ``latest`` names a hidden version, a replacement was half done, and is completed. A
    ``.replaced-step_N-<id>`` without a ``step_N`` is the only whole version of that step; if there
    are several, the one committed last is taken.

    Args:
        root: The checkpoint directory.
        runtime: The effects of this call.
        spares: Returns whether a hidden name is in use, and not left by a dead run. By default, the
            names of this process's own saves are in use.

    Raises:
        OSError: A move failed, so most of what a dead run left half done is unchanged.
        UnreadableCheckpointError: A version cannot be read at present, so nothing is changed.
        NewerFormatError: A version was written by a newer version of this package, so nothing is
            changed.
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
        logger.warning("completing what a dead run began: %s -> %s", move.name, move.target)
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
    """Returns the checkpoint's name that a set-aside directory had, if it is free now."""
    leftover = layout.parse_leftover(name)
    if leftover is None or leftover.kind is not LeftoverKind.replaced:
        return None
    step_name = layout.format_step(leftover.step)
    return None if step_name in names else step_name


def finish_off(
    root: Path, runtime: Runtime, *, spares: Callable[[str], bool] | None = None
) -> None:
    """Completes what dead runs left half done; needs the lock of the directory.

    Set-aside checkpoints get their names back, and all names become durable; staging, replaced and
    trash directories and unplaced links are removed. Foreign names are left alone, and so are those
    of a save in progress in this process, which can be another manager's or a later one.

    Args:
        root: The checkpoint directory.
        runtime: The effects of this call.
        spares: See :func:`recover`.

    Raises:
        CheckpointError: See :func:`recover`; then nothing is removed.
        OSError: See :func:`recover`; then nothing is removed.
    """
    storage, spares = runtime.storage, spares or partial(_is_in_use, runtime=runtime)
    recover(root, runtime, spares=spares)
    names = [name for name in storage.names(root) if not spares(name)]
    if names:
        # A run that died between a rename and its sync left a name that a power cut would undo.
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
    """Surveys the directory, and calls :func:`finish_off` if needed; needs the lock.

    Raises:
        CheckpointError: See :func:`finish_off`.
        OSError: See :func:`finish_off`; or the directory cannot be listed.
    """
    survey = register.look(root, runtime)
    spares = _spared(runtime, register)
    abandoned = [name for name in survey.leftovers() if not spares(name)]
    if abandoned or find_unfinished(read_pointer(root, runtime.storage)) is not None:
        finish_off(root, runtime, spares=spares)
        register.look(root, runtime)
    elif survey.names:
        runtime.storage.sync_directory(root)  # for the same reason as in finish_off


def make_ready(root: Path, runtime: Runtime, register: Register) -> None:
    """As :func:`tidy`, for a save: also logs what another job has saved there meanwhile.

    Raises:
        CheckpointError: See :func:`tidy`.
        OSError: See :func:`tidy`.
    """
    tidy(root, runtime, register)
    register.take_stock()
    for head in register.foreign():
        logger.warning(
            "%s was committed by another job since this one loaded or first saved (save %s, after "
            "%s): this job continues, but deletes nothing in %s and does not replace it until it "
            "is gone or this job loads or starts again; make sure that only one job writes there",
            layout.format_step(head.step),
            head.save_id,
            head.parent or "nothing",
            root,
        )


def _spared(runtime: Runtime, register: Register) -> Callable[[str], bool]:
    """Returns a test for names of saves in progress, of this process or of a later job."""
    return lambda name: _is_in_use(name, runtime) or register.is_anothers_work(name)
