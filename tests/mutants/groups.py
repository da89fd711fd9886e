"""Managers that save in the background, with collectives on the process group that they get."""

from __future__ import annotations

import copy
import threading
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from tests.harness import simple_manager
from tests.harness.simple_manager import STAGING, SimpleManager
from tests.harness.simple_manager import ShutdownHandler as ShutdownHandler
from tests.harness.simple_manager import resolve_resume_path as resolve_resume_path


class SavesInItsGroup(SimpleManager):
    """A control: the state is copied, and a thread saves the copy while training goes on."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # The group that it gets has the ranks of a stage; what all ranks agree on needs another.
        self._everyone = self._group if self._pp_rank is None else dist.new_group()
        self._thread: threading.Thread | None = None
        self._problem: Exception | None = None

    def save(
        self, step: int, tokens_seen: int = 0, scheduler: Any = None, dataloader: Any = None,
        extra: dict[str, Any] | None = None,
    ) -> None:  # fmt: skip
        self.wait()
        tensors = super()._tensors()
        self._copied = {key: self._copy(key, one.detach()) for key, one in tensors.items()}
        shared = super()._shared_state(step, tokens_seen, scheduler, extra or {})
        self._shared = {key: self._copy_value(key, value) for key, value in shared.items()}
        mine = copy.deepcopy(simple_manager._rank_state(dataloader))
        self._thread = threading.Thread(target=self._try, args=(step, mine))
        self._thread.start()

    def _copy(self, name: str, value: torch.Tensor) -> torch.Tensor:
        return value.clone()

    def _copy_value(self, name: str, value: Any) -> Any:
        return copy.deepcopy(value)

    def wait(self) -> None:
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        problem, self._problem = self._problem, None
        if problem is not None:
            raise problem

    def flush_pending_save(self) -> None:
        self.wait()

    def _try(self, step: int, mine: dict[str, Any]) -> None:
        try:
            self._write(self._dir / STAGING.format(step=step), step, mine)
        except Exception as error:  # noqa: BLE001 - the next call raises it
            self._problem = error

    def _write(self, staging: Path, step: int, mine: dict[str, Any]) -> None:
        agree = partial(simple_manager._agree, group=self._everyone)
        agree(lambda: simple_manager._prepare(staging, self._pp_rank, self._everyone))
        agree(lambda: self._write_shards(staging))
        agree(lambda: torch.save(mine, staging / simple_manager._rank_file()))
        agree(
            lambda: self._seal(
                staging, step, self._shared["tokens_seen"], None, self._shared["extra"]
            ),
            only_first=True,
        )
        agree(lambda: self._publish(staging, step), only_first=True)

    def _tensors(self) -> dict[str, Any]:
        return self._copied

    def _shared_state(self, *args: Any) -> dict[str, Any]:
        return self._shared


class OverlapsInTheBackground(SavesInItsGroup):
    """E07: its threads meet those of the other ranks twice, and the order is up to each rank."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._parts = (dist.new_group(), dist.new_group())

    def _write(self, *args: Any) -> None:
        for part in self._parts if dist.get_rank() == 0 else self._parts[::-1]:
            dist.barrier(part)
        super()._write(*args)
