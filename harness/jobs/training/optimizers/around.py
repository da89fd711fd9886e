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
    """An optimizer from outside, for a schedule say, whose groups are those of inner optimizers."""

    def __init__(self) -> None:
        # Not the base class's constructor, which creates groups and state: only its hooks are
        # needed.
        for name in _HOOKS:
            setattr(self, name, OrderedDict())
