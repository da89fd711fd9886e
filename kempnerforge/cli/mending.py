"""`repair` and `retain`: first a plan that changes nothing and then, if requested, its steps.

``repair`` changes only what is broken. A ``latest`` that names a checkpoint that verifies is left
alone, even if a newer one exists. Nothing is deleted. The caller holds the directory's lock from
before the plan until after the last step.

A checkpoint that cannot be read may be whole. As long as such a one matters, nothing is planned:
``latest`` is not moved past it, and nothing is deleted that it might have to replace.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from pathlib import Path

from kempnerforge.checkpoint.format import layout
from kempnerforge.checkpoint.format.layout import Leftover, LeftoverKind
from kempnerforge.checkpoint.protocol.catalog import Catalog, Entry, State, inspect, read_catalog
from kempnerforge.checkpoint.protocol.effects import Runtime
from kempnerforge.checkpoint.protocol.pointer import Pointer, resolve_pointer
from kempnerforge.checkpoint.protocol.prune import remove
from kempnerforge.checkpoint.protocol.replacing import (
    Move,
    find_unfinished,
    perform,
    plan_completion,
)
from kempnerforge.checkpoint.protocol.retention import Kept, RetentionPolicy
from kempnerforge.checkpoint.protocol.storage import Storage
from kempnerforge.checkpoint.protocol.visibility import look_afresh
from kempnerforge.checkpoint.runtime.process import local_runtime
from kempnerforge.cli.checking import check

__all__ = ["Repair", "Retention", "Step", "apply", "plan_repair", "plan_retention"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One change."""

    action: str
    """``rename``, ``point`` (``latest``) or ``delete``."""
    name: str
    target: str | None = None
    """The new name, or the name that ``latest`` gets."""
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Repair:
    """The problems of a directory, and the steps that repair it."""

    directory: str
    steps: tuple[Step, ...]
    problems: tuple[str, ...]
    """The problems found, whether or not a step repairs them."""
    mended: bool
    """Whether, after the steps, ``latest`` names a whole checkpoint or nothing was ever saved."""
    notes: tuple[str, ...] = ()
    """Remarks on what is left alone."""
    unreadable: tuple[str, ...] = ()
    """Read errors and newer formats; if there are any, there are no steps."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """The deletions that a retention policy asks for."""

    directory: str
    steps: tuple[Step, ...]
    kept: tuple[str, ...]
    ignored: tuple[str, ...]
    """Torn, incomplete, plain or of a newer version: neither counted nor deleted."""
    unreadable: tuple[str, ...] = ()
    """Read errors; if there are any, there are no steps."""


def plan_repair(root: Path, storage: Storage, *, deep: bool) -> Repair:
    """Finds what is broken, and the steps that repair it; changes nothing.

    Args:
        deep: Whether to verify every byte of a checkpoint, and not only the sizes of its files.
    """
    catalog = read_catalog(root, storage, outline=look_afresh(root, local_runtime(storage)))
    problems: list[str] = []
    unreadable: list[str] = []
    notes: tuple[str, ...] = ()

    def whole(entry: Entry) -> bool:
        checked = check(entry, storage, deep=deep)
        problems.extend(f"{entry.path.name}: {problem}" for problem in checked.problems)
        unreadable.extend(f"{entry.path.name}: {reason}" for reason in checked.unreadable)
        return checked.whole

    def sound(entry: Entry) -> bool:
        checked = check(entry, storage, deep=deep)  # damage to an old version is not a problem
        unreadable.extend(f"{entry.path.name}: {reason}" for reason in checked.unreadable)
        return checked.whole

    completion = _completion(catalog, storage, whole)
    taken = {step.target for step in completion}
    gives_back = _names_to_give_back(catalog, storage, sound)
    renames = tuple(step for step in gives_back if step.target not in taken)
    problems += [
        f"{step.name} was set aside, and its step has no other version" for step in renames
    ]
    current = _named_by_latest(catalog, storage)
    comes_back = any(step.target == catalog.latest for step in renames)
    if completion:
        problems.append(f"latest names {catalog.latest}: a replacement is half done")
        steps, mended = (*completion, *renames), True
    elif comes_back or (current is not None and whole(current)):
        steps, mended = renames, True
        notes = () if current is None else _newer(catalog, current, sound)
    else:
        found = _newest(catalog, renames, storage, whole, but=current)
        points = () if found is None else (_point(catalog, found),)
        nothing = not catalog.entries and not renames and catalog.latest is None
        steps, mended = (*renames, *points), nothing or found is not None
        if not nothing:
            problems.append(f"latest names {catalog.latest or 'nothing'}")
    return Repair(
        directory=str(root),
        steps=() if unreadable else steps,
        problems=tuple(dict.fromkeys(problems)),
        mended=mended and not unreadable,
        notes=notes,
        unreadable=tuple(dict.fromkeys(unreadable)),
    )


def _completion(
    catalog: Catalog, storage: Storage, whole: Callable[[Entry], bool]
) -> tuple[Step, ...]:
    """Returns the steps that complete, or undo, a replacement that a dead run left half done."""
    found = find_unfinished(catalog.latest)
    if found is None:
        return ()
    moves = plan_completion(
        found,
        storage.names(catalog.root),
        catalog.latest,
        whole=lambda name: _is_whole(catalog.root / name, storage, whole, step=found.step),
    )
    reason = f"step {found.step} was being replaced by a run that died"
    return tuple(
        Step(
            action="point" if move.name == layout.LATEST else "rename",
            name=move.name,
            target=move.target,
            reason=reason,
        )
        for move in moves
    )


def _is_whole(path: Path, storage: Storage, whole: Callable[[Entry], bool], *, step: int) -> bool:
    entry = inspect(path, storage)
    return entry.step == step and whole(entry)


def _newer(catalog: Catalog, current: Entry, whole: Callable[[Entry], bool]) -> tuple[str, ...]:
    """Returns a remark if ``latest`` names a whole checkpoint that is not the newest."""
    for entry in catalog.newest_first():
        if entry.head is not None and entry.sequence <= current.sequence:
            continue
        if entry.head is None and not entry.is_unknown:
            continue
        if whole(entry):
            return (
                f"{entry.path.name} was committed after {catalog.latest}, which latest names, and "
                "is whole too; latest is left alone, because someone may have pointed it there",
            )
    return ()


def _names_to_give_back(
    catalog: Catalog, storage: Storage, whole: Callable[[Entry], bool]
) -> tuple[Step, ...]:
    taken = set(storage.names(catalog.root))
    steps = []
    for entry, target in _set_aside(catalog, storage):
        if target not in taken and whole(entry):
            taken.add(target)
            reason = "set aside by a run that died before it had a new version in place"
            steps.append(Step(action="rename", name=entry.path.name, target=target, reason=reason))
    return tuple(steps)


def _set_aside(catalog: Catalog, storage: Storage) -> tuple[tuple[Entry, str], ...]:
    """Returns old versions under hidden names with their former names, newest commit first."""
    found = []
    for name in catalog.leftovers:
        leftover = layout.parse_leftover(name)
        if leftover is not None and leftover.kind is LeftoverKind.replaced:
            entry = inspect(catalog.root / name, storage)
            if entry.step == leftover.step or entry.state is State.unreadable:
                found.append((entry, layout.format_step(leftover.step)))
    return tuple(sorted(found, key=lambda item: item[0].sequence, reverse=True))


def _named_by_latest(catalog: Catalog, storage: Storage) -> Entry | None:
    if catalog.latest is None:
        return None
    real = resolve_pointer(catalog.root, storage)
    return None if real is None else inspect(real, storage)


def _newest(
    catalog: Catalog,
    renames: Collection[Step],
    storage: Storage,
    whole: Callable[[Entry], bool],
    *,
    but: Entry | None,
) -> str | None:
    """Returns the name, after the renames, of the newest checkpoint that verifies."""
    names = {entry.path.name: entry for entry in catalog.entries}
    for step in renames:
        names[step.target or ""] = inspect(catalog.root / step.name, storage)
    known = replace(catalog, entries=tuple(names.values()))
    final = {entry.path: name for name, entry in names.items()}
    for entry in known.newest_first():
        if but is not None and storage.resolve(entry.path) == but.path:
            continue
        if whole(entry):
            return final[entry.path]
    return None


def _point(catalog: Catalog, name: str) -> Step:
    reason = f"it names {catalog.latest or 'nothing'}; this is the newest that verifies"
    return Step(action="point", name=layout.LATEST, target=name, reason=reason)


def plan_retention(
    root: Path,
    policy: RetentionPolicy,
    storage: Storage,
    *,
    deep: bool,
    protected: Collection[int] = (),
) -> Retention:
    """Finds what the policy deletes; changes nothing.

    Only checkpoints that verify (by sizes or by every byte) count, so a damaged one never takes the
    place of a good one.
    """
    catalog = read_catalog(root, storage, outline=look_afresh(root, local_runtime(storage)))
    checks = [
        (entry, check(entry, storage, deep=deep))
        for entry in catalog.entries
        if entry.state in (State.committed, State.unreadable)
    ]
    whole = {
        entry.step: entry for entry, checked in checks if checked.whole and entry.step is not None
    }
    unreadable = [
        f"{entry.path.name}: {reason}" for entry, checked in checks for reason in checked.unreadable
    ]
    latest = None if catalog.latest is None else layout.step_of(Path(catalog.latest).name)
    abandoned = catalog.abandoned()
    victims = policy.victims(
        (
            Kept(
                step=step,
                sequence=entry.sequence,
                abandoned=entry.manifest is not None and entry.manifest.save_id in abandoned,
            )
            for step, entry in whole.items()
        ),
        protected={*protected, *([] if latest is None else [latest])},
    )
    if unreadable:
        victims = ()
    reason = f"older than the newest {policy.keep_last_n}, or on an abandoned branch"
    return Retention(
        directory=str(root),
        steps=tuple(
            Step(action="delete", name=layout.format_step(step), reason=reason) for step in victims
        ),
        kept=tuple(e.path.name for step, e in sorted(whole.items()) if step not in victims),
        ignored=tuple(e.path.name for e in catalog.entries if e.step not in whole),
        unreadable=tuple(unreadable),
    )


def apply(root: Path, steps: Collection[Step], storage: Storage) -> None:
    """Performs a plan's steps in order, each durable before the next begins.

    Raises:
        OSError: A step failed; the steps before it are done.
    """
    runtime = local_runtime(storage)
    for step in steps:
        if step.action == "delete":
            _delete(root, step.name, runtime)
        else:
            move = Move(name=step.name, target=step.target or "")
            save_id = runtime.process.new_save_id()
            perform(move, Pointer.as_it_is(root, runtime, save_id=save_id))


def _delete(root: Path, name: str, runtime: Runtime) -> None:
    """Deletes a checkpoint as the package does: it is renamed first."""
    step = layout.parse_step(name)
    assert step is not None
    trash = Leftover(kind=LeftoverKind.trash, step=step, save_id=runtime.process.new_save_id())
    aside = root / layout.format_leftover(trash)
    runtime.storage.rename(root / name, aside)
    runtime.storage.sync_directory(root)
    remove((aside,), runtime)
