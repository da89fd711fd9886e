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


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """`change` gets the modules before they have values, `begin` afterwards."""

    change: Callable[[nn.Module, Model], None] = nothing_to_change
    begin: Callable[[nn.Module, Origin], None] = nothing_to_begin


PLAIN = Variant()


def blocks_of(model: nn.Module) -> Iterator[nn.Module]:
    """Yields the transformer blocks that this rank holds."""
    return model.get_submodule("transformer.blocks").children()
