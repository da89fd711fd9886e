"""Passes through the whole model, or through this rank's parts in a schedule."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.distributed.pipelining import (
    PipelineStage,
    Schedule1F1B,
    ScheduleGPipe,
    ScheduleInterleaved1F1B,
)

from harness.jobs.training.models import (
    IMAGE_SIDE,
    VOCABULARY,
    ModelPart,
    text_loss,
    visible_length,
)
from harness.jobs.training.parallel import Place
from harness.plan.model import Workload

_MICROBATCHES = 2
"""Of GPipe. The other schedules need at least as many as there are stages."""


class Pass(Protocol):
    """One pass over a batch."""

    def run(self, inputs: tuple[Tensor, ...], targets: Tensor) -> Tensor | None:
        """Computes gradients; returns the loss, or None on a stage that has none."""

    def evaluate(self, inputs: tuple[Tensor, ...], targets: Tensor) -> Tensor | None:
        """Returns the loss alone."""


class WholePass:
    """The whole model on every rank."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model

    def run(self, inputs: tuple[Tensor, ...], targets: Tensor) -> Tensor:
        """Forward, loss, backward."""
        loss = text_loss(self._model(*inputs), targets)
        torch.autograd.backward(loss)
        return loss.detach()

    @torch.no_grad()
    def evaluate(self, inputs: tuple[Tensor, ...], targets: Tensor) -> Tensor:
        """Forward and loss."""
        return text_loss(self._model(*inputs), targets)


class PipelinePass:
    """The parts of one rank in a pipeline schedule."""

    def __init__(self, pieces: tuple[nn.Module, ...], place: Place, workload: Workload) -> None:
        count = microbatches(workload)
        rows = workload.data.batch_size // count
        parts = place.parts(workload.model.layers)
        stages: list[Any] = [
            _stage(
                piece, place.stage + number * place.world.pp, place, _example(workload, part, rows)
            )
            for number, (piece, part) in enumerate(zip(pieces, parts, strict=True))
        ]
        self._first, self._last = place.is_first, place.is_last
        self._schedule: Any
        if place.world.schedule == "interleaved":
            self._schedule = ScheduleInterleaved1F1B(stages, count, loss_fn=text_loss)
        else:
            kind = Schedule1F1B if place.world.schedule == "1f1b" else ScheduleGPipe
            self._schedule = kind(stages[0], count, loss_fn=text_loss)

    def run(self, inputs: tuple[Tensor, ...], targets: Tensor) -> Tensor | None:
        """Run the schedule forward and backward."""
        return self._go(self._schedule.step, inputs, targets)

    @torch.no_grad()
    def evaluate(self, inputs: tuple[Tensor, ...], targets: Tensor) -> Tensor | None:
        """Run the schedule forward."""
        return self._go(self._schedule.eval, inputs, targets)

    def _go(
        self, through: Callable[..., Any], inputs: tuple[Tensor, ...], targets: Tensor
    ) -> Tensor | None:
        """Only the first stage reads the inputs and only the last the targets."""
        given = inputs if self._first else ()
        if not self._last:
            through(*given, return_outputs=False)
            return None
        losses: list[Tensor] = []
        through(*given, target=targets, losses=losses, return_outputs=False)
        return torch.stack([loss.detach() for loss in losses]).mean()


def microbatches(workload: Workload) -> int:
    """Returns into how many equal parts a batch is split for the stages."""
    world, batch = workload.world, workload.data.batch_size
    wanted = _MICROBATCHES if world.schedule == "gpipe" else max(_MICROBATCHES, world.pp)
    return wanted if batch % wanted == 0 else 1


Example = tuple[tuple[Tensor, ...], tuple[Tensor, ...]]


def _stage(piece: nn.Module, number: int, place: Place, example: Example) -> PipelineStage:
    assert place.stages is not None
    given, produced = example
    return PipelineStage(
        piece,
        number,
        place.world.pp * place.world.chunks,
        place.device,
        input_args=given,
        output_args=produced,
        group=place.stages.get_group(),
    )


def _example(workload: Workload, part: ModelPart, rows: int) -> Example:
    """Returns the shapes of a part's input and output, on the meta device.

    Without them, a stage runs the model once more before the first step, and the dropout of that
    run draws random numbers that the uninterrupted run does not draw again.
    """
    model, data = workload.model, workload.data
    length = visible_length(model, data)
    # FSDP2's mixed precision passes bfloat16 from block to block, autocast passes float32.
    low = model.precision == "bf16_mixed" and workload.world.is_sharded
    kind = torch.bfloat16 if low else torch.float32
    given: dict[str, Any] = {"device": "meta", "dtype": kind, "requires_grad": True}
    hidden = torch.empty(rows, length, model.dim, **given)
    logits = torch.empty(rows * data.seq_len, VOCABULARY, **given)
    tokens = torch.empty(rows, data.seq_len, dtype=torch.int64, device="meta")
    images = torch.empty(rows, IMAGE_SIDE, IMAGE_SIDE, device="meta")
    first = (tokens, images) if model.preset == "tiny_vlm" else (tokens,)
    return first if part.first else (hidden,), (logits if part.last else hidden,)
