"""Programs that lose something when they resume, by which the comparison is tried itself."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from tests.world.models import squares
from tests.world.thing import Program, Thing


def _that(spoils: Callable[[Any, Any], Any]) -> Thing:
    """A program that does this once it has loaded a checkpoint."""

    def build() -> Program:
        model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)

        def spoil(_: Mapping[str, Any]) -> None:
            with torch.no_grad():
                spoils(model, optimizer)

        return Program(
            model=model, optimizer=optimizer, loss=squares(model, 3, 4), take_extra=spoil
        )

    return Thing(build=build)


def _first_moments(model: nn.Module, optimizer: torch.optim.Optimizer) -> Any:
    return optimizer.state[next(model.parameters())]


def _move_a_weight(model: nn.Module, _: Any) -> None:
    weight = next(model.parameters()).view(-1)
    weight[:1] = torch.nextafter(weight[:1], torch.tensor(10.0))


FORGETFUL = {
    "a weight moves by the last bit": (_that(_move_a_weight), "model.'0.weight'"),
    "a moment is another one's": (
        _that(
            lambda m, o: _first_moments(m, o)["exp_avg"].copy_(_first_moments(m, o)["exp_avg_sq"])
        ),
        "optimizer.'state'.0.'exp_avg'",
    ),
    "a moment has other strides": (
        _that(
            lambda m, o: _first_moments(m, o).update(
                exp_avg=_first_moments(m, o)["exp_avg"].t().contiguous().t()
            )
        ),
        "optimizer.'state'.0.'exp_avg'",
    ),
    "the moments are gone": (_that(lambda m, o: o.state.clear()), "optimizer.'state'"),
    "a learning rate is the default": (
        _that(lambda m, o: o.param_groups[0].update(lr=0.001)),
        "optimizer.'param_groups'[0].'lr'",
    ),
    "a number is drawn": (_that(lambda m, o: torch.rand(())), "rng[0]"),
    "a buffer is as built": (
        _that(lambda m, o: m[1].running_mean.zero_()),
        "model.'1.running_mean'",
    ),
}
"""With the name of the first state that differs."""
