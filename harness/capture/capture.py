"""Makes a scenario that makes a directory such as the one that was found, without its weights.

The first run of the scenario makes as many checkpoints as there are; before its second run an
operator does to them what was found: files that are missing, short or changed, a `latest` that
leads astray, leftovers, foreign names. Jobs and actions are those of the language itself: what its
models refuse, and what it has no action for, is listed and never dropped.

Nothing that a checkpoint contains is run.
"""

from __future__ import annotations

import glob
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from harness.capture.arrangement import Arranged, arrange
from harness.capture.defects import Defect, find_defects
from harness.faults.actions import Action, Swap, Swapping
from harness.scenario.schema import Checkpoint, Freeze, FreezePlan, Model, Run, Scenario
from harness.world import World
from kempnerforge.checkpoint.errors import CheckpointError
from kempnerforge.checkpoint.format import layout
from kempnerforge.checkpoint.format.layout import LeftoverKind
from kempnerforge.checkpoint.protocol.catalog import Catalog, Entry, read_catalog, read_metadata
from kempnerforge.checkpoint.protocol.storage import Storage
from kempnerforge.checkpoint.runtime.lease import is_lease_name
from kempnerforge.checkpoint.runtime.lock import LOCK_FILE
from kempnerforge.cli.cautious import walk
from kempnerforge.cli.listing import describe_latest

_MOST_ACTIONS = 40
_ACTION: TypeAdapter[Action] = TypeAdapter(Action)


@dataclass(frozen=True, slots=True, kw_only=True)
class Captured:
    """A directory as a scenario."""

    directory: str
    scenario: Scenario
    found: tuple[str, ...]
    """The findings, a line each."""
    smaller: tuple[str, ...]
    """The differences from the job that was found."""
    unexpressed: tuple[str, ...]
    """Findings that the scenario cannot express."""
    unreadable: tuple[str, ...]
    """Read errors and newer formats: the scenario may be incomplete."""


@dataclass(slots=True)
class _Remarks:
    """Lines beside the scenario, as they are found."""

    unexpressed: list[str] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)

    def action(self, word: str, settings: dict[str, Any], otherwise: str) -> Iterator[Action]:
        """The action, or a line that says `otherwise` where the language has none like it."""
        try:
            yield _ACTION.validate_python({word: settings})
        except ValidationError:
            self.unexpressed.append(otherwise)


def capture(root: Path, storage: Storage, *, deep: bool) -> Captured:
    """Capture a directory; `deep` reads every byte.

    Raises:
        ValueError: There is no checkpoint in it, so there is nothing that a run could make.
    """
    catalog = read_catalog(root, storage)
    if not catalog.entries:
        raise ValueError(f"{root}: contains no checkpoint, so there is nothing to rebuild")
    arranged = arrange(catalog.entries, storage)
    notes = _Remarks(unexpressed=list(_rollbacks(catalog.entries)))
    actions = [
        *_latest(catalog, arranged, storage, notes),
        *_leftovers(catalog, notes),
        *_foreign(catalog, storage, notes),
        *_damage(catalog, arranged, storage, notes, deep=deep),
    ]
    if len(actions) > _MOST_ACTIONS:
        notes.unexpressed.append(f"{len(actions) - _MOST_ACTIONS} more actions like the last ones")
    if not deep:
        notes.unexpressed.append("changed bytes in files of the right size: --deep looks for them")
    freeze = _freeze(catalog, storage, notes)
    return Captured(
        directory=str(root),
        scenario=_scenario(
            arranged,
            freeze,
            actions[:_MOST_ACTIONS],
            latest="file" if _is_a_file(catalog, storage) else "link",
        ),
        found=tuple(_found(catalog, storage)),
        smaller=arranged.smaller,
        unexpressed=tuple(notes.unexpressed),
        unreadable=tuple(dict.fromkeys(notes.unreadable)),
    )


def _scenario(
    arranged: Arranged,
    freeze: tuple[Freeze, ...],
    actions: list[Action],
    *,
    latest: Literal["link", "file"],
) -> Scenario:
    checkpoints = _count(len(arranged.steps), "checkpoint")
    done = _count(len(actions), "action")
    world = World(pp=arranged.pp, dp_shard=arranged.dp_shard)
    last = max(arranged.steps.values())
    return Scenario(
        name=f"captured: {checkpoints}, {done} of an operator ({world})",
        world=world,
        model=Model(preset="tiny_vlm") if freeze else Model(),
        checkpoint=Checkpoint(
            interval=arranged.interval, keep_last_n=len(arranged.steps), latest=latest
        ),
        freeze=FreezePlan(base=freeze),
        runs=(
            Run(until_step=last),
            Run(until_step=last + arranged.interval, before=tuple(actions)),
        ),
    )


def _count(number: int, word: str) -> str:
    return f"{number} {word}" if number == 1 else f"{number} {word}s"


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
    catalog: Catalog, arranged: Arranged, storage: Storage, notes: _Remarks
) -> Iterator[Action]:
    target = catalog.latest
    newest = max(catalog.entries, key=lambda entry: entry.step or 0).path.name
    if target is None:
        yield from _no_latest(catalog, storage, notes)
        return
    name, otherwise = target.rstrip("/"), f"`latest` names {target}"
    if name in arranged.steps:
        if name != newest:
            yield from notes.action("latest", {"step": arranged.steps[name]}, otherwise)
    elif layout.parse_step(target) is not None:
        yield from notes.action("latest", {"becomes": "dangling"}, otherwise)
    else:
        notes.unexpressed.append(otherwise)


def _no_latest(catalog: Catalog, storage: Storage, notes: _Remarks) -> Iterator[Action]:
    if layout.LATEST not in storage.names(catalog.root):
        yield from notes.action("latest", {"becomes": "absent"}, "there is no `latest`")
    elif storage.is_directory(catalog.root / layout.LATEST):
        yield from notes.action("latest", {"becomes": "directory"}, "`latest` is a directory")
    else:
        notes.unexpressed.append("`latest` is a file that names nothing")


def _is_a_file(catalog: Catalog, storage: Storage) -> bool:
    """Whether `latest` is a file that names a checkpoint, where links are usual."""
    return catalog.latest is not None and storage.read_link(catalog.root / layout.LATEST) is None


def _leftovers(catalog: Catalog, notes: _Remarks) -> Iterator[Action]:
    free = len(catalog.entries)
    for name in catalog.leftovers:
        leftover, otherwise = layout.parse_leftover(name), f"{name} was left behind"
        if leftover is None:
            yield from notes.action("leftover", {"kind": "link"}, otherwise)
        elif leftover.kind is LeftoverKind.staging and free:
            free -= 1
            yield from notes.action("leftover", {"kind": "staging"}, otherwise)
        else:
            notes.unexpressed.append(otherwise)


def _foreign(catalog: Catalog, storage: Storage, notes: _Remarks) -> Iterator[Action]:
    ours = {layout.LATEST, LOCK_FILE, *catalog.leftovers}
    ours |= {entry.path.name for entry in catalog.entries}
    for name in storage.names(catalog.root):
        path, otherwise = catalog.root / name, f"a foreign name: {name}"
        if name in ours or is_lease_name(name):
            continue
        if layout.parse_step(name) is not None:
            notes.unexpressed.append(otherwise)
            continue
        kind = "directory" if storage.is_directory(path) else "file"
        if storage.read_link(path) is not None:
            kind = "link"
        yield from notes.action("foreign", {"path": name, "kind": kind}, otherwise)


def _damage(
    catalog: Catalog, arranged: Arranged, storage: Storage, notes: _Remarks, *, deep: bool
) -> Iterator[Action]:
    done: list[Action] = []
    for entry in catalog.entries:
        others = [other for other in catalog.entries if other is not entry]
        for defect in find_defects(entry, others, storage, deep=deep):
            detail = f"{entry.path.name}/{defect.name}: {defect.detail}"
            if defect.kind == "unreadable":
                notes.unreadable.append(detail)
                continue
            for action in _action(entry.path.name, defect, arranged, notes, detail):
                if action not in done and not _undoes(action, done):
                    done.append(action)
                    yield action


def _undoes(action: Action, done: list[Action]) -> bool:
    """Whether this exchange is the other half of one already in the list."""
    if not isinstance(action, Swap):
        return False
    here, _, name = action.swap.path.partition("/")
    back = Swapping(path=f"{action.swap.against}/{name}", against=here)
    return Swap(swap=back) in done


def _action(
    entry: str, defect: Defect, arranged: Arranged, notes: _Remarks, otherwise: str
) -> Iterator[Action]:
    """The action that reproduces a defect, if the language has one."""
    path = arranged.path(entry, defect.name)
    # The path of an action is a pattern, and stands in a text.
    settings: dict[str, Any] = {"path": glob.escape(path)}
    words = {"missing": "delete", "empty": "truncate", "short": "truncate", "changed": "flip_bit"}
    if not path.isprintable() or defect.kind not in (*words, "exchanged"):
        notes.unexpressed.append(otherwise)
    elif defect.kind == "exchanged":
        settings["against"] = layout.format_step(arranged.steps[defect.other or entry])
        yield from notes.action("swap", settings, otherwise)
    else:
        settings |= {"to": 0} if defect.kind == "empty" else {}
        yield from notes.action(words[defect.kind], settings, otherwise)


def _freeze(catalog: Catalog, storage: Storage, notes: _Remarks) -> tuple[Freeze, ...]:
    """The newest freeze settings found."""
    known = []
    for entry in catalog.entries:
        try:
            known.append(read_metadata(entry.path, storage).get("vlm_freeze"))
        except CheckpointError as error:
            notes.unreadable.append(str(error))
    specs = [one for one in known if isinstance(one, list)]
    if not specs:
        return ()
    if any(one != specs[-1] for one in specs):
        notes.unexpressed.append(
            "the freeze settings differ between checkpoints; the newest ones are used"
        )
    found: list[Freeze] = []
    for one in specs[-1]:
        try:
            found.append(Freeze.model_validate(one, strict=True))
        except ValidationError:
            notes.unexpressed.append(f"a freeze setting: {one}")
    return tuple(found)
