"""Managers that hand back another position of the data loader than the one that was saved."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist

from tests.harness import simple_manager
from tests.harness.simple_manager import ShutdownHandler as ShutdownHandler
from tests.harness.simple_manager import SimpleManager
from tests.harness.simple_manager import resolve_resume_path as resolve_resume_path

_COUNTS = ("_num_yielded", "_sampler_iter_yielded")


class Taken:
    """A state as an object that a save can ask for it."""

    def __init__(self, state: dict[str, Any]) -> None:
        self._state = state

    def state_dict(self) -> dict[str, Any]:
        return self._state


def _moved(state: dict[str, Any], batches: int) -> dict[str, Any]:
    """The position some batches further on."""
    return {**state, **{name: max(0, state[name] + batches) for name in _COUNTS}}


class SavesWhatItLoaded(SimpleManager):
    """J17: the position that was loaded is kept, and saved again as if it were the present one."""

    _loaded: dict[str, Any] | None = None

    def apply_dataloader_state(self, dataloader: Any) -> None:
        self._loaded = self._loader_state
        super().apply_dataloader_state(dataloader)

    def save(
        self, step: int, tokens_seen: int = 0, scheduler: Any = None, dataloader: Any = None,
        extra: dict[str, Any] | None = None,
    ) -> None:  # fmt: skip
        loader = dataloader if self._loaded is None else Taken(self._loaded)
        super().save(step, tokens_seen, scheduler, loader, extra)


class PositionOfRankZero(SimpleManager):
    """The position of rank 0 is saved for all ranks."""

    def save(
        self, step: int, tokens_seen: int = 0, scheduler: Any = None, dataloader: Any = None,
        extra: dict[str, Any] | None = None,
    ) -> None:  # fmt: skip
        states: list[Any] = [dataloader.state_dict()]
        dist.broadcast_object_list(states, src=0)
        super().save(step, tokens_seen, scheduler, Taken(states[0]), extra)


class CountsFromTheResume(SimpleManager):
    """J02: the count of batches begins at each start, so the second resume repeats some."""

    _begin = 0

    def apply_dataloader_state(self, dataloader: Any) -> None:
        self._begin = (self._loader_state or {}).get(_COUNTS[0], 0)
        super().apply_dataloader_state(dataloader)

    def save(
        self, step: int, tokens_seen: int = 0, scheduler: Any = None, dataloader: Any = None,
        extra: dict[str, Any] | None = None,
    ) -> None:  # fmt: skip
        loader = Taken(_moved(dataloader.state_dict(), -self._begin))
        super().save(step, tokens_seen, scheduler, loader, extra)


class CountsWhatWasFetched(SimpleManager):
    """J12: the position is that of the reader, which is ahead of what training has got."""

    def save(
        self, step: int, tokens_seen: int = 0, scheduler: Any = None, dataloader: Any = None,
        extra: dict[str, Any] | None = None,
    ) -> None:  # fmt: skip
        loader = Taken(_moved(dataloader.state_dict(), 1))
        super().save(step, tokens_seen, scheduler, loader, extra)


class BatchesOfTheNewLoader(SimpleManager):
    """The position is kept as a number of batches, whatever their size was."""

    def apply_dataloader_state(self, dataloader: Any) -> None:
        saved = self._loader_state
        if saved is not None:
            now = dataloader.state_dict()["read_in"]["batch_size"]
            batches = saved["taken"] // saved["read_in"]["batch_size"]
            self._loader_state = {**saved, "taken": batches * now}
        super().apply_dataloader_state(dataloader)


class EpochFromTheStep(SimpleManager):
    """J03, J04: the epoch is the step by the length of one, and at its end already the next."""

    def save(
        self, step: int, tokens_seen: int = 0, scheduler: Any = None, dataloader: Any = None,
        extra: dict[str, Any] | None = None,
    ) -> None:  # fmt: skip
        kept = {**(extra or {}), "epoch": step // len(dataloader)}
        super().save(step, tokens_seen, scheduler, dataloader, kept)


class ShufflesAsInTheFirstEpoch(SimpleManager):
    """J06, J10: the order after a resume is that of epoch 0."""

    def load(self, *args: Any, **kwargs: Any) -> tuple[int, int, dict[str, Any]]:
        step, tokens_seen, extra = super().load(*args, **kwargs)
        return step, tokens_seen, {**extra, "epoch": 0}


class SkipsInEveryEpoch(SimpleManager):
    """J08: the batches that a resume skips are skipped in the epochs after it as well."""

    def apply_dataloader_state(self, dataloader: Any) -> None:
        state = self._loader_state
        super().apply_dataloader_state(dataloader)
        if state is not None:
            kind = type(dataloader)
            begin = kind.__iter__

            def begin_again(loader: Any) -> Any:
                loader.load_state_dict(state)
                return begin(loader)

            kind.__iter__ = begin_again


class PositionOfAnotherStep(SimpleManager):
    """J15: the position comes from another checkpoint than the weights."""

    def load(self, path: str | None = None, *args: Any, **kwargs: Any) -> Any:
        result = super().load(path, *args, **kwargs)
        committed = sorted(simple_manager._committed(self._dir), key=simple_manager._order)
        other = torch.load(committed[0] / simple_manager._rank_file(), weights_only=True)
        self._loader_state = other["loader"]
        return result
