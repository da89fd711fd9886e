"""Muon over the matrices and AdamW over the rest, in a chain, as training frameworks have them.

torch's Muon takes parameters of two dimensions only. The chain is an optimizer to whoever asks: its
groups and its state are those of both, made when they are asked for. What it saves is a list with
an entry for each.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from torch.optim import AdamW, Muon, Optimizer

from harness.jobs.training.optimizers.around import Around
from harness.jobs.training.optimizers.groups import (
    LEARNING_RATE,
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
        """Those of all links."""
        return [group for link in self.links for group in link.param_groups]

    @property
    def state(self) -> Any:  # type: ignore[override]
        """That of all links, in a mapping of its own."""
        found = [item for link in self.links for item in link.state.items()]
        return defaultdict(dict, found)

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Each link steps."""
        del closure
        for link in self.links:
            link.step()

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Each link forgets the gradients."""
        for link in self.links:
            link.zero_grad(set_to_none)

    def state_dict(self) -> dict[str, Any]:
        """An entry for each link."""
        described = [link.state_dict() for link in self.links]
        return {
            "state": [one["state"] for one in described],
            "param_groups": [one["param_groups"] for one in described],
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Each link takes its entry."""
        pairs = zip(state_dict["state"], state_dict["param_groups"], strict=True)
        for link, (state, groups) in zip(self.links, pairs, strict=True):
            link.load_state_dict({"state": state, "param_groups": groups})


def build(groups: Groups) -> Optimizer:
    """The chain of both; of one where there is nothing for the other."""
    parted = part_matrices(groups)
    links: list[Optimizer] = []
    if parted.matrices:
        lists = [{"params": list(group)} for group in parted.matrices]
        links.append(Muon(lists, lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY))
    if parted.rest:
        lists = [{"params": list(group)} for group in parted.rest]
        links.append(AdamW(lists, lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY, fused=True))
    return Chain(links)
