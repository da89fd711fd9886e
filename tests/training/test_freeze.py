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


def test_specs_apply_in_order_and_unknown_modules_change_nothing() -> None:
    net = model()
    specs = [FreezeSpec("adapter"), FreezeSpec("transformer"), FreezeSpec("adapter", False)]
    assert apply_freeze_specs(net, specs, PATTERNS) == {"adapter": 18, "transformer": 16}
    with pytest.raises(ValueError, match=r"\['vision'\]; known: adapter, transformer"):
        apply_freeze_specs(net, [FreezeSpec("adapter"), FreezeSpec("vision")], PATTERNS)
    assert net["adapter"].weight.requires_grad


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


def test_an_unknown_module_of_a_later_stage_is_found_at_once() -> None:
    schedule = [FreezeStage(5, [FreezeSpec("typo")])]
    with pytest.raises(ValueError, match="typo"):
        effective_freeze(0, [], schedule, valid_modules=["a"])


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
