"""Parameters have the names of the plain model, whatever wraps it and in whichever order."""

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper
from torch.optim.swa_utils import AveragedModel

from kempnerforge.checkpoint import CheckpointManager
from kempnerforge.checkpoint.state.global_names import plain_name, unwrapped
from kempnerforge.config.schema import CheckpointConfig
from tests.checkpoint import name_jobs
from tests.checkpoint.bits import difference
from tests.checkpoint.ranks import run_ranks

WRAPPERS: dict[str, Callable[[Any], Any]] = {
    "compiled": name_jobs.compiled,
    "data parallel": nn.DataParallel,
    "recomputed": checkpoint_wrapper,
}
ORDERS = list(itertools.permutations(WRAPPERS))


class Holding(nn.Module):
    """Holds modules under the names that wrappers use, but for one that torch takes out itself."""

    def __init__(self) -> None:
        super().__init__()
        self.module = nn.ModuleDict({"module": nn.Linear(2, 2), "_orig_mod": nn.Linear(2, 2)})


NAMES = [
    f"{path}.{part}"
    for path in ("module.module", "module._orig_mod")
    for part in ("weight", "bias")
]


@pytest.mark.parametrize("order", ORDERS, ids="-".join)
def test_wrappers_in_any_order_leave_the_names_and_a_module_called_like_one_keeps_its_own(
    order: tuple[str, ...],
) -> None:
    plain = Holding()
    wrapped: Any = plain
    for name in order:
        wrapped = WRAPPERS[name](wrapped)
    assert unwrapped(wrapped) is plain
    names = [plain_name(wrapped, name) for name, _ in wrapped.named_parameters()]
    assert names == NAMES


@pytest.mark.parametrize("order", ORDERS, ids="-".join)
def test_a_module_within_is_wrapped_in_any_order_and_keeps_its_names(
    order: tuple[str, ...],
) -> None:
    plain = Holding()
    inner: Any = plain.module["module"]
    for name in order:
        inner = WRAPPERS[name](inner)
    plain.module["module"] = inner
    assert [plain_name(plain, name) for name, _ in plain.named_parameters()] == NAMES
    assert [plain_name(plain, name) for name in plain.state_dict()] == NAMES


def _manager(directory: Path, model: Any) -> CheckpointManager:
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    return CheckpointManager(CheckpointConfig(dir=str(directory)), model, optimizer)


@pytest.mark.parametrize("name", WRAPPERS)
def test_a_wrapped_model_loads_what_the_plain_one_saved_and_the_reverse(
    tmp_path: Path, name: str
) -> None:
    plain, other = Holding(), Holding()
    _manager(tmp_path, plain).save(1)
    _manager(tmp_path, WRAPPERS[name](other)).load()
    assert difference(plain.state_dict(), other.state_dict()) == ""
    third = Holding()
    _manager(tmp_path, WRAPPERS[name](third)).save(2)
    _manager(tmp_path, plain).load()
    assert difference(plain.state_dict(), third.state_dict()) == ""


def test_an_averaged_model_is_no_wrapper_and_comes_back_with_its_count(tmp_path: Path) -> None:
    model = nn.Linear(2, 2)
    averaged = AveragedModel(model)
    averaged.update_parameters(model)
    assert unwrapped(averaged) is averaged
    assert plain_name(averaged, "module.weight") == "module.weight"
    _manager(tmp_path, averaged).save(1)
    found = AveragedModel(nn.Linear(2, 2))
    _manager(tmp_path, found).load()
    assert difference(averaged.state_dict(), found.state_dict()) == ""
    assert int(found.n_averaged) == 1


def test_ranks_that_wrap_their_model_in_any_order_hand_it_on(tmp_path: Path) -> None:
    for found in run_ranks(name_jobs.hand_on, tmp_path, world=2):
        assert found == dict.fromkeys(name_jobs.WRAPPINGS, "")


def test_a_part_that_a_wrapper_has_of_its_own_is_told_from_what_it_wraps() -> None:
    wrapped: Any = nn.DataParallel(Holding())
    wrapped.head = nn.DataParallel(nn.Linear(2, 2))
    names = [plain_name(wrapped, name) for name, _ in wrapped.named_parameters()]
    assert names == [*NAMES, "head.weight", "head.bias"]
