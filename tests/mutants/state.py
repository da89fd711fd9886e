"""Managers that resume with another state than the one that was saved."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from tests.harness import simple_manager
from tests.harness.simple_manager import ShutdownHandler as ShutdownHandler
from tests.harness.simple_manager import SimpleManager
from tests.harness.simple_manager import resolve_resume_path as resolve_resume_path


class GeneratorsOfRankZero(SimpleManager):
    """I01, L21: every rank gets back the random generators of rank 0."""

    def load(self, *args: Any, **kwargs: Any) -> tuple[int, int, dict[str, Any]]:
        result = super().load(*args, **kwargs)
        generators: list[Any] = [simple_manager._get_generators()]
        dist.broadcast_object_list(generators, src=0)
        simple_manager._set_generators(generators[0])
        return result


class ForgetsGenerators(SimpleManager):
    """I04: the random generators are saved and never restored."""

    def load(self, *args: Any, **kwargs: Any) -> tuple[int, int, dict[str, Any]]:
        before = simple_manager._get_generators()
        result = super().load(*args, **kwargs)
        simple_manager._set_generators(before)
        return result


class ForgetsLoader(SimpleManager):
    """B01: the position of the dataloader is dropped, so the epoch begins anew."""

    def apply_dataloader_state(self, dataloader: Any) -> None:
        self._loader_state = None


class DropsMoments(SimpleManager):
    """L27: the optimizer's moments do not come back."""

    def _read_shards(self, source: Path) -> None:
        super()._read_shards(source)
        self._optimizer.state.clear()


class SavesTheMode(SimpleManager):
    """Whether the model was evaluated at the save comes back, too: training has no dropout then."""

    def _shared_state(self, *args: Any) -> dict[str, Any]:
        return {**super()._shared_state(*args), "training": self._model.training}

    def _read_states(self, source: Path) -> tuple[dict[str, Any], dict[str, Any]]:
        shared, mine = super()._read_states(source)
        self._model.train(shared["training"])
        return shared, mine


class ForgetsSchedule(SimpleManager):
    """K01: the learning-rate schedule starts again."""

    def load(
        self, path: str | None = None, scheduler: Any = None, *args: Any, **kwargs: Any
    ) -> tuple[int, int, dict[str, Any]]:
        return super().load(path, None, *args, **kwargs)


class SavesLate(SimpleManager):
    """E05: `save` returns before the state is copied, and training changes it meanwhile."""

    _promised: Callable[[], None] | None = None

    def save(self, *args: Any, **kwargs: Any) -> None:
        self.wait()
        self._promised = lambda: SimpleManager.save(self, *args, **kwargs)

    def wait(self) -> None:
        if self._promised is not None:
            self._promised()
            self._promised = None

    def flush_pending_save(self) -> None:
        self.wait()


class ChangesTraining(SimpleManager):
    """K10: taking a checkpoint leaves its mark in the weights."""

    def save(self, *args: Any, **kwargs: Any) -> None:
        super().save(*args, **kwargs)
        with torch.no_grad():
            for parameter in self._model.parameters():
                parameter.mul_(1.0 + 1e-3)


class StagesChooseAlone(SimpleManager):
    """L06: each pipeline stage looks for a checkpoint by itself, and stage 1 sees an older one."""

    def load(
        self, path: str | None = None, scheduler: Any = None, *args: Any, **kwargs: Any
    ) -> tuple[int, int, dict[str, Any]]:
        mine = Path(str(path)).resolve()
        if self._pp_rank == 1:
            older = [one for one in simple_manager._committed(self._dir) if one != mine]
            mine = max(older, key=simple_manager._order)
        broadcast = dist.broadcast_object_list
        dist.broadcast_object_list = lambda *_args, **_kwargs: None
        try:
            return super().load(str(mine), scheduler, *args, **kwargs)
        finally:
            dist.broadcast_object_list = broadcast


class FreezeStateOfTheNextSave(SimpleManager):
    """A save is sealed when the next one begins, with the freeze state of that later moment."""

    _open: tuple[Path, int, int, Any] | None = None

    def _seal(
        self, staging: Path, step: int, tokens_seen: int, scheduler: Any, extra: dict[str, Any]
    ) -> None:
        self._open = (staging, step, tokens_seen, scheduler)
        self._extra = extra

    def _publish(self, staging: Path, step: int) -> None:
        """Comes with the next save."""

    def save(
        self,
        step: int,
        tokens_seen: int = 0,
        scheduler: Any = None,
        dataloader: Any = None,
        extra: dict[str, Any] | None = None,
    ) -> None:
        self._finish(extra or {})
        super().save(step, tokens_seen, scheduler, dataloader, extra)

    def wait(self) -> None:
        self._finish(getattr(self, "_extra", {}))

    def _finish(self, extra: dict[str, Any]) -> None:
        if self._open is not None:
            staging, step, tokens_seen, scheduler = self._open
            kept = {**self._extra, "vlm_freeze": extra["vlm_freeze"]}
            super()._seal(staging, step, tokens_seen, scheduler, kept)
            super()._publish(staging, step)
            self._open = None
        dist.barrier()
