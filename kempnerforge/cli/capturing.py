"""`capture`: a scenario that reproduces the state of a checkpoint directory, without its weights.

The first run of the scenario makes as many checkpoints as were found. Before the second run, an
operator does to them what was found: missing, short or changed files, a `latest` that points to
the wrong place, leftovers, foreign names. Findings that the scenario language cannot express are
listed, never dropped.

Nothing that a checkpoint contains is executed. A name with characters other than letters, digits
and ``._-`` appears only in a comment, escaped.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from kempnerforge.checkpoint.errors import CheckpointError
from kempnerforge.checkpoint.format import layout
from kempnerforge.checkpoint.format.layout import LeftoverKind
from kempnerforge.checkpoint.protocol.catalog import Catalog, Entry, read_catalog, read_metadata
from kempnerforge.checkpoint.protocol.storage import Storage
from kempnerforge.checkpoint.runtime.lease import is_lease_name
from kempnerforge.checkpoint.runtime.lock import LOCK_FILE
from kempnerforge.cli.arrangement import Arranged, arrange
from kempnerforge.cli.cautious import walk
from kempnerforge.cli.defects import Defect, find_defects
from kempnerforge.cli.listing import describe_latest

__all__ = ["Action", "Captured", "capture"]

_MOST_ACTIONS = 40
_SAFE_PATH = re.compile(r"[\w.-]+(/[\w.-]+)*", re.ASCII)
_FOREIGN = re.compile(r"[A-Za-z][\w.-]{0,59}", re.ASCII)
_MODULES = ("transformer", "vision_encoder", "adapter")


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """One entry of `before`: the word and its settings."""

    word: str
    settings: dict[str, str | int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Captured:
    """A directory as a scenario."""

    directory: str
    arranged: Arranged
    freeze: tuple[tuple[str, bool], ...]
    actions: tuple[Action, ...]
    found: tuple[str, ...]
    """The findings, a line each."""
    unexpressed: tuple[str, ...]
    """Findings that the scenario cannot express."""
    unreadable: tuple[str, ...] = ()
    """Read errors and newer formats: the scenario may be incomplete."""


def capture(root: Path, storage: Storage, *, deep: bool) -> Captured:
    """Captures a directory; ``deep`` reads every byte.

    Raises:
        ValueError: It contains no checkpoint, so there is nothing that a run could reproduce.
    """
    catalog = read_catalog(root, storage)
    if not catalog.entries:
        raise ValueError(f"{root}: contains no checkpoint, so there is nothing to reproduce")
    arranged = arrange(catalog.entries, storage)
    unexpressed: list[str] = list(_rollbacks(catalog.entries))
    unreadable: list[str] = []
    actions = [
        *_latest(catalog, arranged, storage, unexpressed),
        *_leftovers(catalog, unexpressed),
        *_foreign(catalog, storage, unexpressed),
        *_damage(catalog, arranged, storage, unexpressed, unreadable, deep=deep),
    ]
    if len(actions) > _MOST_ACTIONS:
        unexpressed.append(f"{len(actions) - _MOST_ACTIONS} more actions like the last ones")
    if not deep:
        unexpressed.append("changed bytes in files of the right size: --deep looks for them")
    return Captured(
        directory=str(root),
        arranged=arranged,
        freeze=_freeze(catalog, storage, unexpressed, unreadable),
        actions=tuple(actions[:_MOST_ACTIONS]),
        found=tuple(_found(catalog, storage)),
        unexpressed=tuple(unexpressed),
        unreadable=tuple(dict.fromkeys(unreadable)),
    )


def _found(catalog: Catalog, storage: Storage) -> Iterator[str]:
    """Describes the structure and the sizes."""
    latest = describe_latest(catalog, storage)
    state = f": {latest.problem}" if latest.problem else ""
    yield f"latest -> {latest.target or 'no link'}{state}"
    for entry in catalog.entries:
        sizes = walk(entry.path).files
        why = f", {entry.problem}" if entry.problem else ""
        yield f"{entry.path.name}: {entry.state}, {len(sizes)} files{why}"
        yield from (f"  {name} {size}" for name, size in sorted(sizes.items())[:_MOST_ACTIONS])
        if len(sizes) > _MOST_ACTIONS:
            yield f"  and {len(sizes) - _MOST_ACTIONS} more files"


def _rollbacks(entries: Sequence[Entry]) -> Iterator[str]:
    committed = [entry for entry in entries if entry.manifest is not None]
    for before, after in pairwise(committed):
        if before.sequence > after.sequence:
            yield f"{before.path.name} was committed after {after.path.name}, as by a rollback"
    if len({entry.manifest.world_size for entry in committed if entry.manifest}) > 1:
        yield "the checkpoints were written by different numbers of ranks"


def _latest(
    catalog: Catalog, arranged: Arranged, storage: Storage, unexpressed: list[str]
) -> Iterator[Action]:
    target = catalog.latest
    if target is not None and storage.read_link(catalog.root / layout.LATEST) is None:
        unexpressed.append("`latest` is a file; in the scenario it is a link")
    newest = max(catalog.entries, key=lambda entry: entry.step or 0).path.name
    if target is None:
        is_there = layout.LATEST in storage.names(catalog.root)
        becomes = "directory" if is_there else "absent"
        if is_there and not storage.is_directory(catalog.root / layout.LATEST):
            unexpressed.append("`latest` is a file")
            return
        yield Action(word="latest", settings={"becomes": becomes})
    elif target.rstrip("/") in arranged.steps:
        if target.rstrip("/") != newest:
            yield Action(word="latest", settings={"step": arranged.steps[target.rstrip("/")]})
    elif layout.parse_step(target) is not None:
        yield Action(word="latest", settings={"becomes": "dangling"})
    else:
        unexpressed.append(f"`latest` names {target}")


def _leftovers(catalog: Catalog, unexpressed: list[str]) -> Iterator[Action]:
    free = len(catalog.entries)
    for name in catalog.leftovers:
        leftover = layout.parse_leftover(name)
        if leftover is None:
            yield Action(word="leftover", settings={"kind": "link"})
        elif leftover.kind is LeftoverKind.staging and free:
            free -= 1
            yield Action(word="leftover", settings={"kind": "staging"})
        else:
            unexpressed.append(f"{name} was left behind")


def _foreign(catalog: Catalog, storage: Storage, unexpressed: list[str]) -> Iterator[Action]:
    ours = {layout.LATEST, LOCK_FILE, *catalog.leftovers}
    ours |= {entry.path.name for entry in catalog.entries}
    for name in storage.names(catalog.root):
        path = catalog.root / name
        if name in ours or is_lease_name(name):
            continue
        if _FOREIGN.fullmatch(name) is None or layout.parse_step(name) is not None:
            unexpressed.append(f"a foreign name: {name}")
        elif storage.read_link(path) is not None:
            yield Action(word="foreign", settings={"path": name, "kind": "link"})
        else:
            kind = "directory" if storage.is_directory(path) else "file"
            yield Action(word="foreign", settings={"path": name, "kind": kind})


def _damage(
    catalog: Catalog,
    arranged: Arranged,
    storage: Storage,
    unexpressed: list[str],
    unreadable: list[str],
    *,
    deep: bool,
) -> Iterator[Action]:
    done: list[Action] = []
    for entry in catalog.entries:
        others = [other for other in catalog.entries if other is not entry]
        for defect in find_defects(entry, others, storage, deep=deep):
            action = _action(entry.path.name, defect, arranged)
            if defect.kind == "unreadable":
                unreadable.append(f"{entry.path.name}/{defect.name}: {defect.detail}")
            elif action is None:
                unexpressed.append(f"{entry.path.name}/{defect.name}: {defect.detail}")
            elif action not in done and not _undoes(action, done):
                done.append(action)
                yield action


def _undoes(action: Action, done: list[Action]) -> bool:
    """Whether this exchange is the other half of one already in the list."""
    if action.word != "swap":
        return False
    here, _, name = str(action.settings["path"]).partition("/")
    back = {"path": f"{action.settings['against']}/{name}", "against": here}
    return Action(word="swap", settings=dict(back)) in done


def _action(entry: str, defect: Defect, arranged: Arranged) -> Action | None:
    """Returns the action that reproduces a defect, or None if there is none."""
    path = arranged.path(entry, defect.name)
    if _SAFE_PATH.fullmatch(path) is None:
        return None
    match defect.kind:
        case "missing":
            return Action(word="delete", settings={"path": path})
        case "empty":
            return Action(word="truncate", settings={"path": path, "to": 0})
        case "short":
            return Action(word="truncate", settings={"path": path})
        case "changed":
            return Action(word="flip_bit", settings={"path": path})
        case "exchanged":
            against = layout.format_step(arranged.steps[defect.other or entry])
            return Action(word="swap", settings={"path": path, "against": against})
        case _:
            return None


def _freeze(
    catalog: Catalog, storage: Storage, unexpressed: list[str], unreadable: list[str]
) -> tuple[tuple[str, bool], ...]:
    """Returns the newest freeze settings found, in the scenario's terms."""
    known = []
    for entry in catalog.entries:
        try:
            known.append(read_metadata(entry.path, storage).get("vlm_freeze"))
        except CheckpointError as error:
            unreadable.append(str(error))
    specs = [one for one in known if isinstance(one, list)]
    if not specs:
        return ()
    if any(one != specs[-1] for one in specs):
        unexpressed.append(
            "the freeze settings differ between checkpoints; the newest ones are used"
        )
    found: list[tuple[str, bool]] = []
    for one in specs[-1]:
        module, frozen = (
            (one.get("module"), one.get("frozen")) if isinstance(one, dict) else ("", 0)
        )
        if module in _MODULES and isinstance(frozen, bool):
            found.append((str(module), frozen))
        else:
            unexpressed.append(f"a freeze setting: {one}")
    return tuple(found)
