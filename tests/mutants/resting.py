"""Managers that are taken in by what happened to the directory between two runs."""

from __future__ import annotations

import functools
import json
import shutil
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from kempnerforge.checkpoint.manager import CheckpointManager
from tests.harness import simple_manager
from tests.harness.simple_manager import ShutdownHandler as ShutdownHandler
from tests.harness.simple_manager import SimpleManager
from tests.harness.simple_manager import resolve_resume_path as resolve_resume_path


class VerifiesNothing(SimpleManager):
    """What stands under the name of a checkpoint is loaded, whichever save it comes from."""


class UnpicklesMetadata(SimpleManager):
    """DCP's `.metadata` is unpickled by an ordinary unpickler, as the stock reader does it."""


class UnpicklesTrainState(SimpleManager):
    """`train_state.pt` is read with `weights_only=False`."""

    def load(self, *args: Any, **kwargs: Any) -> tuple[int, int, dict[str, Any]]:
        load = torch.load
        torch.load = functools.partial(_load_anything, load)
        try:
            return super().load(*args, **kwargs)
        finally:
            torch.load = load


def _load_anything(load: Any, file: Any, **options: Any) -> Any:
    return load(file, **{**options, "weights_only": False})


class TrustsEverybody(CheckpointManager):
    """S01, L40: pickles are loaded as if the job had said that it trusts them."""

    def __init__(self, config: Any, *args: Any, **kwargs: Any) -> None:
        config.allow_unsafe_pickle = True
        super().__init__(config, *args, **kwargs)


class ChecksFreezeTooLate(SimpleManager):
    """The weights are in the model already when the freeze states turn out to differ."""

    def load(self, *args: Any, **kwargs: Any) -> tuple[int, int, dict[str, Any]]:
        expected = kwargs.pop("vlm_freeze_expected", None)
        result = super().load(*args, **kwargs)
        simple_manager._check_freeze(result[2].get("vlm_freeze"), expected)
        return result


class IgnoresFreeze(SimpleManager):
    """Another freeze state is nobody's business."""

    def load(self, *args: Any, **kwargs: Any) -> tuple[int, int, dict[str, Any]]:
        kwargs.pop("vlm_freeze_expected", None)
        return super().load(*args, **kwargs)


class RefusesInOtherWords(SimpleManager):
    """Each rank tells the refusal in its own words."""

    def load(self, *args: Any, **kwargs: Any) -> tuple[int, int, dict[str, Any]]:
        try:
            return super().load(*args, **kwargs)
        except ValueError as error:
            raise ValueError(f"rank {dist.get_rank()}: {error}") from error


class TidiesUp(SimpleManager):
    """Whatever is no checkpoint is taken for rubbish."""

    def _prune(self, newest: Path) -> None:
        super()._prune(newest)
        known = {"latest", *(path.name for path in simple_manager._committed(self._dir))}
        for path in self._dir.iterdir():
            if path.name not in known and path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            elif path.name not in known:
                path.unlink()


class RemembersItsPlace(SimpleManager):
    """Each checkpoint holds the absolute path of its directory, which later saves write to."""

    def _seal(self, staging: Path, *args: Any) -> None:
        home = self._dir / "latest" / "home.json"
        old = Path(json.loads(home.read_text())) if home.exists() else self._dir
        (staging / "home.json").write_text(json.dumps(str(old)))
        super()._seal(staging, *args)
        if old != self._dir:
            (old / "newest.txt").write_text(staging.name)


class DropsTheLastStage(CheckpointManager):
    """Where stages were joined, what only the last one had keeps its first values."""

    def load(self, *args: Any, **kwargs: Any) -> tuple[int, int, dict[str, Any]]:
        head = self._model.get_parameter("transformer.head.weight")
        first = head.detach().clone()
        result = super().load(*args, **kwargs)
        with torch.no_grad():
            head.copy_(first)
        return result


class TakesAnyDegree(CheckpointManager):
    """Positions of other data-parallel ranks are dropped without a word."""

    def load(self, *args: Any, **kwargs: Any) -> tuple[int, int, dict[str, Any]]:
        kwargs["exclude_keys"] = ["dataloader"]
        return super().load(*args, **kwargs)
