"""Freezes and unfreezes parameters by name, before or during training.

``requires_grad`` is set on the parameters that the model registers. With FSDP2 these are the
sharded parameters; ``fully_shard`` copies the flag to the gathered ones at the next forward pass,
so a change takes effect at the next step, whether the model was sharded before or after it. Names
are matched without the prefixes that ``torch.compile`` and activation checkpointing insert.
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from torch import nn

from kempnerforge.config.vlm import FreezeSpec, FreezeStage

__all__ = ["apply_freeze_specs", "canonical_freeze_meta", "effective_freeze", "freeze_params"]

logger = logging.getLogger(__name__)

_WRAPPER_PREFIXES = ("_orig_mod.", "_checkpoint_wrapped_module.")


def _plain_name(name: str) -> str:
    for prefix in _WRAPPER_PREFIXES:
        name = name.replace(prefix, "")
    return name


def freeze_params(model: nn.Module, patterns: Iterable[str], *, frozen: bool = True) -> int:
    """Sets ``requires_grad`` of every parameter whose name matches one of ``patterns``.

    A parameter that becomes frozen loses its gradient, so that the optimizer does not update it one
    more time. Not collective, but every rank must make the same call.

    Args:
        model: The model, plain or sharded.
        patterns: ``fnmatch`` patterns of full parameter names, case sensitive.
        frozen: True to freeze the parameters, False to unfreeze them.

    Returns:
        Number of elements whose state changed, counted in whole (unsharded) parameters.
    """
    flipped = 0
    for param in _matching(model, patterns):
        if param.requires_grad == (not frozen):
            continue
        param.requires_grad_(not frozen)
        if frozen:
            param.grad = None
        flipped += param.numel()
    return flipped


def _matching(model: nn.Module, patterns: Iterable[str]) -> list[nn.Parameter]:
    wanted = tuple(patterns)
    return [
        param
        for name, param in model.named_parameters()
        if any(fnmatchcase(_plain_name(name), pattern) for pattern in wanted)
    ]


def apply_freeze_specs(
    model: nn.Module, specs: Sequence[FreezeSpec], pattern_map: Mapping[str, Iterable[str]]
) -> dict[str, int]:
    """Applies ``specs`` in order; a later spec for the same module wins.

    A module whose parameters are all on other ranks (other pipeline stages) counts 0.

    Args:
        model: The model, plain or sharded.
        specs: What to freeze or unfreeze.
        pattern_map: Maps a module's alias to the patterns of its parameter names. A module that is
            not an alias is itself an ``fnmatch`` pattern of parameter names.

    Returns:
        Number of elements whose state changed, by module.
    """
    changed: dict[str, int] = {}
    for spec in specs:
        patterns = pattern_map.get(spec.module, (spec.module,))
        if spec.module not in pattern_map and not _matching(model, patterns):
            logger.warning(
                "%s is not an alias (known: %s), and matches no parameter on this rank",
                spec.module,
                ", ".join(sorted(pattern_map)),
            )
        count = freeze_params(model, patterns, frozen=spec.frozen)
        changed[spec.module] = changed.get(spec.module, 0) + count
        logger.info("module %s: frozen=%s, %d elements changed", spec.module, spec.frozen, count)
    return changed


def canonical_freeze_meta(specs: Iterable[FreezeSpec]) -> list[dict[str, Any]]:
    """Returns the freeze state as a checkpoint records it: sorted, one entry per module.

    If ``specs`` names a module twice, the last entry counts.
    """
    last = {spec.module: spec.frozen for spec in specs}
    return [{"module": module, "frozen": last[module]} for module in sorted(last)]


def effective_freeze(
    step: int,
    base: Iterable[FreezeSpec],
    schedule: Iterable[FreezeStage],
    valid_modules: Iterable[str] | None = None,
) -> list[FreezeSpec]:
    """Returns the freeze state in effect at ``step``: the base, then every stage that has begun.

    The last write to a module wins; modules come in the order in which they are first named.

    Args:
        step: Training step; a stage is in effect from its ``start_step`` on.
        base: Specs in effect from the beginning.
        schedule: Later stages, in any order.
        valid_modules: If given, the only module names allowed in the specs in effect.

    Raises:
        ValueError: A spec of ``base``, or of a stage that has begun, names an unknown module.
    """
    stages = sorted(schedule, key=lambda stage: stage.start_step)
    begun = (spec for stage in stages if stage.start_step <= step for spec in stage.specs)
    applying = (*base, *begun)
    if valid_modules is not None:
        _require_known((spec.module for spec in applying), tuple(valid_modules))
    state = {spec.module: spec.frozen for spec in applying}
    return [FreezeSpec(module, frozen) for module, frozen in state.items()]


def _require_known(modules: Iterable[str], known: Iterable[str]) -> None:
    allowed = sorted(known)
    unknown = sorted(set(modules) - set(allowed))
    if unknown:
        raise ValueError(f"unknown freeze modules {unknown}; known: {', '.join(allowed)}")
