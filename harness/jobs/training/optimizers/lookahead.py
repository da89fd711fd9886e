"""Lookahead around AdamW, as in timm.

Every second step the weights go half of the way back to slow weights, which follow. The slow
weights are in the state of the inner optimizer, and the outer one's state is empty: only
`state_dict()` contains them. The number of steps is a setting of each group.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import torch
from torch.optim import Optimizer

from harness.jobs.training.optimizers import adamw
from harness.jobs.training.optimizers.around import Around
from harness.jobs.training.optimizers.groups import Groups

_EVERY = 2
_ALPHA = 0.5


class Lookahead(Around):
    """Steps as the inner optimizer does, and looks back every second step."""

    def __init__(self, base: Optimizer) -> None:
        super().__init__()
        self.base = base
        self.inner = {"inner_": base}
        self.defaults = base.defaults
        self.param_groups = base.param_groups
        self.state = defaultdict(dict)
        for group in self.param_groups:
            group.setdefault("lookahead_step", 0)

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Do the inner step; after every second one the slow weights follow."""
        del closure
        self.base.step()
        for group in self.param_groups:
            group["lookahead_step"] += 1
            if group["lookahead_step"] % _EVERY == 0:
                self._look_back(group["params"])

    def _look_back(self, params: list[torch.Tensor]) -> None:
        for param in params:
            state = self.base.state[param]
            if not state:  # without a gradient so far
                continue
            if "slow" not in state:
                state["slow"] = param.detach().clone()
            state["slow"].add_(param - state["slow"], alpha=_ALPHA)
            param.copy_(state["slow"])

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Clear the inner optimizer's gradients."""
        self.base.zero_grad(set_to_none)

    def state_dict(self) -> dict[str, Any]:
        """Returns that of the inner optimizer."""
        return self.base.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load into the inner optimizer, which gets new groups from it."""
        self.base.load_state_dict(state_dict)
        self.param_groups = self.base.param_groups


def build(groups: Groups, rate: float) -> Optimizer:
    """Returns Lookahead around AdamW over all groups."""
    return Lookahead(adamw.build(groups, rate))
