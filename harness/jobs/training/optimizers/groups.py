"""The parameter groups of an optimizer of the job, with their settings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn
from torch.optim import Optimizer

WEIGHT_DECAY = 0.01

Groups = tuple[tuple[nn.Parameter, ...], ...]
"""Parameters that one call can take together; two groups can differ in kind."""


Build = Callable[[Groups, float], Optimizer]
"""Takes the groups and the learning rate."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parted:
    """Groups split in two, each group in its order; empty groups are left out."""

    matrices: Groups
    rest: Groups


def part_matrices(groups: Groups) -> Parted:
    """Splits the parameters with two dimensions from the others."""
    matrices = [tuple(one for one in group if one.dim() == 2) for group in groups]
    rest = [tuple(one for one in group if one.dim() != 2) for group in groups]
    return Parted(
        matrices=tuple(group for group in matrices if group),
        rest=tuple(group for group in rest if group),
    )
