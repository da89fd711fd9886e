"""What a real thing is: a program that trains, made from a seed, and where it can run."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """A model, its optimizer, and what a loop does with them."""

    model: nn.Module
    """As it is given to the manager, wrappers included."""
    optimizer: Any
    loss: Callable[[], torch.Tensor]
    """Draws a batch from the global generator and gives the loss of it."""
    step: Callable[["Program", int], torch.Tensor] = field(default=lambda p, _: plain_step(p))
    """Makes the training step of that number and gives its loss."""
    scheduler: Any = None
    extra: Callable[[], dict[str, Any]] = dict
    """What the loop gives to ``save`` as ``extra``."""
    take_extra: Callable[[Mapping[str, Any]], None] = field(default=lambda _: None)
    """Takes back what ``load`` returned of it."""
    watched: Callable[[], Any] | None = None
    """What of the optimizer is compared; None for its ``state_dict()``."""
    on_resume: Callable[[int], None] = field(default=lambda _: None)
    """What the loop does before it loads a checkpoint of that step."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Thing:
    """Something that people train with."""

    build: Callable[[], Program]
    """Draws its weights from the global generator, seeded alike on every rank."""
    ranks: int = 1
    needs: tuple[str, ...] = ()
    """Packages outside of the project's own."""


def plain_step(program: Program) -> torch.Tensor:
    """Gradients of one batch, one step of the optimizer and of the scheduler."""
    program.optimizer.zero_grad()
    loss = program.loss()
    loss.backward()  # type: ignore[no-untyped-call]
    program.optimizer.step()
    if program.scheduler is not None:
        program.scheduler.step()
    return loss


def closure_step(program: Program) -> torch.Tensor:
    """As for optimizers that ask for the loss more than once."""

    def closure() -> torch.Tensor:
        program.optimizer.zero_grad()
        loss = program.loss()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    found: torch.Tensor = program.optimizer.step(closure)
    return found
