"""Freeze configuration of vision-language models: which modules are frozen from which step on."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

__all__ = ["FreezeSpec", "FreezeStage", "VLMConfig"]


# Characters that occur in patterns of full parameter names but not in aliases.
_PATTERN = re.compile(r"[.*?[]")


def _default_module_patterns() -> dict[str, list[str]]:
    return {
        "transformer": ["transformer.*"],
        "vision_encoder": ["vision_encoder.*"],
        "adapter": ["adapter.*"],
    }


@dataclass(frozen=True)
class FreezeSpec:
    """A module, given by alias or parameter-name pattern, and whether its parameters are frozen."""

    module: str
    frozen: bool = True


@dataclass(frozen=True)
class FreezeStage:
    """Specs that take effect at ``start_step`` and stay until a later stage overrides them."""

    start_step: int
    specs: Sequence[FreezeSpec] = ()

    def __post_init__(self) -> None:
        if self.start_step < 0:
            raise ValueError(f"start_step must not be negative, found {self.start_step}")
        object.__setattr__(self, "specs", tuple(self.specs))


@dataclass
class VLMConfig:
    """Initial freeze settings, their schedule, and the patterns that aliases stand for."""

    freeze: list[FreezeSpec] = field(default_factory=list)
    """Specs in effect from step 0 on."""

    freeze_schedule: list[FreezeStage] = field(default_factory=list)
    """Later changes, with strictly increasing ``start_step``."""

    module_patterns: dict[str, list[str]] = field(default_factory=_default_module_patterns)
    """Maps a module's alias to the ``fnmatch`` patterns of its parameter names."""

    def __post_init__(self) -> None:
        self._check_order()
        specs = [*self.freeze, *(spec for stage in self.freeze_schedule for spec in stage.specs)]
        names = {spec.module for spec in specs if not _PATTERN.search(spec.module)}
        unknown = sorted(names - set(self.module_patterns))
        if unknown:
            known = ", ".join(sorted(self.module_patterns))
            raise ValueError(f"freeze names unknown modules {unknown}; known aliases: {known}")

    def _check_order(self) -> None:
        steps = [stage.start_step for stage in self.freeze_schedule]
        if any(later <= earlier for earlier, later in pairwise(steps)):
            raise ValueError(f"freeze_schedule needs strictly increasing start_step, found {steps}")
