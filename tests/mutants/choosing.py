"""Managers that choose wrongly where to resume, by a rule of their own.

The module has one rule for the training loop, as a checkpointer does: that of the manager that was
built.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from tests.harness import simple_manager
from tests.harness.simple_manager import ShutdownHandler as ShutdownHandler
from tests.harness.simple_manager import SimpleManager
from tests.mutants import checksums
from tests.mutants.copies import Copies
from tests.mutants.publishing import WritesInPlace

_built: list[Chooser] = []


def resolve_resume_path(directory: str) -> str | None:
    found = _built[-1].choose(Path(directory))
    return None if found is None else str(found)


class Chooser(SimpleManager):
    """Base: a rule as a method."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # Only rank 0 clears leftovers away, so the others do not ask the directory themselves.
        used = [any(Path(args[0].dir).iterdir())]
        dist.broadcast_object_list(used, src=0)
        self._used = used[0]
        super().__init__(*args, **kwargs)
        _built.append(self)

    def choose(self, directory: Path) -> Path | None:
        found = simple_manager.resolve_resume_path(str(directory))
        return None if found is None else Path(found)


class TakesTheUnfinished(Chooser, WritesInPlace):
    """L02: without a `latest`, the highest step is taken, whatever is in it."""

    def choose(self, directory: Path) -> Path | None:
        steps = list(simple_manager._committed(directory))
        return max(steps, key=simple_manager._step) if steps else None


class StartsOverOnAnyError(Chooser):
    """B06: what cannot be read is as good as nothing, and training begins anew."""

    def choose(self, directory: Path) -> Path | None:
        found = super().choose(directory)
        try:
            torch.load(Path(str(found)) / "train_state.pt", weights_only=True)
        except Exception:  # noqa: BLE001 - that is the bug
            return None
        return found


class EachStageJudgesItself(Chooser, Copies):
    """B08: a stage that finds its own files sound does not ask for those of the others."""

    def choose(self, directory: Path) -> Path | None:
        committed = sorted(
            simple_manager._committed(directory), key=simple_manager._order, reverse=True
        )
        return next((path for path in committed if self._is_mine_sound(path)), None)

    def _is_mine_sound(self, path: Path) -> bool:
        listed, found = checksums.read_sums(path), checksums.sums(path)
        mine = f"pp{self._pp_rank}/"
        return all(found.get(name) == one for name, one in listed.items() if name.startswith(mine))

    def load(self, path: str | None = None, *args: Any, **kwargs: Any) -> Any:
        broadcast = dist.broadcast_object_list
        dist.broadcast_object_list = lambda *_args, **_kwargs: None
        try:
            return SimpleManager.load(self, path, *args, **kwargs)
        finally:
            dist.broadcast_object_list = broadcast


class TakesTheLastOfNone(Chooser):
    """B11: a directory that was used has a complete checkpoint, or so it believes."""

    def choose(self, directory: Path) -> Path | None:
        complete = sorted(simple_manager._committed(directory), key=simple_manager._order)
        return complete[-1] if self._used else None


class ReadsEveryNumber(Chooser):
    """C04: whatever begins with `step_` goes on with a number, or the start ends here."""

    def choose(self, directory: Path) -> Path | None:
        steps = [int(path.name.split("_")[1]) for path in directory.glob("step_*")]
        return directory / f"step_{max(steps)}" if steps else None


class SortsAsText(Chooser):
    """The newest step is the last of the names, so that 6 comes after 12."""

    def choose(self, directory: Path) -> Path | None:
        names = [path.name for path in simple_manager._committed(directory)]
        return directory / max(names) if names else None


class SortsAsTextWithoutLatest(SortsAsText):
    """The order of the names counts where `latest` is gone."""

    def choose(self, directory: Path) -> Path | None:
        latest = directory / "latest"
        return latest.resolve() if latest.is_dir() else super().choose(directory)


class MissingMeansFresh(Chooser):
    """U01: a checkpoint that was asked for by name and is not there is a fresh start."""

    def load(self, path: str | None = None, *args: Any, **kwargs: Any) -> Any:
        if path is not None and not Path(path).exists():
            return 0, 0, {}
        return super().load(path, *args, **kwargs)


class StartsAtZeroWithItsWeights(Chooser):
    """L03: without a readable train state the weights are loaded, and the steps begin anew."""

    def load(self, path: str | None = None, *args: Any, **kwargs: Any) -> Any:
        try:
            return super().load(path, *args, **kwargs)
        except Exception:  # noqa: BLE001 - that is the bug
            self._read_shards(Path(str(path)))
            return 0, 0, {}
