"""KempnerForge: `step_N` directories of DCP files, and a relative symlink `latest`.

Under pipeline parallelism it has a directory `ppN` of DCP files for each stage. Without symlinks,
`latest` can be a file of one line with the name that a link would have.

The meaning of a file beside the documented ones is up to its implementation: it is only checked for
being complete in itself (JSON parses, an archive has its end).
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import ClassVar

from harness.layouts.archive import read_json, read_torch_file
from harness.layouts.base import Layout
from harness.layouts.files import below, own_defects, read_file, shard_defects
from harness.layouts.tree import Resolved, Tree
from harness.world import World

LATEST = "latest"
METADATA = "metadata.json"
TRAIN_STATE = "train_state.pt"

_LONGEST_NAME = 4096

_STAGE = re.compile(r"pp([0-9]+)")


class KempnerForge(Layout):
    """The layout of KempnerForge checkpoints, as documented."""

    name: ClassVar[str] = "kempnerforge"
    prefix: ClassVar[str] = "step_"
    pointer: ClassVar[str | None] = LATEST
    seals: ClassVar[tuple[str, ...]] = ("*.json", "*manifest*")
    summary: ClassVar[str] = METADATA
    pickles: ClassVar[tuple[str, ...]] = (".metadata", TRAIN_STATE)
    states: ClassVar[frozenset[str]] = frozenset({"freeze", "tokens_seen"})

    def latest(self, tree: Tree) -> Resolved:
        """Resolves `latest`.

        It can lead to a directory of another name: a checkpointer that replaces a step must keep a
        whole version under another name if names cannot be swapped.
        """
        kind = tree.kind(LATEST)
        if kind is None:
            return Resolved(state="absent")
        text = self._text(tree)
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
        step = self.step_of(name)
        return (
            *self._stage_defects(tree, name, world),
            *self._train_state_defects(tree, name, step),
            *self._metadata_defects(tree, name, step),
            *self._other_defects(tree, name),
        )

    def freeze(self, tree: Tree, name: str) -> object | None:
        """Returns `vlm_freeze` of a checkpoint's `metadata.json`, or None."""
        value = read_file(tree, f"{name}/{METADATA}", "json", read_json).value
        return value.get("vlm_freeze") if isinstance(value, dict) else None

    def tokens_seen(self, tree: Tree, name: str) -> object | None:
        """Returns `tokens_seen` of a checkpoint's `metadata.json`, or None."""
        value = read_file(tree, f"{name}/{METADATA}", "json", read_json).value
        return value.get("tokens_seen") if isinstance(value, dict) else None

    def published(self, root: Path) -> int | None:
        """Returns the step of the checkpoint that `latest` names on disk now."""
        try:
            latest = root / LATEST
            text = str(latest.readlink()) if latest.is_symlink() else latest.read_text().strip()
        except (OSError, UnicodeDecodeError):
            return None
        name = posixpath.normpath(text)
        return self.step_of(name) if (root / name).is_dir() else None

    def _text(self, tree: Tree) -> str | None:
        """Returns the target of `latest`, a symlink or a file of one line; None if it has none."""
        if tree.kind(LATEST) == "symlink":
            return tree.text(LATEST)
        if tree.kind(LATEST) != "file":
            return None
        line = tree.content(LATEST).read(0, _LONGEST_NAME).decode("ascii", errors="replace")
        is_name = line.endswith("\n") and self.step_of(line[:-1]) is not None
        return line[:-1] if is_name else None

    def _stage_defects(self, tree: Tree, name: str, world: World) -> tuple[str, ...]:
        stages = [_STAGE.fullmatch(one) for one in tree.names(name)]
        numbers = sorted(int(stage[1]) for stage in stages if stage)
        defects: list[str] = []
        if world.pp == 1 and not numbers:
            folders = [name]
        else:
            folders = [f"{name}/pp{stage}" for stage in range(world.pp)]
            if numbers and max(numbers) >= world.pp:
                defects.append(f"has stages {numbers}, the job has {world.pp}")
        for folder in folders:
            defects += shard_defects(tree, name, folder)
        return tuple(defects)

    def _train_state_defects(self, tree: Tree, name: str, step: int | None) -> tuple[str, ...]:
        reading = read_file(tree, f"{name}/{TRAIN_STATE}", "torch", read_torch_file)
        if reading.error is not None:
            return (f"{TRAIN_STATE} is {reading.error}",)
        inside = reading.value.get("step") if isinstance(reading.value, dict) else None
        if isinstance(inside, int) and inside != step and step is not None:
            return (f"{TRAIN_STATE} is of step {inside}",)
        return ()

    def _metadata_defects(self, tree: Tree, name: str, step: int | None) -> tuple[str, ...]:
        reading = read_file(tree, f"{name}/{METADATA}", "json", read_json)
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
                    defects.append(f"{below(path)} is a stray temporary file")
                elif path not in (f"{name}/{METADATA}", f"{name}/{TRAIN_STATE}"):
                    defects += own_defects(tree, path)
        return tuple(defects)
