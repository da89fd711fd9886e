"""Real checkpoints on disk, one maker for each layout, and the tree by which layouts see them."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from torch.distributed.checkpoint.state_dict_saver import save

from harness.content import Content
from harness.layouts.tree import Tree


class DiskTree:
    """A directory on disk, as the layout wants to see it."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def kind(self, path: str) -> str | None:
        place = self.root / path
        if place.is_symlink():
            return "symlink"
        if place.is_dir():
            return "directory"
        return "file" if place.exists() else None

    def names(self, path: str) -> tuple[str, ...]:
        place = self.root / path
        return tuple(sorted(one.name for one in place.iterdir())) if place.is_dir() else ()

    def text(self, path: str) -> str:
        return str((self.root / path).readlink())

    def content(self, path: str) -> Content:
        data = (self.root / path).read_bytes()
        return Content.of(data, 0, len(data))


def tree_of(root: Path) -> Tree:
    """The tree of a directory."""
    return DiskTree(root)  # type: ignore[return-value]


def dcp_files(folder: Path) -> None:
    """Real files of torch's DCP."""
    state = {"model": {"weight": torch.randn(40, 3)}, "optimizer": {"step": torch.ones(1)}, "x": 3}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        save(state, checkpoint_id=folder, no_dist=True)


def checkpoint(root: Path, *, pp: int = 1, step: int = 4) -> Path:
    """A whole checkpoint of KempnerForge."""
    folder = root / f"step_{step}"
    folder.mkdir()
    for stage in range(pp):
        dcp_files(folder / f"pp{stage}" if pp > 1 else folder)
    torch.save({"step": step, "rng": torch.get_rng_state()}, folder / "train_state.pt")
    freeze = [{"module": "adapter", "frozen": True}]
    (folder / "metadata.json").write_text(json.dumps({"step": step, "vlm_freeze": freeze}))
    (folder / "manifest.json").write_text("{}")
    return folder


def _dcp_steps(root: Path, step: int) -> Path:
    dcp_files(root / f"step-{step}")
    return root / f"step-{step}"


WHOLE: dict[str, Callable[[Path, int], Path]] = {
    "kempnerforge": lambda root, step: checkpoint(root, step=step),
    "dcp_steps": _dcp_steps,
}
"""By layout: makes a whole checkpoint of a step."""
