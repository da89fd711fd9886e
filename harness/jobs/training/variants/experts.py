"""Experts in the MLP of each block, as expert parallelism leaves them: each rank has its own.

They are plain parameters with one name on all ranks and different values on each, because their
gradients are not shared: an expert learns from the samples of its rank. The router belongs to all
ranks, like every other parameter. Tokens stay on their rank; sending them to other ranks' experts
would not change what a checkpoint must hold.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from harness.jobs.training.variants.variant import Origin, Variant, blocks_of
from harness.scenario.training import Model

_EXPERTS = 2
_SPREAD = 0.08


class LocalExperts(nn.Module):
    """The experts of this rank, all of which see every token."""

    def __init__(self, dim: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(_EXPERTS, dim, width))

    def forward(self, hidden: Tensor, gates: Tensor) -> Tensor:
        """Returns the experts' outputs, weighted by the gates of each token."""
        answers = torch.einsum("...d,edw->...ew", hidden, self.weight.to(hidden.dtype))
        return (answers * gates.unsqueeze(-1)).sum(-2)


class ExpertLayer(nn.Module):
    """A router and the experts that it weighs."""

    def __init__(self, dim: int, width: int) -> None:
        super().__init__()
        self.router = nn.Linear(dim, _EXPERTS, bias=False)
        self.experts = LocalExperts(dim, width)

    def forward(self, hidden: Tensor) -> Tensor:
        """Maps width `dim` to the inner width of the MLP."""
        gates: Tensor = self.router(hidden).softmax(-1)
        answer: Tensor = self.experts(hidden, gates)
        return answer


def rank_local(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Yields the parameters that are local to each rank, by name."""
    for path, module in model.named_modules():
        if isinstance(module, LocalExperts):
            yield f"{path}.weight", module.weight


def _change(model: nn.Module, settings: Model) -> None:
    for block in blocks_of(model):
        block.register_module("up", ExpertLayer(settings.dim, 2 * settings.dim))


@torch.no_grad()
def _begin(model: nn.Module, origin: Origin) -> None:
    for name, param in rank_local(model):
        text = f"{origin.seed} {origin.rank} {name}"
        digest = hashlib.blake2b(text.encode(), digest_size=7).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest, "big"))
        param.copy_(torch.randn(param.shape, generator=generator) * _SPREAD)


VARIANT = Variant(change=_change, begin=_begin)
