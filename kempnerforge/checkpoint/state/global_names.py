"""The names that parameters have in the plain model, whatever it is wrapped in.

A wrapper puts a name of its own in front of what it holds: ``_orig_mod.`` (torch.compile),
``module.`` (DistributedDataParallel, DataParallel), ``_checkpoint_wrapped_module.`` (activation
checkpointing), ``_fsdp_wrapped_module.`` (the first FSDP). Those are left out, at any place and in
any order, so that one run may change them. A module that is merely called ``module`` keeps its
name. An averaged model is no such wrapper: it has state of its own.
"""

import sys
from functools import lru_cache

from torch import nn

__all__ = ["plain_name", "unwrapped"]

# By where the class is defined: a model cannot be wrapped in what was never imported, and importing
# the first of these takes a second.
_WRAPPERS = (
    ("torch._dynamo.eval_frame", "OptimizedModule", "_orig_mod"),
    ("torch.nn.parallel.distributed", "DistributedDataParallel", "module"),
    ("torch.nn.parallel.data_parallel", "DataParallel", "module"),
    (
        "torch.distributed.algorithms._checkpoint.checkpoint_wrapper",
        "ActivationWrapper",
        "_checkpoint_wrapped_module",
    ),
    (
        "torch.distributed.fsdp.fully_sharded_data_parallel",
        "FullyShardedDataParallel",
        "_fsdp_wrapped_module",
    ),
)
_HELD_AS = frozenset(held_as for _, _, held_as in _WRAPPERS)


def unwrapped(model: nn.Module) -> nn.Module:
    """The model within its outermost wrappers, but for FSDP, whose state only it can tell."""
    while (name := _held_as(model)) not in (None, "_fsdp_wrapped_module"):
        model = getattr(model, str(name))
    return model


def plain_name(model: nn.Module, name: str) -> str:
    """Name of a parameter or buffer without the names of wrappers.

    Args:
        model: The module that ``name`` starts from.
        name: As ``named_parameters`` or ``state_dict`` has it.
    """
    return _without_wrappers(model, name) if _may_be_wrapped(name) else name


@lru_cache(maxsize=1 << 16)
def _may_be_wrapped(name: str) -> bool:
    return not _HELD_AS.isdisjoint(name.split("."))


def _without_wrappers(model: nn.Module, name: str) -> str:
    kept = []
    at: object = model
    for part in name.split("."):
        while (held_as := _held_as(at)) not in (None, part) and not _has_own(at, part):
            at = getattr(at, str(held_as))  # it does not show itself in names
        if part != held_as:
            kept.append(part)
        at = getattr(at, part, None)
    return ".".join(kept)


def _has_own(module: object, name: str) -> bool:
    return isinstance(module, nn.Module) and (
        name in module._modules or name in module._parameters or name in module._buffers
    )


def _held_as(module: object) -> str | None:
    """The name under which a wrapper holds what it wraps; None for what is no wrapper."""
    if isinstance(module, nn.Module):
        for where, name, held_as in _WRAPPERS:
            kind = getattr(sys.modules.get(where), name, None)
            if kind is not None and isinstance(module, kind):
                return held_as
    return None
