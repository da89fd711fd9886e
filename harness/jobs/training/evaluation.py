"""The evaluation of the training loop: held-out samples, in evaluation mode, without gradients.

It comes before the save of the same step, as in Lightning and the Trainer of transformers, where a
save can depend on its result: so the model is still in evaluation mode when the manager is called,
and goes back to training mode before the next step. It seeds the generators with its own seed and
gives them back, as evaluations do whose results are to be compared with each other; it reads no
sample of the training and leaves no gradient.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch.distributed.fsdp import FSDPModule

from harness.evidence.record import Evaluated
from harness.jobs.training.build import Rig, seed_rank
from harness.jobs.training.data import held_out
from harness.jobs.training.generators import get_generators, set_generators
from harness.jobs.training.inputs import prepare
from harness.plan.model import Workload


class Evaluation:
    """Evaluates after some steps, if the scenario asks for it."""

    def __init__(self, rig: Rig, workload: Workload) -> None:
        self._rig, self._workload, self._ran = rig, workload, False

    def is_due(self, step: int, last: int) -> bool:
        """Whether to evaluate after a step."""
        settings = self._workload.evaluation
        return settings is not None and settings.is_due(step, last)

    def run(self, step: int) -> None:
        """Compute the loss on held-out samples; leaves the model in evaluation mode."""
        rig, self._ran = self._rig, True
        with rig.event_log.during("evaluate"), _own_generators(self._workload.seed, rig):
            rig.model.eval()
            rig.interruptions.enter("evaluation", step)
            batch = held_out(self._workload.data, rank=rig.place.data_rank)
            inputs, targets = prepare(batch, rig.settings, rig.place)
            loss = rig.forward_backward.evaluate(inputs, targets)
            for module in rig.model.modules():
                if isinstance(module, FSDPModule):
                    module.reshard()
            rig.event_log.record(
                Evaluated(step=step, loss=None if loss is None else float(loss).hex())
            )

    def end(self) -> None:
        """Go back to training mode after an evaluation."""
        if self._ran:
            self._rig.model.train()
        self._ran = False


@contextmanager
def _own_generators(seed: int, rig: Rig) -> Iterator[None]:
    """Seed all generators of this rank, and give them back as they were."""
    before = get_generators()
    seed_rank(seed, rig.place.stream)
    yield
    set_generators(before)
