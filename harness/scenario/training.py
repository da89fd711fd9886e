"""The training: the network, its schedule, its data."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from harness.part import Part
from harness.words import VARIANTS


class Model(Part):
    """A small but real network; `tiny_vlm` has a vision encoder, an adapter and a transformer."""

    preset: Literal["tiny_transformer", "tiny_vlm"] = "tiny_transformer"
    variant: Literal[VARIANTS] = Field(  # type: ignore[valid-type]
        "plain", description="a deviation from the plain model, such as experts local to each rank"
    )
    layers: int = Field(2, ge=1, description="transformer blocks")
    dim: int = Field(32, ge=8, multiple_of=8, description="width")
    heads: int = Field(2, ge=1)
    dropout: float = Field(0.1, ge=0.0, lt=1.0)
    precision: Literal["float32", "bf16_mixed"] = Field(
        "float32", description="bf16_mixed: FSDP2's mixed precision, or autocast without FSDP2"
    )
    recompute: bool = Field(
        default=False, description="activation checkpointing: blocks run again in the backward pass"
    )
    compile: bool = Field(
        default=False, description="blocks go through torch.compile, with the backend `eager`"
    )


class Wrapping(Part):
    """A run's changes to the wrappers around the blocks; the others stay."""

    recompute: bool | None = None
    compile: bool | None = None

    def of(self, model: Model) -> Model:
        """Returns the model with these wrappers."""
        return model.model_copy(update=self.model_dump(exclude_none=True))


class Scheduler(Part):
    """Learning-rate schedule, stepped once per training step."""

    kind: Literal["cosine", "annealing", "one_cycle"] = Field(
        "cosine",
        description="cosine: a function of the step, with a warm-up; annealing: torch's "
        "CosineAnnealingLR, which keeps its settings in its state; one_cycle: torch's OneCycleLR, "
        "which keeps some in the parameter groups and moves the momentum as well",
    )
    built: Literal["before_load", "after_load"] = Field(
        "before_load",
        description="after_load: on the loaded optimizer, from the number of its updates",
    )
    warmup_steps: int = Field(2, ge=0, description="of `cosine`")
    total_steps: int | None = Field(
        None, ge=1, description="where the rate is lowest; default: the last step of the scenario"
    )


class Accumulation(Part):
    """The number of batches whose gradients the optimizer takes together.

    Together they are one training step, so that no save falls between them. With `save_between`
    each batch is a step of its own, and the loop passes the gradients so far to each save as extra
    values.
    """

    batches: int = Field(1, ge=1, le=8)
    save_between: bool = False

    @property
    def in_a_step(self) -> int:
        """The number of batches in a training step."""
        return 1 if self.save_between else self.batches

    def closes(self, step: int) -> bool:
        """Whether the optimizer takes the gradients after this step."""
        return not self.save_between or step % self.batches == 0

    def updates_after(self, step: int) -> int:
        """Returns how often the optimizer has taken gradients after this step."""
        return step // self.batches if self.save_between else step


class Evaluating(Part):
    """When the loop evaluates: after every so many steps, and after the last step of a run."""

    interval: int = Field(2, ge=1, description="training steps between evaluations")

    def is_due(self, step: int, last: int) -> bool:
        """Whether an evaluation follows a step, where `last` is the last of the run."""
        return step % self.interval == 0 or step == last


class Data(Part):
    """The training data: windows of real bytes, shuffled anew each epoch."""

    corpus: Literal["builtin"] = "builtin"
    samples: int = Field(48, ge=1, description="samples in one epoch, over all ranks")
    seq_len: int = Field(16, ge=4, description="bytes per sample")
    batch_size: int = Field(4, ge=1, description="samples a data-parallel rank takes in one step")
    num_workers: int = Field(0, ge=0, le=4, description="loader processes of each rank")
    generator: Literal["own", "global"] = Field(
        "own", description="source of the loader's seed for an epoch; global: torch's default"
    )
    redistributes: bool = Field(
        default=False,
        description="the loader can resume positions saved with another degree, "
        "batch size or number of workers",
    )

    def dealt_to(self, degree: int, *, before: int) -> Data:
        """Returns the same data for another data-parallel degree, with as many samples per step."""
        if not self.redistributes:
            return self
        return self.model_copy(update={"batch_size": self.batch_size * before // degree})


class Batching(Part):
    """A run's changes to how the data is read; the samples stay."""

    batch_size: int | None = Field(None, ge=1)
    num_workers: int | None = Field(None, ge=0, le=4)

    def of(self, data: Data) -> Data:
        """Returns the data, read in this way."""
        return data.model_copy(update=self.model_dump(exclude_none=True))
