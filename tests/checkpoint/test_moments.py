"""Moments that are containers are restored with the same keys and types."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from kempnerforge.checkpoint import CheckpointError, CheckpointManager, RedistributionError
from kempnerforge.checkpoint.state.rank_local import shared_remainder
from kempnerforge.config.schema import CheckpointConfig

VALUES: dict[str, Any] = {
    "ints": {0: torch.ones(2), 1: torch.zeros(2)},
    "sparse": {5: torch.ones(1), 2: 0.5},
    "numbers": {0: 1, 1: 2.5},
    "both": {1: torch.ones(1), "1": torch.zeros(1)},
    "flags": {True: 1, None: 2},
    "digits": {"0": torch.ones(1), "1": torch.zeros(1)},
    "nested": {"per_head": {3: [torch.ones(1), {7: (1, 2)}]}},
    "list": [torch.ones(1), torch.zeros(1)],
    "tuple": (torch.ones(1), (2, [])),
    "empty": {},
    "inside": {"a": {}, "b": torch.ones(1)},
    "none": None,
}


def manager(directory: Path) -> tuple[CheckpointManager, nn.Linear, torch.optim.Optimizer]:
    model = nn.Linear(2, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    config = CheckpointConfig(dir=str(directory), keep_last_n=0)
    return CheckpointManager(config, model, optimizer), model, optimizer


def same(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and torch.equal(one, other)
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)
def test_a_container_in_the_state_of_a_parameter_comes_back_as_it_was(
    tmp_path: Path, value: Any
) -> None:
    held, model, optimizer = manager(tmp_path)
    optimizer.state[model.weight]["mine"] = value
    optimizer.state[model.weight]["exp_avg"] = torch.full((2, 2), 3.0)
    held.save(1)
    again, model, optimizer = manager(tmp_path)
    assert again.load()[0] == 1
    state = optimizer.state[model.weight]
    assert same(state["mine"], value)
    assert torch.equal(state["exp_avg"], torch.full((2, 2), 3.0))


@pytest.mark.parametrize("value", [{0: 1.0}, {"a": {1: 2}}, {"a": {}}, [{1: 2}]])
def test_a_parameter_group_that_would_come_back_otherwise_is_refused_when_saved(
    tmp_path: Path, value: Any
) -> None:
    held, _, optimizer = manager(tmp_path)
    optimizer.param_groups[0]["mine"] = value
    with pytest.raises(CheckpointError, match="entry 'mine' of a parameter group"):
        held.save(1)
    optimizer.param_groups[0]["mine"] = {"a": 1.0}
    held.save(2)
    assert held.load()[0] == 2


@pytest.mark.parametrize("name", ["ints", "numbers", "nested", "empty"])
def test_for_another_layout_such_a_container_is_refused_and_not_forgotten(name: str) -> None:
    saved = {"state": {"weight": {"mine": VALUES[name]}}}
    with pytest.raises(RedistributionError, match=r"weight\.mine"):
        shared_remainder(saved, path="step_1")
    number = {"state": {"weight": {"mine": 1.0}}}
    assert shared_remainder(number, path="step_1") == number


def test_a_key_that_no_later_process_can_look_up_is_refused_when_saved(tmp_path: Path) -> None:
    held, model, optimizer = manager(tmp_path)
    optimizer.state[model.weight]["mine"] = {(1, 2): torch.ones(1)}
    with pytest.raises(CheckpointError, match="has a key of type tuple"):
        held.save(1)
