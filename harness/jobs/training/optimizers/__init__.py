"""The optimizers of the job, by their names in scenarios (`harness.words.OPTIMIZERS`).

Each is a module of this package with a function `build`. An optimizer that holds others exposes
them as `inner`, a mapping by label, so that digests include their state.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import nn
from torch.optim import Optimizer

from harness.jobs.training.optimizers import adamw, lookahead, low_bit, muon, sgd
from harness.jobs.training.optimizers.groups import Build, Groups

OPTIMIZERS: dict[str, Build] = {
    "adamw": adamw.build,
    "sgd": sgd.build,
    "muon": muon.build,
    "lookahead": lookahead.build,
    "low_bit": low_bit.build,
}


def build_optimizer(name: str, groups: Groups, rate: float) -> Optimizer:
    """Returns the optimizer of that name over groups of parameters."""
    return OPTIMIZERS[name](groups, rate)


def moments_of(optimizer: Optimizer, param: nn.Parameter) -> Iterator[tuple[str, Any]]:
    """Yields all state that an optimizer and its inner ones hold for a parameter, by label."""
    yield from optimizer.state.get(param, {}).items()
    inner: dict[str, Optimizer] = getattr(optimizer, "inner", {})
    for label, one in inner.items():
        for key, value in one.state.get(param, {}).items():
            yield label + key, value


def settings_of(optimizer: Optimizer) -> Iterator[tuple[str, Any]]:
    """Yields every setting of every parameter group, by the group's number and its own name."""
    for number, group in enumerate(optimizer.param_groups):
        for key, value in group.items():
            if key != "params":
                yield f"{number}.{key}", value
