"""The names that parameters have in the plain model, whatever wraps it.

A wrapper adds a prefix to the names of what it wraps: ``_orig_mod.`` (torch.compile), ``module.``
(DistributedDataParallel, DataParallel), ``_checkpoint_wrapped_module.`` (activation checkpointing),
``_fsdp_wrapped_module.`` (FSDP1). These prefixes are removed, at any depth and in any order, so a
resumed run can use other wrappers. A module that is merely called ``module`` keeps its name. An
averaged model is not such a wrapper, because it has state of its own.
"""

import sys
from functools import lru_cache

from torch import nn

__all__ = ["plain_name", "unwrapped"]

# Named and not imported: importing the first of these takes a second, and a model cannot be wrapped
# in a class that was never imported.
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
    """Removes the outermost wrappers, except FSDP1, which alone can produce its state dict."""
    while (name := _held_as(model)) not in (None, "_fsdp_wrapped_module"):
        model = getattr(model, str(name))
    return model


def plain_name(model: nn.Module, name: str) -> str:
    """Returns the name of a parameter or buffer without the prefixes of wrappers.

    Args:
        model: The module that ``name`` is relative to.
        name: The name in ``named_parameters`` or ``state_dict``.
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
            at = getattr(at, str(held_as))  # this wrapper adds no prefix
        if part != held_as:
            kept.append(part)
        at = getattr(at, part, None)
    return ".".join(kept)


def _has_own(module: object, name: str) -> bool:
    return isinstance(module, nn.Module) and (
        name in module._modules or name in module._parameters or name in module._buffers
    )


def _held_as(module: object) -> str | None:
    """Returns the attribute under which a wrapper holds its module; None if it is not a wrapper."""
    if isinstance(module, nn.Module):
        for where, name, held_as in _WRAPPERS:
            kind = getattr(sys.modules.get(where), name, None)
            if kind is not None and isinstance(module, kind):
                return held_as
    return None
