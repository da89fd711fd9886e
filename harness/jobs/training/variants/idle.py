"""A branch in the MLP of each block that only every fourth step uses, like an absent modality.

In the other steps its parameters have no gradient, and the optimizer leaves them alone: they have
no state before their first step, and then count fewer steps than the rest. All ranks use the branch
at the same steps, because they reduce its gradients together.
"""

from __future__ import annotations

from torch import Tensor, nn

from harness.jobs.training.variants.variant import Variant, blocks_of
from harness.scenario.training import Model

_EVERY = 4


class Idle(nn.Module):
    """A linear layer with another one beside it, which is not always used."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base = base
        self.side = nn.Linear(base.in_features, base.out_features, bias=False)
        self.is_used = False

    def forward(self, hidden: Tensor) -> Tensor:
        """Returns the sum of both, or the first alone."""
        answer: Tensor = self.base(hidden)
        return answer + self.side(hidden) if self.is_used else answer


def _change(model: nn.Module, settings: Model) -> None:  # noqa: ARG001
    for block in blocks_of(model):
        base = block.get_submodule("up")
        assert isinstance(base, nn.Linear), "it is linear in every block"
        block.register_module("up", Idle(base))


def _before_step(model: nn.Module, step: int) -> None:
    for module in model.modules():
        if isinstance(module, Idle):
            module.is_used = step % _EVERY == 0


VARIANT = Variant(change=_change, before_step=_before_step)
