"""Decides which modules are frozen at which step, for the model and for its checkpoints.

Freeze settings know a module by its alias, the name of the model's direct child.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from torch import nn

from harness.jobs.training.implementation import Tools
from harness.scenario.schema import Freeze, FreezePlan


class FreezeRules(Protocol):
    """Answers the training loop's questions about frozen modules."""

    def changes_at(self, step: int) -> bool:
        """Whether a stage begins with this training step."""

    def apply(self, model: nn.Module, step: int) -> None:
        """Set `requires_grad` to what is in force at `step`."""

    def meta(self, step: int) -> list[dict[str, Any]] | None:
        """Returns the freeze settings in force at `step`; None if nothing is ever frozen."""


class NeverFrozen:
    """The rules of a plan without freeze settings: they never call the code under test."""

    def changes_at(self, step: int) -> bool:  # noqa: ARG002
        """Never."""
        return False

    def apply(self, model: nn.Module, step: int) -> None:
        """Do nothing."""

    def meta(self, step: int) -> None:  # noqa: ARG002
        """Returns None: there is nothing to record."""
        return


class Frozen:
    """The settings of a plan, passed to the freeze functions of the code under test."""

    def __init__(self, plan: FreezePlan, tools: Tools) -> None:
        self._tools = tools
        self._starts = {stage.start_step for stage in plan.schedule}
        stage = tools.find("FreezeStage")
        self._config = tools.find("VLMConfig")(
            freeze=self._specs(plan.base),
            freeze_schedule=[
                stage(start_step=one.start_step, specs=tuple(self._specs(one.specs)))
                for one in plan.schedule
            ],
        )

    def _specs(self, settings: Sequence[Freeze]) -> list[Any]:
        spec = self._tools.find("FreezeSpec")
        return [spec(module=one.module, frozen=one.frozen) for one in settings]

    def _in_force(self, step: int) -> Any:
        config = self._config
        return self._tools.find("effective_freeze")(
            step, config.freeze, config.freeze_schedule, config.module_patterns
        )

    def changes_at(self, step: int) -> bool:
        """Whether a stage begins with this training step."""
        return step in self._starts

    def apply(self, model: nn.Module, step: int) -> None:
        """Set `requires_grad` to what is in force at `step`."""
        patterns = self._config.module_patterns
        self._tools.find("apply_freeze_specs")(model, self._in_force(step), patterns)

    def meta(self, step: int) -> list[dict[str, Any]]:
        """Returns the canonical form of what is in force at `step`."""
        meta: list[dict[str, Any]] = self._tools.find("canonical_freeze_meta")(self._in_force(step))
        return meta


def freeze_rules(plan: FreezePlan, tools: Tools) -> FreezeRules:
    """Returns the rules of a plan."""
    return Frozen(plan, tools) if plan.base or plan.schedule else NeverFrozen()


def standing_still(model: nn.Module) -> tuple[str, ...]:
    """Returns the aliases of this stage's modules whose parameters are all frozen."""
    return tuple(
        alias
        for alias, module in model.named_children()
        if not any(param.requires_grad for param in module.parameters())
    )
