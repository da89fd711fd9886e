"""Defines what a variant changes in a model, and when."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from torch import nn

from harness.scenario.training import Model


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """The origin of first values: the seed, and the rank among those of its stage."""

    seed: int
    rank: int


def nothing_to_change(model: nn.Module, settings: Model) -> None:
    """Keep the modules as they are."""


def nothing_to_begin(model: nn.Module, origin: Origin) -> None:
    """Keep the first values as they are."""


def nothing_before_a_step(model: nn.Module, step: int) -> None:
    """Train alike in every step."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """`change` gets the modules before they have values, `begin` afterwards.

    `before_step` gets the parallelized model before each step, and the step's number.
    """

    change: Callable[[nn.Module, Model], None] = nothing_to_change
    begin: Callable[[nn.Module, Origin], None] = nothing_to_begin
    before_step: Callable[[nn.Module, int], None] = nothing_before_a_step


PLAIN = Variant()


def blocks_of(model: nn.Module) -> Iterator[nn.Module]:
    """Yields the transformer blocks that this rank holds."""
    return model.get_submodule("transformer.blocks").children()
