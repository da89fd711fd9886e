"""The schedule of the learning rate, built before a checkpoint is loaded or after it.

Real loops do both. Built before, it is given to the load, which restores its state. Built after, it
continues from the parameter groups of the loaded optimizer: torch takes the number of updates as
`last_epoch`, and reads `initial_lr` and its other settings from the groups.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from torch.optim import Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR, LRScheduler, OneCycleLR

from harness.plan.model import Workload
from harness.scenario.schema import Scheduler

_LEAST_FACTOR = 0.1


class Schedule:
    """The torch scheduler of one rank, as soon as there is one."""

    def __init__(self, optimizer: Optimizer, workload: Workload) -> None:
        self._optimizer, self._settings = optimizer, workload.scheduler
        self._total = workload.scheduler.total_steps or workload.total_steps
        self._accumulate = workload.accumulate
        self._built: LRScheduler | None = None
        if self._settings.built == "before_load":
            self._build(-1)

    @property
    def loadable(self) -> LRScheduler | None:
        """The scheduler that a load restores; None before it is built."""
        return self._built

    @property
    def current(self) -> LRScheduler:
        """The scheduler of a loop that has begun."""
        assert self._built is not None, "the loop begins with a schedule"
        return self._built

    def begin(self, step: int) -> None:
        """Build it for a loop that continues after `step`, if it was not built before the load."""
        if self._built is None:
            self._build(self._accumulate.updates_after(step) - 1)

    def _build(self, last_epoch: int) -> None:
        self._built = _make(self._optimizer, self._settings, self._total, last_epoch)


def _make(optimizer: Optimizer, settings: Scheduler, total: int, last_epoch: int) -> LRScheduler:
    if settings.kind == "annealing":
        return CosineAnnealingLR(optimizer, T_max=total, last_epoch=last_epoch)
    if settings.kind == "one_cycle":
        highest = [group.get("max_lr", group["lr"]) for group in optimizer.param_groups]
        has_momentum = bool({"momentum", "betas"} & optimizer.defaults.keys())
        return OneCycleLR(
            optimizer,
            highest,
            total_steps=total,
            cycle_momentum=has_momentum,
            last_epoch=last_epoch,
        )
    return LambdaLR(optimizer, _cosine(settings.warmup_steps, total), last_epoch=last_epoch)


def _cosine(warmup: int, total: int) -> Callable[[int], float]:
    """Returns a linear warm-up, then half a cosine down to a tenth.

    A plain function, because `LambdaLR` would save the attributes of an object as state.
    """

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / (warmup + 1)
        done = min(1.0, (step - warmup) / max(1, total - warmup))
        return _LEAST_FACTOR + (1 - _LEAST_FACTOR) * (1 + math.cos(math.pi * done)) / 2

    return factor
