"""`repair` and `retain`: first a plan that changes nothing, then, if asked for, its steps.

``repair`` mends only what is broken: a ``latest`` that names a checkpoint that verifies is left
alone, whoever pointed it there. It deletes nothing.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from pathlib import Path

from kempnerforge.checkpoint import layout
from kempnerforge.checkpoint.catalog import Catalog, Entry, State, inspect, read_catalog
from kempnerforge.checkpoint.commit import new_save_id
from kempnerforge.checkpoint.layout import Leftover, LeftoverKind
from kempnerforge.checkpoint.prune import remove
from kempnerforge.checkpoint.retention import Kept, RetentionPolicy
from kempnerforge.checkpoint.storage import Storage
from kempnerforge.cli.checking import check

__all__ = ["Repair", "Retention", "Step", "apply", "plan_repair", "plan_retention"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One change."""

    action: str
    """``rename``, ``point`` (``latest``) or ``delete``."""
    name: str
    target: str | None = None
    """New name, or what ``latest`` is to name."""
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Repair:
    """How a directory is mended."""

    directory: str
    steps: tuple[Step, ...]
    problems: tuple[str, ...]
    """What is wrong, whether or not a step mends it."""
    mended: bool
    """Whether ``latest`` names a whole checkpoint, or nothing was ever saved, after the steps."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """What a retention policy would delete."""

    directory: str
    steps: tuple[Step, ...]
    kept: tuple[str, ...]
    ignored: tuple[str, ...]
    """Torn, incomplete or plain: neither counted nor deleted."""


def plan_repair(root: Path, storage: Storage, *, deep: bool) -> Repair:
    """Find what is broken and the steps that mend it; changes nothing.

    Args:
        deep: Whether a checkpoint verifies only if every byte of it does.
    """
    catalog = read_catalog(root, storage)
    renames = _names_to_give_back(catalog, storage, deep=deep)
    problems = [f"{step.name} was set aside and its step has no other version" for step in renames]

    def whole(entry: Entry) -> bool:
        checked = check(entry, storage, deep=deep)
        problems.extend(f"{entry.path.name}: {problem}" for problem in checked.problems)
        return checked.whole

    current = _named_by_latest(catalog, storage)
    comes_back = any(step.target == catalog.latest for step in renames)
    if comes_back or (current is not None and whole(current)):
        steps, mended = renames, True
    else:
        found = _newest(catalog, renames, storage, whole, but=current)
        points = () if found is None else (_point(catalog, found),)
        nothing = not catalog.entries and not renames and catalog.latest is None
        steps, mended = (*renames, *points), nothing or found is not None
        if not nothing:
            problems.append(f"latest names {catalog.latest or 'nothing'}")
    return Repair(directory=str(root), steps=steps, problems=tuple(problems), mended=mended)


def _names_to_give_back(catalog: Catalog, storage: Storage, *, deep: bool) -> tuple[Step, ...]:
    taken = set(storage.names(catalog.root))
    steps = []
    for name in catalog.leftovers:
        leftover = layout.parse_leftover(name)
        if leftover is None or leftover.kind is not LeftoverKind.replaced:
            continue
        target = layout.format_step(leftover.step)
        entry = inspect(catalog.root / name, storage)
        if target not in taken and entry.step == leftover.step:
            if not check(entry, storage, deep=deep).whole:
                continue
            taken.add(target)
            reason = "set aside by a run that died before it had a new version in place"
            steps.append(Step(action="rename", name=name, target=target, reason=reason))
    return tuple(steps)


def _named_by_latest(catalog: Catalog, storage: Storage) -> Entry | None:
    if catalog.latest is None:
        return None
    real = storage.resolve(catalog.root / layout.LATEST)
    return None if real is None else inspect(real, storage)


def _newest(
    catalog: Catalog,
    renames: Collection[Step],
    storage: Storage,
    whole: Callable[[Entry], bool],
    *,
    but: Entry | None,
) -> str | None:
    """Name, after the renames, of the newest checkpoint that verifies."""
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
    """Find what the policy deletes; changes nothing.

    Only checkpoints that verify count, by sizes or by every byte, so that a damaged one never
    takes the place of a good one.
    """
    catalog = read_catalog(root, storage)
    whole = {
        entry.step: entry
        for entry in catalog.entries
        if entry.state is State.committed
        and entry.step is not None
        and check(entry, storage, deep=deep).whole
    }
    latest = None if catalog.latest is None else layout.parse_step(Path(catalog.latest).name)
    victims = policy.victims(
        (Kept(step=step, sequence=entry.sequence) for step, entry in whole.items()),
        protected={*protected, *([] if latest is None else [latest])},
    )
    reason = f"older than the newest {policy.keep_last_n}"
    return Retention(
        directory=str(root),
        steps=tuple(
            Step(action="delete", name=layout.format_step(step), reason=reason) for step in victims
        ),
        kept=tuple(e.path.name for step, e in sorted(whole.items()) if step not in victims),
        ignored=tuple(e.path.name for e in catalog.entries if e.step not in whole),
    )


def apply(root: Path, steps: Collection[Step], storage: Storage) -> None:
    """Perform a plan's steps in order, each durable before the next begins.

    Raises:
        OSError: A step failed; those before it are done.
    """
    for step in steps:
        match step.action:
            case "delete":
                _delete(root, step.name, storage)
            case "point":
                _point_latest(root, step.target or "", storage)
            case _:
                storage.rename(root / step.name, root / (step.target or ""))
                storage.sync_directory(root)


def _delete(root: Path, name: str, storage: Storage) -> None:
    """As the package does: it loses its name first."""
    step = layout.parse_step(name)
    assert step is not None
    trash = Leftover(kind=LeftoverKind.trash, step=step, save_id=new_save_id())
    aside = root / layout.format_leftover(trash)
    storage.rename(root / name, aside)
    storage.sync_directory(root)
    remove((aside,), storage)


def _point_latest(root: Path, target: str, storage: Storage) -> None:
    latest, save_id = root / layout.LATEST, new_save_id()
    if storage.is_directory(latest):
        storage.rename(latest, root / f"{layout.LATEST}.aside-{save_id}")
    link = root / layout.format_latest_link(save_id)
    storage.make_link(link, target)
    storage.rename(link, latest)
    storage.sync_directory(root)
