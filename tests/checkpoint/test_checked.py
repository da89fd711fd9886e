"""State restored through the program's own code is compared with what was saved."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import SGD

from kempnerforge.checkpoint import CheckpointManager, StateMismatchError
from kempnerforge.checkpoint.state.checked import Comparison, RestoreCheck
from kempnerforge.config.schema import CheckpointConfig

Alter = Callable[[Any], Any]


class Altering(nn.Module):
    """Has a state of its own, which is not taken back as it was."""

    def __init__(self, alter: Alter, size: int = 2) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(2))
        self.alter = alter
        self.values = [torch.zeros(size)]
        self.number: Any = 3

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        for index, value in enumerate(self.values):
            destination[f"{prefix}{index}"] = value.clone()
        destination[f"{prefix}number"] = self.number

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *rest: Any) -> None:
        found = [state_dict.pop(f"{prefix}{index}") for index in range(len(self.values))]
        self.values, self.number = self.alter((found, state_dict.pop(f"{prefix}number")))
        super()._load_from_state_dict(state_dict, prefix, *rest)


def _with_first(change: Callable[[Any], Any]) -> Alter:
    return lambda given: ([change(given[0][0]), *given[0][1:]], given[1])


ALTERED: dict[str, tuple[Alter, str]] = {
    "bits": (_with_first(lambda value: value + 1e-7), "model.0 was other values, is these"),
    "zero": (_with_first(lambda value: -value), "model.0 was other values, is these"),
    "cast": (_with_first(lambda value: value.double()), "float32.*is.*float64"),
    "cut": (_with_first(lambda value: value[:1]), r"\(2,\).*\(1,\)"),
    "number": (lambda given: (given[0], given[1] + 1), "model.number was 3, is 4"),
    "none": (lambda given: (given[0], None), "model.number was 3, is None"),
}


def manager(directory: Path, model: Any, optimizer: Any = None, **given: Any) -> CheckpointManager:
    optimizer = optimizer or SGD(model.parameters(), lr=0.1)
    return CheckpointManager(CheckpointConfig(dir=str(directory), **given), model, optimizer)


def unaltered(given: Any) -> Any:
    return given


@pytest.mark.parametrize("altered", ALTERED)
def test_a_module_that_alters_what_it_loads_is_an_error_unless_nothing_is_compared(
    tmp_path: Path, altered: str
) -> None:
    alter, words = ALTERED[altered]
    manager(tmp_path, Altering(unaltered)).save(1)
    for check in ("sample", "all"):
        with pytest.raises(StateMismatchError, match=words):
            manager(tmp_path, Altering(alter), check_restored=check).load()
    assert manager(tmp_path, Altering(alter), check_restored="off").load()[0] == 1
    assert manager(tmp_path, Altering(unaltered), check_restored="all").load()[0] == 1


def test_the_bits_of_what_a_sample_leaves_out_are_found_by_a_comparison_of_all(
    tmp_path: Path,
) -> None:
    def alter_at(index: int) -> Alter:
        return _with_first(lambda value: value.index_fill(0, torch.tensor([index]), 1.0))

    manager(tmp_path, Altering(unaltered, 5000)).save(1)
    assert manager(tmp_path, Altering(alter_at(2500), 5000)).load()[0] == 1
    with pytest.raises(StateMismatchError, match=r"model\.0 was other values"):
        manager(tmp_path, Altering(alter_at(2500), 5000), check_restored="all").load()
    for index in (0, 1023, 5000 - 1024, 4999):
        with pytest.raises(StateMismatchError, match=r"model\.0 was other values"):
            manager(tmp_path, Altering(alter_at(index), 5000)).load()


class Around:
    """An optimizer around another one, whose state it copies."""

    def __init__(self, inner: Any, alter: Alter) -> None:
        self.inner, self.alter = inner, alter
        self.param_groups = inner.param_groups
        self.count = 1

    def state_dict(self) -> Any:
        said = self.inner.state_dict()
        copied = {key: {**entries, "count": self.count} for key, entries in said["state"].items()}
        return {**said, "state": copied}

    def load_state_dict(self, said: Any) -> None:
        state = {key: dict(entries) for key, entries in said["state"].items()}
        for entries in state.values():
            self.count = entries.pop("count")
        self.inner.load_state_dict({**said, "state": self.alter(state)})


LOST: dict[str, tuple[Alter, str]] = {
    "dropped": (lambda state: {1: state[1]}, r"optimizer\.state\.0 was a value, is none"),
    "cast": (
        lambda state: {key: {"momentum_buffer": None} for key in state},
        r"optimizer\.state\.0\.momentum_buffer was Tensor, is NoneType",
    ),
    "altered": (
        lambda state: {k: {"momentum_buffer": v["momentum_buffer"] + 1} for k, v in state.items()},
        r"optimizer\.state\.0\.momentum_buffer was other values",
    ),
}


@pytest.mark.parametrize("lost", LOST)
def test_an_optimizer_that_loses_what_it_loads_is_an_error_unless_nothing_is_compared(
    tmp_path: Path, lost: str
) -> None:
    alter, words = LOST[lost]
    saved = nn.Linear(2, 2)
    inner = SGD(saved.parameters(), lr=0.1, momentum=0.9)
    saved(torch.ones(1, 2)).sum().backward()
    inner.step()
    manager(tmp_path, saved, Around(inner, unaltered)).save(1)

    def again(alter: Alter, check: str) -> CheckpointManager:
        model = nn.Linear(2, 2)
        optimizer = Around(SGD(model.parameters(), lr=0.1, momentum=0.9), alter)
        return manager(tmp_path, model, optimizer, check_restored=check)

    with pytest.raises(StateMismatchError, match=words):
        again(alter, "sample").load()
    assert again(alter, "off").load()[0] == 1
    assert again(unaltered, "all").load()[0] == 1


CONTROLS: dict[str, tuple[Any, Any]] = {
    "nan": (torch.tensor([float("nan")]), torch.tensor([float("nan")])),
    "number that is none": (float("nan"), float("nan")),
    "other strides": (torch.ones(2, 3), torch.ones(3, 2).t()),
    "parameter": (torch.ones(2), nn.Parameter(torch.ones(2))),
    "whole number": (1, 1.0),
    "list": ([1, (2, torch.ones(1))], (1, [2, torch.ones(1)])),
    "more": ({"a": 1}, {"a": 1, "b": 2}),
    "empty": ({"a": {}}, {}),
    "conjugate": (torch.tensor([1 - 1j]), torch.tensor([1 + 1j]).conj()),
}


@pytest.mark.parametrize("correct", CONTROLS)
def test_values_that_are_as_good_as_those_saved_are_not_accused(correct: str) -> None:
    comparison = Comparison(RestoreCheck.all)
    comparison.compare("value", *CONTROLS[correct])
    comparison.require_none("load_state_dict of Control")
