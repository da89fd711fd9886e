"""The documented layout: `step_N` directories of DCP files, and a relative symlink `latest`.

Without symlinks, `latest` can be a file of one line with the name that a link would have.

The meaning of a file beside the documented ones is up to its implementation: it is only checked for
being complete in itself (JSON parses, an archive has its end).
"""

from __future__ import annotations

import posixpath
from pathlib import Path
from typing import Any

from harness.layouts.archive import Reading, read_json, read_shards, read_torch_file
from harness.layouts.names import (
    DCP_METADATA,
    LATEST,
    METADATA,
    TRAIN_STATE,
    checkpoint_step,
    stage_name,
    stage_number,
)
from harness.layouts.phases import PhaseTracker
from harness.layouts.protocol import Resolved, Tracker, Tree
from harness.world import World

_LONGEST_NAME = 4096


class PlainLayout:
    """The layout of KempnerForge checkpoints, as documented."""

    def tracker(self) -> Tracker:
        """Returns a fresh tracker for one run."""
        return PhaseTracker()

    def checkpoints(self, tree: Tree) -> dict[str, int]:
        """Returns the directories named `step_N`, and their steps."""
        found: dict[str, int] = {}
        for name in tree.names("."):
            step = checkpoint_step(name)
            if step is not None and tree.kind(name) == "directory":
                found[name] = step
        return found

    def latest(self, tree: Tree) -> Resolved:
        """Resolves `latest`.

        It can lead to a directory of another name: a checkpointer that replaces a step must keep a
        whole version under another name if names cannot be swapped.
        """
        kind = tree.kind(LATEST)
        if kind is None:
            return Resolved(state="absent")
        text = _pointer(tree)
        if text is None:
            return Resolved(state="astray", detail=f"`{LATEST}` is a {kind}, not a symlink")
        if posixpath.isabs(text):
            detail = f"`{LATEST}` is absolute ({text}): it breaks when the directory is moved"
            return Resolved(state="astray", detail=detail)
        name = posixpath.normpath(text)
        if name == LATEST:
            return Resolved(state="astray", detail=f"`{LATEST}` leads to itself")
        if tree.kind(name) is None:
            detail = f"`{LATEST}` names {name}, which does not exist"
            return Resolved(state="dangling", name=name, detail=detail)
        if tree.kind(name) != "directory" or "/" in name or name in (".", ".."):
            detail = f"`{LATEST}` names {name}, which is not a checkpoint"
            return Resolved(state="astray", name=name, detail=detail)
        return Resolved(state="checkpoint", name=name)

    def defects(self, tree: Tree, name: str, world: World) -> tuple[str, ...]:
        """Returns why the directory `name` is not a whole checkpoint; empty if it is."""
        step = checkpoint_step(name)
        return (
            *self._stage_defects(tree, name, world),
            *self._train_state_defects(tree, name, step),
            *self._metadata_defects(tree, name, step),
            *self._other_defects(tree, name),
        )

    def freeze(self, tree: Tree, name: str) -> object | None:
        """Returns `vlm_freeze` of a checkpoint's `metadata.json`, or None."""
        value = _read(tree, f"{name}/{METADATA}", "json", read_json).value
        return value.get("vlm_freeze") if isinstance(value, dict) else None

    def tokens_seen(self, tree: Tree, name: str) -> object | None:
        """Returns `tokens_seen` of a checkpoint's `metadata.json`, or None."""
        value = _read(tree, f"{name}/{METADATA}", "json", read_json).value
        return value.get("tokens_seen") if isinstance(value, dict) else None

    def owned(self, name: str) -> bool:
        """Whether a name in the checkpoint directory is `latest` or a checkpoint's."""
        return name == LATEST or checkpoint_step(name) is not None

    def published(self, root: Path) -> int | None:
        """Returns the step of the checkpoint that `latest` names on disk now."""
        try:
            latest = root / LATEST
            text = str(latest.readlink()) if latest.is_symlink() else latest.read_text().strip()
        except (OSError, UnicodeDecodeError):
            return None
        name = posixpath.normpath(text)
        return checkpoint_step(name) if (root / name).is_dir() else None

    def _stage_defects(self, tree: Tree, name: str, world: World) -> tuple[str, ...]:
        stages = {one: stage_number(one) for one in tree.names(name)}
        numbers = sorted(number for number in stages.values() if number is not None)
        defects: list[str] = []
        if world.pp == 1 and not numbers:
            folders = [name]
        else:
            folders = [f"{name}/{stage_name(stage)}" for stage in range(world.pp)]
            if numbers and max(numbers) >= world.pp:
                defects.append(f"has stages {numbers}, the job has {world.pp}")
        for folder in folders:
            defects += _shard_defects(tree, name, folder)
        return tuple(defects)

    def _train_state_defects(self, tree: Tree, name: str, step: int | None) -> tuple[str, ...]:
        reading = _read(tree, f"{name}/{TRAIN_STATE}", "torch", read_torch_file)
        if reading.error is not None:
            return (f"{TRAIN_STATE} is {reading.error}",)
        inside = reading.value.get("step") if isinstance(reading.value, dict) else None
        if isinstance(inside, int) and inside != step and step is not None:
            return (f"{TRAIN_STATE} is of step {inside}",)
        return ()

    def _metadata_defects(self, tree: Tree, name: str, step: int | None) -> tuple[str, ...]:
        reading = _read(tree, f"{name}/{METADATA}", "json", read_json)
        if reading.error is not None:
            return (f"{METADATA} is {reading.error}",)
        inside = reading.value.get("step") if isinstance(reading.value, dict) else None
        if inside != step and step is not None:
            return (f"{METADATA} is of step {inside}",)
        return ()

    def _other_defects(self, tree: Tree, name: str) -> tuple[str, ...]:
        defects: list[str] = []
        folders = [name]
        while folders:
            folder = folders.pop()
            for one in tree.names(folder):
                path = f"{folder}/{one}"
                if tree.kind(path) == "directory":
                    folders.append(path)
                elif one.endswith(".tmp"):
                    defects.append(f"{_inside(path)} is a stray temporary file")
                elif path not in (f"{name}/{METADATA}", f"{name}/{TRAIN_STATE}"):
                    defects += _own_defects(tree, path)
        return tuple(defects)


def _pointer(tree: Tree) -> str | None:
    """Returns the target of `latest`, a symlink or a file of one line; None if it has none."""
    if tree.kind(LATEST) == "symlink":
        return tree.text(LATEST)
    if tree.kind(LATEST) != "file":
        return None
    line = tree.content(LATEST).read(0, _LONGEST_NAME).decode("ascii", errors="replace")
    return line[:-1] if line.endswith("\n") and checkpoint_step(line[:-1]) is not None else None


def _inside(path: str) -> str:
    return path.partition("/")[2]


def _read(tree: Tree, path: str, fact: str, read: Any) -> Reading:
    if tree.kind(path) != "file":
        return Reading(error="missing")
    reading: Reading = tree.content(path).fact(fact, read)
    return reading


def _shard_defects(tree: Tree, name: str, folder: str) -> list[str]:
    path = f"{folder}/{DCP_METADATA}"
    reading = _read(tree, path, "shards", read_shards)
    if reading.error is not None:
        return [f"{_inside(path)} is {reading.error}"]
    defects: list[str] = []
    for shard, end in sorted(reading.value.items()):
        place = posixpath.normpath(f"{folder}/{shard}")
        if not place.startswith(name + "/"):
            defects.append(f"{_inside(path)} names {shard}, outside of the checkpoint")
        elif tree.kind(place) != "file":
            defects.append(f"{_inside(place)} is missing")
        elif (size := tree.content(place).size) < end:
            defects.append(f"{_inside(place)} has {size} of at least {end} bytes")
    return defects


def _own_defects(tree: Tree, path: str) -> list[str]:
    """Returns defects of files that only the implementation knows, if they are incomplete."""
    if path.endswith(".json"):
        reading = _read(tree, path, "json", read_json)
    elif path.endswith((".pt", ".pth")):
        reading = _read(tree, path, "torch", read_torch_file)
    else:
        return []
    return [] if reading.error is None else [f"{_inside(path)} is {reading.error}"]
