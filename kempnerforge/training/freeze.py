"""Freezing and unfreezing parameters by name, before and in the middle of training.

The flag is set on the parameters that the model registers. With FSDP2 these are the sharded
parameters; ``fully_shard`` copies the flag to the gathered ones at the next forward pass, so a
change takes effect from the next step on, on models sharded before or after it. Names are matched
without the prefixes that ``torch.compile`` and activation checkpointing insert.
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
    """Set ``requires_grad`` of every parameter whose name matches one of ``patterns``.

    A parameter that becomes frozen loses its gradient, so that an optimizer does not move it once
    more. Not collective; every rank calls it alike.

    Args:
        model: The model, plain or sharded.
        patterns: ``fnmatch`` patterns of full parameter names, case sensitive.
        frozen: The state that the parameters get.

    Returns:
        Number of elements whose state changed, in terms of whole (unsharded) parameters.
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
    """Apply ``specs`` in order; a later spec of the same module wins.

    A module of which this rank's model has no parameter (another pipeline stage has them) counts 0.

    Args:
        model: The model, plain or sharded.
        specs: What to freeze or unfreeze.
        pattern_map: Alias of a module to the patterns of its parameter names. A module that is no
            alias is itself an ``fnmatch`` pattern of parameter names.

    Returns:
        Elements whose state changed, by module.
    """
    changed: dict[str, int] = {}
    for spec in specs:
        patterns = pattern_map.get(spec.module, (spec.module,))
        if spec.module not in pattern_map and not _matching(model, patterns):
            logger.warning(
                "%s is no alias (known: %s), and as a pattern it matches no parameter on this rank",
                spec.module,
                ", ".join(sorted(pattern_map)),
            )
        count = freeze_params(model, patterns, frozen=spec.frozen)
        changed[spec.module] = changed.get(spec.module, 0) + count
        logger.info("module %s: frozen=%s, %d elements changed", spec.module, spec.frozen, count)
    return changed


def canonical_freeze_meta(specs: Iterable[FreezeSpec]) -> list[dict[str, Any]]:
    """The form in which a checkpoint records the freeze state: sorted, one entry a module.

    Where ``specs`` names a module twice, the last one counts.
    """
    last = {spec.module: spec.frozen for spec in specs}
    return [{"module": module, "frozen": last[module]} for module in sorted(last)]


def effective_freeze(
    step: int,
    base: Iterable[FreezeSpec],
    schedule: Iterable[FreezeStage],
    valid_modules: Iterable[str] | None = None,
) -> list[FreezeSpec]:
    """The freeze state in force at ``step``: the base, then every stage that has begun.

    The last write to a module wins; modules come in the order in which they are first named.

    Args:
        step: Training step; a stage is in force from its ``start_step`` on.
        base: Specs in force from the beginning.
        schedule: Later stages, in any order.
        valid_modules: Where given, the only module names allowed in what is in force.

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
