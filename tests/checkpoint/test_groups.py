"""Options of parameter groups are decided before anything changes, and matched by parameters."""

import copy
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR

from kempnerforge.checkpoint import CheckpointManager, StateMismatchError
from kempnerforge.config.schema import CheckpointConfig
from tests.checkpoint.bits import difference, picture

WEIGHTS = [f"{layer}.weight" for layer in "abcd"]
BIASES = [f"{layer}.bias" for layer in "abcd"]
Groups = Sequence[tuple[list[str], dict[str, Any]]]
DECAY: Groups = [(WEIGHTS, {"weight_decay": 0.25}), (BIASES, {"weight_decay": 0.0})]


def build(groups: Groups, seed: int, order: str = "abcd") -> tuple[Any, AdamW]:
    torch.manual_seed(seed)
    model: Any = nn.Module()
    for layer in order:
        setattr(model, layer, nn.Linear(3, 3))
    named = dict(model.named_parameters())
    return model, AdamW(
        [{"params": [named[name] for name in names], **options} for names, options in groups],
        lr=0.5,
    )


def manager(directory: Path, built: tuple[Any, Any]) -> CheckpointManager:
    return CheckpointManager(CheckpointConfig(dir=str(directory), keep_last_n=0), *built)


def save(directory: Path, groups: Groups) -> tuple[Any, AdamW]:
    built = build(groups, 1)
    for number, param in enumerate(built[0].parameters()):
        param.grad = torch.full_like(param, number + 1.0)
    built[1].step()
    manager(directory, built).save(1)
    return built


def options(optimizer: AdamW, *keys: str) -> list[tuple[Any, ...]]:
    return [tuple(group.get(key) for key in keys) for group in optimizer.param_groups]


def by_name(built: tuple[Any, AdamW]) -> dict[str, Any]:
    found = picture(*built)
    return {"parameters": found["parameters"], "state": found["state"]}


@pytest.mark.parametrize("order", ["abcd", "dcba"])
def test_groups_in_another_order_get_the_options_of_their_parameters(
    tmp_path: Path, order: str
) -> None:
    saved = save(tmp_path, DECAY)
    found = build([(BIASES[::-1], {}), (WEIGHTS[::-1], {})], 2, order)
    manager(tmp_path, found).load()
    assert options(found[1], "weight_decay") == [(0.0,), (0.25,)]
    assert difference(by_name(saved), by_name(found)) == ""


def test_a_group_that_was_split_has_its_options_in_each_part_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    saved = save(tmp_path, [(WEIGHTS + BIASES, {"weight_decay": 0.5})])
    found = build(DECAY, 2)
    with caplog.at_level(logging.WARNING):
        manager(tmp_path, found).load()
    assert options(found[1], "weight_decay", "lr") == [(0.5, 0.5), (0.5, 0.5)]
    assert "weight_decay is 0.5 as saved, not 0.25 as built" in caplog.text
    assert difference(by_name(saved), by_name(found)) == ""


def test_groups_of_equal_options_may_be_joined(tmp_path: Path) -> None:
    then: Groups = [(WEIGHTS, {"name": "decay", "eps": 0.5}), (BIASES, {"name": "no", "eps": 0.5})]
    saved = save(tmp_path, then)
    found = build([(WEIGHTS + BIASES, {"name": "all"})], 2)
    manager(tmp_path, found).load()
    assert options(found[1], "eps", "name") == [(0.5, "all")]
    assert difference(by_name(saved), by_name(found)) == ""


def test_a_label_that_the_group_of_now_lacks_comes_from_the_checkpoint(tmp_path: Path) -> None:
    save(tmp_path, [(WEIGHTS, {"name": "decay"}), (BIASES, {})])
    found = build(DECAY, 2)
    manager(tmp_path, found).load()
    assert options(found[1], "name") == [("decay",), (None,)]


MOVED: Groups = [(WEIGHTS + BIASES[:1], {}), (BIASES[1:], {})]


@pytest.mark.parametrize("now", [[(WEIGHTS + BIASES, {})], MOVED], ids=["joined", "moved"])
def test_groups_of_other_options_that_are_joined_are_refused_before_anything_changes(
    tmp_path: Path, now: Groups
) -> None:
    save(tmp_path, DECAY)
    found = build(now, 2)
    before = picture(*found)
    held = manager(tmp_path, found)
    with pytest.raises(StateMismatchError, match=r"different options \(weight_decay\)"):
        held.load()
    assert difference(before, picture(*found)) == ""
    assert held.load(exclude_keys=["optimizer.param_groups"])[0] == 1
    assert options(found[1], "weight_decay") == [(0.01,)] * len(now)


def test_a_group_of_parameters_that_were_not_saved_stays_as_it_was_built_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    save(tmp_path, [(WEIGHTS, {"eps": 0.5})])
    found = build([(WEIGHTS, {}), (BIASES, {"eps": 0.125})], 2)
    with caplog.at_level(logging.WARNING):
        manager(tmp_path, found).load()
    assert options(found[1], "eps") == [(0.5,), (0.125,)]
    assert "no saved options for 4 optimizer parameters; kept as built" in caplog.text


def test_a_rate_that_is_a_tensor_stays_the_object_that_others_hold(tmp_path: Path) -> None:
    rate = torch.tensor(0.5)
    saved = build([(WEIGHTS + BIASES, {"lr": torch.tensor(0.125), "betas": _betas(0.5)})], 1)
    manager(tmp_path, saved).save(1)
    found = build([(WEIGHTS + BIASES, {"lr": rate, "betas": _betas(0.25)})], 2)
    first = found[1].param_groups[0]["betas"][0]
    manager(tmp_path, found).load()
    (group,) = found[1].param_groups
    assert group["lr"] is rate
    assert rate.item() == 0.125
    assert type(group["betas"]) is tuple
    assert group["betas"][0] is first
    assert [beta.item() for beta in group["betas"]] == [0.5, 0.75]


def _betas(first: float) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.tensor(first), torch.tensor(first + 0.25)


def test_options_that_a_scheduler_writes_when_it_is_loaded_are_those_of_the_checkpoint(
    tmp_path: Path,
) -> None:
    class Writing(LambdaLR):
        def load_state_dict(self, state_dict: Any) -> None:
            super().load_state_dict(state_dict)
            for group in self.optimizer.param_groups:
                group["lr"] = 7.0

    saved = build(DECAY, 1)
    scheduler = Writing(saved[1], lambda step: 0.5**step)
    saved[1].step()
    scheduler.step()
    manager(tmp_path, saved).save(1, scheduler=scheduler)
    found = build(DECAY, 2)
    again = Writing(found[1], lambda step: 0.5**step)
    manager(tmp_path, found).load(scheduler=again)
    assert options(found[1], "lr", "initial_lr") == [(0.25, 0.5), (0.25, 0.5)]
    assert again.last_epoch == 1


@pytest.mark.parametrize("value", [np.ones(2), float("nan"), [1, (2.0, "x")]], ids=repr)
def test_groups_of_the_same_odd_option_may_be_joined(tmp_path: Path, value: Any) -> None:
    save(tmp_path, [(WEIGHTS, {"odd": value}), (BIASES, {"odd": copy.deepcopy(value)})])
    found = build([(WEIGHTS + BIASES, {})], 2)
    manager(tmp_path, found).load()
    assert difference(value, found[1].param_groups[0]["odd"]) == ""


def test_a_group_without_parameters_gets_the_options_of_the_one_at_its_place(
    tmp_path: Path,
) -> None:
    def two_groups(rate: float) -> tuple[nn.Module, torch.optim.Optimizer]:
        model = nn.Linear(2, 2)
        optimizer = torch.optim.SGD([{"params": model.parameters(), "lr": rate}], lr=rate)
        optimizer.param_groups.append({**optimizer.param_groups[0], "params": [], "lr": 2 * rate})
        return model, optimizer

    config = CheckpointConfig(dir=str(tmp_path))
    CheckpointManager(config, *two_groups(0.1)).save(1)
    model, optimizer = two_groups(0.5)
    CheckpointManager(config, model, optimizer).load()
    assert [group["lr"] for group in optimizer.param_groups] == [0.1, 0.2]
