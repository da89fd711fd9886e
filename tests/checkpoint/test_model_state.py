"""A model's state is restored, or refused before anything has changed."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.distributed.checkpoint.state_dict_saver import save as dcp_save

from kempnerforge.checkpoint import CheckpointError, CheckpointManager, StateMismatchError
from kempnerforge.config.schema import AsyncCheckpointMode, CheckpointConfig


def manager(directory: Path, model: nn.Module, **options: Any) -> CheckpointManager:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    return CheckpointManager(CheckpointConfig(dir=str(directory), **options), model, optimizer)


class Remembering(nn.Module):
    """Has extra state that is a tensor or a list."""

    def __init__(self, state: Any) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3))
        self.state = state

    def get_extra_state(self) -> Any:
        return self.state.detach().clone() if isinstance(self.state, torch.Tensor) else self.state

    def set_extra_state(self, state: Any) -> None:
        self.state = state


class Returning(Remembering):
    """Returns the tensor that it goes on computing with."""

    def get_extra_state(self) -> Any:
        return self.state


OTHERS = [torch.zeros(2), torch.zeros(0), torch.zeros(2, dtype=torch.int64), None, [1]]


@pytest.mark.parametrize("other", OTHERS, ids=["same", "size", "dtype", "none", "list"])
def test_extra_state_that_is_a_tensor_is_given_to_the_module(tmp_path: Path, other: Any) -> None:
    inner = Remembering(torch.tensor([7.0, 8.0]))
    manager(tmp_path, nn.Sequential(inner)).save(1)
    found = Remembering(other)
    manager(tmp_path, nn.Sequential(found)).load()
    assert found.state.dtype == torch.float32
    assert found.state.tolist() == [7.0, 8.0]


KINDS = [
    {"a": 1},
    {},
    {"scale": torch.ones(2), "history": [torch.ones(1), 3, [1, 2]], "on": None},
    [torch.ones(2), {"a": (1, 2)}],
    [],
    (1, [torch.ones(1)], {}),
    "words",
    b"bytes",
    {1: 2},
    {"a": {}},
    [{}],
]


@pytest.mark.parametrize("mode", AsyncCheckpointMode)
@pytest.mark.parametrize("kind", KINDS, ids=range(11))
def test_extra_state_of_any_structure_comes_back(
    tmp_path: Path, kind: Any, mode: AsyncCheckpointMode, caplog: pytest.LogCaptureFixture
) -> None:
    saving = manager(tmp_path, nn.Sequential(Remembering(kind)), async_mode=mode)
    saving.save(1)
    saving.wait()
    found = Remembering({} if kind == {} else None)
    manager(tmp_path, nn.Sequential(found)).load()
    assert repr(found.state) == repr(kind)
    assert "not in the model" not in caplog.text


@pytest.mark.parametrize(
    "kind", [object(), {"a": Path()}, [range(3)]], ids=["one", "path", "range"]
)
def test_extra_state_that_could_not_be_put_together_again_is_refused_when_saved(
    tmp_path: Path, kind: Any
) -> None:
    with pytest.raises(CheckpointError, match=r"model\._extra_state holds an object"):
        manager(tmp_path, Remembering(kind)).save(1)


def test_extra_state_on_the_meta_device_gets_memory(tmp_path: Path) -> None:
    manager(tmp_path, Remembering(torch.tensor([7.0, 8.0]))).save(1)
    for size in (2, 3):
        found = Remembering(torch.zeros(size, device="meta"))
        manager(tmp_path, found).load()
        assert found.state.tolist() == [7.0, 8.0]


def test_extra_state_that_was_a_list_replaces_a_tensor(tmp_path: Path) -> None:
    manager(tmp_path, Remembering([1, 2])).save(1)
    found = Remembering(torch.zeros(3))
    manager(tmp_path, found).load()
    assert found.state == [1, 2]


@pytest.mark.parametrize("size", [2, 1 << 18])
@pytest.mark.parametrize("mode", AsyncCheckpointMode)
def test_extra_state_that_training_computes_with_is_that_of_the_save(
    tmp_path: Path, mode: AsyncCheckpointMode, size: int
) -> None:
    model = Returning(torch.full((size,), 7.0, requires_grad=True))
    saving = manager(tmp_path, model, async_mode=mode)
    saving.save(1)
    with torch.no_grad():
        model.state.zero_()
    saving.wait()
    found = Remembering(torch.zeros(0))
    manager(tmp_path, found).load()
    assert torch.equal(found.state, torch.full((size,), 7.0))
    assert not found.state.requires_grad


def test_excluded_extra_state_is_left_alone(tmp_path: Path) -> None:
    manager(tmp_path, nn.Sequential(Remembering(torch.ones(2)))).save(1)
    found = Remembering(torch.zeros(3))
    manager(tmp_path, nn.Sequential(found)).load(exclude_keys=["model.0._extra_state"])
    assert found.state.tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("pp_rank", [0, 1])
def test_a_stage_gets_its_own_extra_state(tmp_path: Path, pp_rank: int) -> None:
    for stage in (0, 1):
        stage_dir = tmp_path / "step_3" / f"pp{stage}"
        state = Remembering(torch.full((stage + 1,), float(stage))).state_dict()
        with pytest.warns(UserWarning, match="single process"):
            dcp_save({"model": state}, checkpoint_id=str(stage_dir))
    torch.save({"step": 3, "tokens_seen": 0}, tmp_path / "step_3" / "train_state.pt")
    (tmp_path / "step_3" / "metadata.json").write_text('{"step": 3}')
    found = Remembering(None)
    optimizer = torch.optim.SGD(found.parameters())
    config = CheckpointConfig(dir=str(tmp_path))
    CheckpointManager(config, found, optimizer, pp_rank=pp_rank).load()
    assert found.state.tolist() == [float(pp_rank)] * (pp_rank + 1)


def test_a_model_on_the_meta_device_is_refused_until_it_has_memory(tmp_path: Path) -> None:
    saved = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    manager(tmp_path, saved).save(1)
    with torch.device("meta"):
        model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    model[0].to_empty(device="cpu")
    with pytest.raises(StateMismatchError, match=r"model\.1\.weight is on the meta.*to_empty"):
        manager(tmp_path, model).load()
    model.to_empty(device="cpu")
    assert manager(tmp_path, model).load()[0] == 1
    assert torch.equal(model.state_dict()["1.weight"], saved.state_dict()["1.weight"])


class Holding(nn.Module):
    """A parameter, and a buffer that is a view."""

    view: torch.Tensor

    def __init__(self, view: torch.Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((3,), float(view.real.sum())))
        self.register_buffer("view", view)


VIEWS: dict[str, Callable[[int], torch.Tensor]] = {
    "conjugate": lambda seed: torch.full((3,), seed + 1j).conj(),
    "negative": lambda seed: torch.full((3,), 1 + seed * 1j).conj().imag,
    "strided": lambda seed: torch.arange(10.0)[::2] + seed,
}


@pytest.mark.parametrize("mode", AsyncCheckpointMode)
@pytest.mark.parametrize("name", VIEWS)
def test_a_buffer_that_is_a_view_comes_back_with_the_rest(
    tmp_path: Path, mode: AsyncCheckpointMode, name: str
) -> None:
    saved, found = Holding(VIEWS[name](1)), Holding(VIEWS[name](5))
    saving = manager(tmp_path, saved, async_mode=mode)
    saving.save(1)
    saving.wait()
    manager(tmp_path, found).load()
    assert torch.equal(found.view, saved.view)
    assert torch.equal(found.weight, saved.weight)


def test_a_buffer_whose_elements_share_memory_is_refused_before_anything_changes(
    tmp_path: Path,
) -> None:
    manager(tmp_path, Holding(torch.ones(1).expand(4))).save(1)
    found = Holding(torch.zeros(1).expand(4))
    with pytest.raises(StateMismatchError, match=r"model\.view has elements that share memory"):
        manager(tmp_path, found).load()
    assert found.weight.tolist() == [0.0, 0.0, 0.0]
    manager(tmp_path, found).load(exclude_keys=["model.view"])
    assert found.weight.tolist() == [4.0, 4.0, 4.0]
    found = Holding(torch.zeros(4))
    manager(tmp_path, found).load()
    assert found.view.tolist() == [1.0, 1.0, 1.0, 1.0]
