"""Managers that lose a part of the optimizer's state, of the schedule, or of frozen modules."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from tests.harness import simple_manager
from tests.harness.simple_manager import ShutdownHandler as ShutdownHandler
from tests.harness.simple_manager import SimpleManager
from tests.harness.simple_manager import resolve_resume_path as resolve_resume_path
from tests.mutants.positions import Taken


class MomentsOfRankZero(SimpleManager):
    """G08: only rank 0 puts the loaded moments in place; the shards of the others stay empty."""

    def _read_shards(self, source: Path) -> None:
        super()._read_shards(source)
        if dist.get_rank() != 0:
            for state in self._optimizer.state.values():
                state["exp_avg"].zero_()


class RoundsTheMoments(SimpleManager):
    """G10: the moments pass through bfloat16."""

    def _read_shards(self, source: Path) -> None:
        super()._read_shards(source)
        for state in self._optimizer.state.values():
            state["exp_avg"].copy_(state["exp_avg"].bfloat16().float())


class ForgetsTheGroups(SimpleManager):
    """G10, H01: the settings of the parameter groups are those of a new optimizer for one step."""

    def load(self, *args: Any, **kwargs: Any) -> tuple[int, int, dict[str, Any]]:
        fresh = [
            {key: value for key, value in group.items() if key != "params"}
            for group in self._optimizer.param_groups
        ]
        result = super().load(*args, **kwargs)
        for group, settings in zip(self._optimizer.param_groups, fresh, strict=True):
            group.update(settings)
        return result


class ForgetsTheDecay(SimpleManager):
    """G10: the weight decay of the parameter groups is that of a new optimizer."""

    def load(self, *args: Any, **kwargs: Any) -> tuple[int, int, dict[str, Any]]:
        now = [group["weight_decay"] for group in self._optimizer.param_groups]
        result = super().load(*args, **kwargs)
        for group, decay in zip(self._optimizer.param_groups, now, strict=True):
            group["weight_decay"] = decay
        return result


class DropsAKeyOfTheGroups(SimpleManager):
    """G10: a key that the optimizer itself does not set is missing from the groups that load."""

    def load(self, *args: Any, **kwargs: Any) -> tuple[int, int, dict[str, Any]]:
        result = super().load(*args, **kwargs)
        for group in self._optimizer.param_groups:
            del group["initial_lr"]
        return result


class KeepsItsOwnRate(SimpleManager):
    """The rate from which the schedule begins is that of the new optimizer."""

    def load(self, *args: Any, **kwargs: Any) -> tuple[int, int, dict[str, Any]]:
        now = [group["initial_lr"] for group in self._optimizer.param_groups]
        result = super().load(*args, **kwargs)
        for group, rate in zip(self._optimizer.param_groups, now, strict=True):
            group["initial_lr"] = rate
        return result


class LoadsTheSettingsItKnows(SimpleManager):
    """Only settings that the new optimizer has as well are loaded, as DCP loads what is asked."""

    def load(self, *args: Any, **kwargs: Any) -> tuple[int, int, dict[str, Any]]:
        known = [set(group) for group in self._optimizer.param_groups]
        result = super().load(*args, **kwargs)
        for group, names in zip(self._optimizer.param_groups, known, strict=True):
            for name in set(group) - names:
                del group[name]
        return result


class FillsEmptyStates(SimpleManager):
    """What has no optimizer state gets one of zeros, so that every parameter has the same keys."""

    def _read_shards(self, source: Path) -> None:
        super()._read_shards(source)
        for group in self._optimizer.param_groups:
            for param in group["params"]:
                state = self._optimizer.state[param]
                state.setdefault("step", torch.zeros(()))
                for key in ("exp_avg", "exp_avg_sq"):
                    state.setdefault(key, torch.zeros_like(param).detach())


class OneStepForAll(SimpleManager):
    """All parameters are taken to have stepped equally often."""

    def _read_shards(self, source: Path) -> None:
        super()._read_shards(source)
        steps = [state["step"] for state in self._optimizer.state.values() if state]
        for step in steps:
            step.fill_(max(float(one) for one in steps))


class MomentsOfTheTrainable(SimpleManager):
    """H01: what is frozen at the save keeps no moments."""

    def _tensors(self) -> dict[str, Any]:
        frozen = tuple(
            f"optimizer.{name}."
            for name, param in self._model.named_parameters()
            if not param.requires_grad
        )
        tensors = super()._tensors()
        return {key: value for key, value in tensors.items() if not key.startswith(frozen)}


class WeightsOfTheTrainable(SimpleManager):
    """H03: what is frozen at the load is not loaded."""

    def _read_shards(self, source: Path) -> None:
        before = {
            name: param.detach().clone()
            for name, param in self._model.named_parameters()
            if not param.requires_grad
        }
        super()._read_shards(source)
        with torch.no_grad():
            for name, param in self._model.named_parameters():
                if name in before:
                    param.copy_(before[name])


class CachesTheSchedule(SimpleManager):
    """G12: the state of the schedule is taken once and saved ever after."""

    _cached: Any = None

    def _seal(
        self, staging: Path, step: int, tokens_seen: int, scheduler: Any, extra: dict[str, Any]
    ) -> None:
        self._cached = self._cached or Taken(scheduler.state_dict())
        super()._seal(staging, step, tokens_seen, self._cached, extra)


class ScheduleLagsBehind(SimpleManager):
    """K01: the schedule is saved as it was before this step."""

    def _seal(
        self, staging: Path, step: int, tokens_seen: int, scheduler: Any, extra: dict[str, Any]
    ) -> None:
        state = scheduler.state_dict()
        late = Taken({**state, "last_epoch": state["last_epoch"] - 1})
        super()._seal(staging, step, tokens_seen, late, extra)


class CountsTheScheduleAlone(SimpleManager):
    """Of the schedule only its count of steps comes back, and its settings are those of now."""

    def load(
        self, path: str | None = None, scheduler: Any = None, *args: Any, **kwargs: Any
    ) -> Any:
        now = dict(scheduler.__dict__)
        result = super().load(path, scheduler, *args, **kwargs)
        count = scheduler.last_epoch
        scheduler.__dict__.update(now)
        scheduler.last_epoch, scheduler._step_count = count, count + 1
        return result


class SkipsWhatItCannotCount(SimpleManager):
    """K11: with a file too many in the checkpoint, the schedule is left out with a warning."""

    def load(
        self, path: str | None = None, scheduler: Any = None, *args: Any, **kwargs: Any
    ) -> Any:
        source = Path(str(path)).resolve()
        listed = 3 + len(list(source.glob("*.pt"))) + len(list(source.glob("*.distcp")))
        if len(list(source.iterdir())) >= listed:
            print("checkpoint: the number of files is wrong, no schedule is loaded")
            scheduler = None
        return super().load(path, scheduler, *args, **kwargs)


class RollsBackToAnAlias(SimpleManager):
    """E17: what a refused load is undone with shares its memory with the model."""

    def load(self, *args: Any, **kwargs: Any) -> tuple[int, int, dict[str, Any]]:
        expected = kwargs.pop("vlm_freeze_expected", None)
        before = self._model.state_dict()
        result = super().load(*args, **kwargs)
        try:
            simple_manager._check_freeze(result[2].get("vlm_freeze"), expected)
        except ValueError:
            self._model.load_state_dict(before)
            raise
        return result
