"""The base of optimizers that hold others and have no groups of their own."""

from __future__ import annotations

from collections import OrderedDict

from torch.optim import Optimizer

_HOOKS = (
    "_optimizer_step_pre_hooks",
    "_optimizer_step_post_hooks",
    "_optimizer_state_dict_pre_hooks",
    "_optimizer_state_dict_post_hooks",
    "_optimizer_load_state_dict_pre_hooks",
    "_optimizer_load_state_dict_post_hooks",
)


class Around(Optimizer):
    """An optimizer to whoever asks, as a schedule does; its groups are those of others."""

    def __init__(self) -> None:
        # Not that of the base class, which makes groups and a state. Only its hooks are needed.
        for name in _HOOKS:
            setattr(self, name, OrderedDict())
