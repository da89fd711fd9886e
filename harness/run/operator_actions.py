"""Carries out each action. An action that finds nothing to hit raises NothingToDoError."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.evidence.operation import Operation
from harness.faults.actions import (
    Displacing,
    Flipping,
    Leaving,
    Naming,
    OnFiles,
    Placing,
    Pointing,
    PuttingBack,
    Swapping,
    Truncation,
    Writing,
)
from harness.layouts.base import Layout
from harness.run.operator import DirectoryOperator, KeptBytes
from harness.run.pickles import make_hostile

_BITS = 8


class NothingToDoError(Exception):
    """An action found nothing to act on; the text says what was missing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ActionContext:
    """One action to be done, and what it needs to know."""

    operator: DirectoryOperator
    choice: int
    marker: Path
    """Where a hostile pickle leaves its mark."""
    earlier: Sequence[Operation]
    """The operations of the ranks of all earlier runs."""
    layout: Layout

    @property
    def newest(self) -> str:
        """The checkpoint of the highest step. Raises NothingToDoError."""
        steps = {name: self.layout.step_of(name) for name in self.operator.matches("*")}
        found = {name: step for name, step in steps.items() if step is not None}
        there = [name for name in found if self.operator.is_directory(name)]
        if not there:
            raise NothingToDoError("there is no checkpoint")
        return max(there, key=lambda name: found[name])


Paths = tuple[str, ...]


def flip_bit(task: ActionContext, settings: Flipping) -> Paths:
    """Flips one bit of one byte."""
    paths = _choose(task, task.operator.files(settings.path), settings)
    for path in paths:
        size = task.operator.size(path)
        place = task.choice % max(1, size) if settings.byte is None else settings.byte
        if place >= size:
            raise NothingToDoError(f"{path} has {size} bytes, none at {place}")
        flipped = task.operator.read(path, place, 1)[0] ^ (1 << task.choice % _BITS)
        task.operator.patch(path, place, bytes([flipped]))
    return paths


def truncate(task: ActionContext, settings: Truncation) -> Paths:
    """Cuts off the end of a file."""
    paths = _choose(task, task.operator.files(settings.path), settings)
    for path in paths:
        size = task.operator.size(path)
        left = size // 2 if settings.to is None else settings.to
        if left >= size:
            raise NothingToDoError(f"{path} has {size} bytes, no more than {left}")
        task.operator.cut(path, left)
    return paths


def delete(task: ActionContext, settings: OnFiles) -> Paths:
    """Deletes a file, a symlink or a directory."""
    paths = _choose(task, _outermost(task.operator.matches(settings.path)), settings)
    for path in paths:
        task.operator.remove(path)
    return paths


def half_delete(task: ActionContext, settings: OnFiles) -> Paths:
    """Deletes the first half of the files of a directory, in the order of their names."""
    found = [
        path for path in task.operator.matches(settings.path) if task.operator.is_directory(path)
    ]
    paths = _choose(task, _outermost(found), settings)
    for path in paths:
        files = task.operator.files(f"{path}/*")
        for file in files[: (len(files) + 1) // 2]:
            task.operator.remove(file)
    return paths


def swap(task: ActionContext, settings: Swapping) -> Paths:
    """Swaps two files of the same name."""
    (path,) = _choose(task, task.operator.files(settings.path), None)
    other = f"{settings.against}/{path.partition('/')[2]}"
    if not task.operator.is_file(other) or other == path:
        raise NothingToDoError(f"{settings.against} has no other file {path.partition('/')[2]}")
    mine, theirs = task.operator.keep(path), task.operator.keep(other)
    task.operator.put_kept(path, theirs)
    task.operator.put_kept(other, mine)
    return path, other


def hostile(task: ActionContext, settings: OnFiles) -> Paths:
    """Puts a call in front of a pickle."""
    paths = _choose(task, task.operator.files(settings.path), settings)
    for path in paths:
        try:
            data = make_hostile(task.operator.read(path), str(task.marker))
        except ValueError as error:
            raise NothingToDoError(f"{path} {error}") from error
        task.operator.put(path, data)
    return paths


def write(task: ActionContext, settings: Writing) -> Paths:
    """Writes the whole text of one file."""
    if not task.operator.is_directory(Path(settings.path).parent.as_posix()):
        raise NothingToDoError(f"there is no directory for {settings.path}")
    task.operator.put(settings.path, settings.text.encode())
    return (settings.path,)


def foreign(task: ActionContext, settings: Naming) -> Paths:
    """Creates a file, a directory with a file in it, or a symlink to the newest checkpoint."""
    path = settings.path
    if task.operator.exists(path):
        raise NothingToDoError(f"{path} already exists")
    if settings.kind == "file":
        task.operator.put(path, b"not a checkpoint\n")
    elif settings.kind == "link":
        task.operator.link(path, task.newest)
    else:
        task.operator.make(path)
        task.operator.put(f"{path}/notes.txt", b"not a checkpoint\n")
    return (path,)


def leftover(task: ActionContext, settings: Leaving) -> Paths:
    """Creates a staging directory with half a file in it, or a link about to become the pointer.

    The name is one that earlier saves renamed away, so nothing needs to be known about an
    implementation's names.
    """
    layout = task.layout
    names = [
        source
        for one in task.earlier
        for source, target in _given_names(one)
        if (target == layout.pointer if settings.kind == "link" else _is_named(layout, target))
        and "/" not in source
        and not _is_named(layout, source)
    ]
    free = [name for name in names if not task.operator.exists(name)]
    if not free:
        raise NothingToDoError(f"no earlier save renamed a {settings.kind} into place")
    name, newest = free[-1], task.newest
    if settings.kind == "link":
        task.operator.link(name, newest)
        return (name,)
    task.operator.make(name)
    file = next(one for one in task.operator.files(f"{newest}/*") if one.count("/") == 1)
    place, size = task.operator.keep(file)
    task.operator.put_kept(f"{name}/{file.partition('/')[2]}", KeptBytes(place, size // 2))
    return (name,)


def latest(task: ActionContext, settings: Pointing) -> Paths:
    """Makes the pointer name another step or nothing, or replaces it by what it named."""
    operator, layout = task.operator, task.layout
    pointer = layout.pointer
    if pointer is None:
        raise NothingToDoError(f"the layout {layout.name} has no pointer")
    if settings.step is not None:
        text = layout.name_of(settings.step)
        if not operator.is_directory(text):
            raise NothingToDoError(f"there is no {text}")
    else:
        text = task.newest
    is_text, source = operator.is_file(pointer), _named_by(operator, pointer)
    if settings.becomes == "directory" and not operator.is_directory(source):
        raise NothingToDoError(f"`{pointer}` leads to no directory")
    if operator.exists(pointer):
        operator.remove(pointer)
    if settings.becomes == "directory":
        operator.copy(source, pointer)
    elif settings.becomes == "dangling":
        _point(operator, pointer, layout.name_of((layout.step_of(text) or 0) + 1), is_text=is_text)
    elif settings.step is not None:
        _point(operator, pointer, text, is_text=is_text)
    return (pointer,)


def _named_by(operator: DirectoryOperator, pointer: str) -> str:
    """Returns the name that a pointer leads to: a symlink's, or the text of a file."""
    if operator.is_file(pointer):
        return operator.read(pointer).decode(errors="replace").strip()
    return (operator.root / pointer).resolve().name


def _point(operator: DirectoryOperator, pointer: str, name: str, *, is_text: bool) -> None:
    if is_text:
        operator.put(pointer, f"{name}\n".encode())
    else:
        operator.link(pointer, name)


def relocate(task: ActionContext, settings: Placing) -> Paths:
    """Moves or copies the whole directory; the operator goes with it."""
    old = task.operator.root
    new = old.parent / settings.to
    if os.path.lexists(new):
        raise NothingToDoError(f"{settings.to} already exists")
    if settings.how == "move":
        old.rename(new)
    else:
        shutil.copytree(old, new, symlinks=True)
    task.operator.root = new
    return old.name, new.name


def displace(task: ActionContext, settings: Displacing) -> Paths:
    """Takes the directory's name away."""
    if task.operator.is_displaced():
        raise NothingToDoError("it is already displaced")
    task.operator.displace(leaves=settings.leaves)
    return (".",)


def put_back(task: ActionContext, _: PuttingBack) -> Paths:
    """Gives the directory its name back."""
    if not task.operator.is_displaced():
        raise NothingToDoError("it was not displaced")
    task.operator.put_back()
    return (".",)


_DO: dict[str, Callable[[ActionContext, Any], Paths]] = {
    "flip_bit": flip_bit,
    "truncate": truncate,
    "delete": delete,
    "swap": swap,
    "half_delete": half_delete,
    "hostile": hostile,
    "write": write,
    "foreign": foreign,
    "leftover": leftover,
    "latest": latest,
    "relocate": relocate,
    "displace": displace,
    "put_back": put_back,
}


def do(task: ActionContext, action: str, settings: Any) -> Paths:
    """Do one action; returns the names that it hit. Raises NothingToDoError."""
    return _DO[action](task, settings)


def _choose(task: ActionContext, found: list[str], settings: OnFiles | None) -> Paths:
    if not found:
        raise NothingToDoError("nothing matches the pattern")
    if settings is not None and settings.every:
        return tuple(found)
    return (found[task.choice % len(found)],)


def _outermost(paths: list[str]) -> list[str]:
    return [one for one in paths if not any(one.startswith(f"{other}/") for other in paths)]


def _given_names(operation: Operation) -> list[tuple[str, str]]:
    """Returns the old and the new name of what an operation renamed."""
    if operation.error or operation.kind not in ("rename", "exchange"):
        return []
    here, there = operation.path, operation.target or ""
    return [(here, there), (there, here)] if operation.kind == "exchange" else [(here, there)]


def _is_named(layout: Layout, name: str) -> bool:
    return layout.step_of(name) is not None
