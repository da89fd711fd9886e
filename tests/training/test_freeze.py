"""Freezing by name."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from kempnerforge.config.schema import FreezeSpec, FreezeStage
from kempnerforge.training.freeze import (
    apply_freeze_specs,
    canonical_freeze_meta,
    effective_freeze,
    freeze_params,
)
from tests.checkpoint import rank_jobs
from tests.checkpoint.ranks import run_ranks

PATTERNS = {"adapter": ["adapter.*"], "transformer": ["transformer.*"]}


def model() -> nn.ModuleDict:
    return nn.ModuleDict({"adapter": nn.Linear(2, 3), "transformer": nn.Linear(3, 4)})


def test_only_matching_parameters_flip_and_elements_are_counted_once() -> None:
    net = model()
    assert freeze_params(net, ["adapter.*"]) == 9
    assert freeze_params(net, ["adapter.*"]) == 0
    assert [p.requires_grad for p in net.parameters()] == [False, False, True, True]
    assert freeze_params(net, ["*"], frozen=False) == 9


def test_freezing_drops_gradients_so_that_no_step_moves_the_module() -> None:
    net = model()
    sum(p.sum() for p in net.parameters()).backward()  # type: ignore[union-attr]
    freeze_params(net, ["adapter.*"])
    assert net["adapter"].weight.grad is None
    assert net["transformer"].weight.grad is not None


def test_names_of_a_compiled_model_match_too() -> None:
    compiled: Any = torch.compile(model(), backend="eager")
    assert freeze_params(compiled, ["adapter.*"]) == 9


def test_specs_apply_in_order() -> None:
    net = model()
    specs = [FreezeSpec("adapter"), FreezeSpec("transformer"), FreezeSpec("adapter", False)]
    assert apply_freeze_specs(net, specs, PATTERNS) == {"adapter": 18, "transformer": 16}
    assert net["adapter"].weight.requires_grad


def test_a_module_that_is_no_alias_is_a_pattern_of_parameter_names() -> None:
    net = model()
    assert apply_freeze_specs(net, [FreezeSpec("*.bias")], PATTERNS) == {"*.bias": 7}
    assert [name for name, param in net.named_parameters() if not param.requires_grad] == [
        name for name, _ in net.named_parameters() if name.endswith(".bias")
    ]
    assert apply_freeze_specs(net, [FreezeSpec("adapter.weight")], {}) == {"adapter.weight": 6}


def test_a_module_that_is_neither_alias_nor_parameter_is_warned_of(
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert apply_freeze_specs(model(), [FreezeSpec("vision")], PATTERNS) == {"vision": 0}
    assert "vision is not an alias (known: adapter, transformer)" in caplog.text


def test_a_module_that_this_stage_lacks_counts_nothing() -> None:
    net = nn.ModuleDict({"transformer": nn.Linear(3, 4)})
    assert apply_freeze_specs(net, [FreezeSpec("adapter")], PATTERNS) == {"adapter": 0}


def test_the_canonical_form_is_sorted_and_the_last_spec_counts() -> None:
    specs = [FreezeSpec("b"), FreezeSpec("a", False), FreezeSpec("b", False)]
    assert canonical_freeze_meta(specs) == [
        {"module": "a", "frozen": False},
        {"module": "b", "frozen": False},
    ]


@pytest.mark.parametrize(("step", "frozen"), [(0, True), (4, True), (5, False), (9, True)])
def test_stages_take_effect_at_their_step(step: int, frozen: bool) -> None:
    schedule = [
        FreezeStage(5, [FreezeSpec("a", False)]),
        FreezeStage(9, [FreezeSpec("a", True)]),
    ]
    assert effective_freeze(step, [FreezeSpec("a")], schedule) == [FreezeSpec("a", frozen)]


def test_an_unknown_module_is_refused_in_the_base_and_in_stages_that_apply() -> None:
    schedule = [FreezeStage(5, [FreezeSpec("typo")])]
    base = [FreezeSpec("a")]
    assert effective_freeze(4, base, schedule, valid_modules=["a"]) == base
    with pytest.raises(ValueError, match=r"unknown freeze modules \['typo'\]; known: a"):
        effective_freeze(5, base, schedule, valid_modules=["a"])
    with pytest.raises(ValueError, match=r"\['other'\]"):
        effective_freeze(0, [FreezeSpec("other")], schedule, valid_modules=["a"])


def test_a_module_unfrozen_in_the_middle_trains_and_keeps_its_moments(tmp_path: Path) -> None:
    for result in run_ranks(rank_jobs.unfreeze_in_the_middle, tmp_path, world=2):
        assert result == {
            "stayed": True,
            "flipped": (42, 42),
            "gradient": True,
            "moved": True,
            "stopped": True,
            "moments": True,
        }


def test_a_module_frozen_before_sharding_can_be_unfrozen_after(tmp_path: Path) -> None:
    assert run_ranks(rank_jobs.freeze_before_sharding, tmp_path, world=2) == [True, True]
