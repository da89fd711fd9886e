"""The optimizers of the job, by the words of the language (`harness.words.OPTIMIZERS`).

Each is a module of this package with a function `build`. An optimizer that holds others tells them
as `inner`, a mapping of labels, so that digests see what is theirs.
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


def build_optimizer(name: str, groups: Groups) -> Optimizer:
    """The optimizer of that name over groups of parameters."""
    return OPTIMIZERS[name](groups)


def moments_of(optimizer: Optimizer, param: nn.Parameter) -> Iterator[tuple[str, Any]]:
    """All that an optimizer and those inside of it hold for a parameter, by distinct labels."""
    yield from optimizer.state.get(param, {}).items()
    inner: dict[str, Optimizer] = getattr(optimizer, "inner", {})
    for label, one in inner.items():
        for key, value in one.state.get(param, {}).items():
            yield label + key, value
