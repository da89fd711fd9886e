"""Muon for the matrices and AdamW for the rest, in a chain, as in training frameworks.

torch's Muon takes only parameters with two dimensions. From outside, the chain is one optimizer:
its groups and its state are those of both, created on request. It saves a list with an entry for
each.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from torch.optim import AdamW, Muon, Optimizer

from harness.jobs.training.optimizers.around import Around
from harness.jobs.training.optimizers.groups import (
    WEIGHT_DECAY,
    Groups,
    part_matrices,
)


class Chain(Around):
    """Several optimizers, one after the other."""

    def __init__(self, links: list[Optimizer]) -> None:
        super().__init__()
        self.links = links
        self.defaults: dict[str, Any] = {}

    @property
    def param_groups(self) -> list[dict[str, Any]]:  # type: ignore[override]
        """Returns those of all links."""
        return [group for link in self.links for group in link.param_groups]

    @property
    def state(self) -> Any:  # type: ignore[override]
        """Returns that of all links, in a new mapping."""
        found = [item for link in self.links for item in link.state.items()]
        return defaultdict(dict, found)

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Step each link."""
        del closure
        for link in self.links:
            link.step()

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Clear each link's gradients."""
        for link in self.links:
            link.zero_grad(set_to_none)

    def state_dict(self) -> dict[str, Any]:
        """Returns an entry for each link."""
        states = [link.state_dict() for link in self.links]
        return {
            "state": [one["state"] for one in states],
            "param_groups": [one["param_groups"] for one in states],
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load each link's entry."""
        pairs = zip(state_dict["state"], state_dict["param_groups"], strict=True)
        for link, (state, groups) in zip(self.links, pairs, strict=True):
            link.load_state_dict({"state": state, "param_groups": groups})


def build(groups: Groups, rate: float) -> Optimizer:
    """Returns the chain of both, or of one if the other has no parameters."""
    parted = part_matrices(groups)
    links: list[Optimizer] = []
    if parted.matrices:
        lists = [{"params": list(group)} for group in parted.matrices]
        links.append(Muon(lists, lr=rate, weight_decay=WEIGHT_DECAY))
    if parted.rest:
        lists = [{"params": list(group)} for group in parted.rest]
        links.append(AdamW(lists, lr=rate, weight_decay=WEIGHT_DECAY, fused=True))
    return Chain(links)
