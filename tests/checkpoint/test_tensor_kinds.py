"""Tensor subclasses and rare layouts are restored exactly, or refused by name."""

import enum
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from kempnerforge.checkpoint import CheckpointError, CheckpointManager, StateMismatchError
from kempnerforge.config.schema import AsyncCheckpointMode, CheckpointConfig
from tests.checkpoint import packed
from tests.checkpoint.bits import copied, difference, picture
from tests.checkpoint.packed import Nested, Opaque, OtherPacked, Packed


class Preference(enum.StrEnum):
    fast = "fast"
    exact = "exact"


class Settings:
    """Shows its address, as objects do that say nothing of themselves."""


def numbers(seed: int) -> torch.Tensor:
    return torch.randn(3, 4, generator=torch.Generator().manual_seed(seed))


def with_base(base: Any) -> tuple[Any, Any]:
    """A model with a trained part and a frozen base."""
    model: Any = nn.Module()
    model.linear = nn.Linear(2, 2)
    model.base = nn.Parameter(base, requires_grad=False)
    return model, torch.optim.SGD(model.linear.parameters(), lr=0.1)


def with_buffer(buffer: Any) -> tuple[Any, Any]:
    model: Any = nn.Module()
    model.linear = nn.Linear(2, 2)
    model.register_buffer("table", buffer)
    return model, torch.optim.SGD(model.parameters(), lr=0.1)


def manager(directory: Path, built: tuple[Any, Any], **options: Any) -> CheckpointManager:
    return CheckpointManager(CheckpointConfig(dir=str(directory), **options), *built)


WEIGHTS: dict[str, Callable[[int], Any]] = {
    "packed": lambda seed: Packed.of(numbers(seed)),
    "context": lambda seed: Packed.of(numbers(seed), {"block": (1, 2), "dtype": torch.int8}),
    "enumeration": lambda seed: Packed.of(numbers(seed), (Preference.fast, 3)),
    "nested": lambda seed: Nested(Packed.of(numbers(seed)), numbers(seed)[0]),
}


@pytest.mark.parametrize("mode", AsyncCheckpointMode)
@pytest.mark.parametrize("kind", WEIGHTS)
def test_a_weight_that_holds_other_tensors_comes_back_twice(
    tmp_path: Path, kind: str, mode: AsyncCheckpointMode
) -> None:
    built = with_base(WEIGHTS[kind](1))
    for step in (1, 2):
        expected = copied(built[0].base.data)
        held = manager(tmp_path, built, async_mode=mode)
        held.save(step)
        with torch.no_grad():
            next(iter(_dense(built[0].base))).zero_()
        held.wait()
        built = with_base(WEIGHTS[kind](5 + step))
        live = built[0].base
        assert manager(tmp_path, built).load()[0] == step
        assert built[0].base is live
        assert difference(expected, live.data) == ""


def _dense(value: Any) -> list[torch.Tensor]:
    if not hasattr(value, "__tensor_flatten__"):
        return [value]
    return [part for name in value.__tensor_flatten__()[0] for part in _dense(getattr(value, name))]


def test_a_context_that_is_no_plain_value_hinders_neither_save_nor_load(tmp_path: Path) -> None:
    saved, settings = Packed.of(numbers(1), Settings()), Settings()
    manager(tmp_path, with_base(saved)).save(1)
    built = with_base(Packed.of(numbers(2), settings))
    manager(tmp_path, built).load()
    assert torch.equal(built[0].base.codes, saved.codes)
    assert built[0].base.context is settings


OTHERS: dict[str, tuple[Any, Any, str]] = {
    "class": (Packed.of(numbers(1)), OtherPacked.of(numbers(2)), "packed.Packed with None"),
    "context": (
        Packed.of(numbers(1), {"bits": 4}),
        Packed.of(numbers(2), {"bits": 8}),
        "with {'bits': 4}, the model",
    ),
    "member": (
        Packed.of(numbers(1), Preference.fast),
        Packed.of(numbers(2), Preference.exact),
        "fast: 'fast'>, the model",
    ),
    "shape": (Packed.of(numbers(1)), Packed.of(numbers(2)[:2]), "model.base.codes: the checkpoint"),
    "plain now": (Packed.of(numbers(1)), numbers(2), "model.base was saved as a tensor subclass"),
    "plain then": (numbers(1), Packed.of(numbers(2)), "model.base is a tensor subclass, and the"),
    "plain within": (
        Nested(numbers(1), numbers(1)[0]),  # type: ignore[arg-type]
        Nested(Packed.of(numbers(2)), numbers(2)[0]),
        "model.base.packed is a tensor subclass",
    ),
    "class within": (
        Nested(Packed.of(numbers(1)), numbers(1)[0]),
        Nested(OtherPacked.of(numbers(2)), numbers(2)[0]),
        "model.base.packed: the checkpoint has a tests.checkpoint.packed.Packed",
    ),
}


@pytest.mark.parametrize("other", OTHERS)
def test_a_weight_of_another_kind_is_refused_before_anything_changes(
    tmp_path: Path, other: str
) -> None:
    then, now, words = OTHERS[other]
    manager(tmp_path, with_base(then)).save(1)
    built = with_base(now)
    before = picture(*built)
    held = manager(tmp_path, built)
    with pytest.raises(StateMismatchError) as caught:
        held.load()
    assert words in str(caught.value)
    assert difference(before, picture(*built)) == ""
    assert held.load(exclude_keys=["model.base"])[0] == 1


def test_moments_that_hold_other_tensors_come_back_and_need_their_class(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = nn.Linear(4, 3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    optimizer.state[model.weight]["momentum"] = Packed.of(numbers(1), {"block": 2})
    optimizer.state[model.weight]["deep"] = [Nested(Packed.of(numbers(2)), numbers(2)[0]), 1]
    manager(tmp_path, (model, optimizer)).save(1)
    again = nn.Linear(4, 3)
    found = torch.optim.SGD(again.parameters(), lr=0.1)
    held = manager(tmp_path, (again, found))
    before = picture(again, found)
    monkeypatch.delattr(packed, "Nested")
    with pytest.raises(StateMismatchError, match=r"optimizer\.state\.weight was saved as a tests"):
        held.load()
    assert difference(before, picture(again, found)) == ""
    monkeypatch.undo()
    held.load()
    expected = optimizer.state[model.weight]
    assert difference(dict(expected), dict(found.state[again.weight])) == ""


def test_values_of_extra_that_hold_other_tensors_come_back_and_need_their_class(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built = with_base(numbers(1))
    extra = {"ema": {"a": [Packed.of(numbers(1))]}, "flag": nn.Parameter(torch.arange(2), False)}
    held = manager(tmp_path, built)
    held.save(1, extra=extra)
    assert difference(extra["ema"], held.load()[2]["ema"]) == ""
    monkeypatch.delitem(sys.modules, "tests.checkpoint.packed")
    before = picture(*built)
    with pytest.raises(StateMismatchError, match=r"'ema' was saved as a tests"):
        held.load()
    assert difference(before, picture(*built)) == ""
    assert "ema" not in held.load(exclude_keys=["ema"])[2]


def _uncoalesced(value: float) -> torch.Tensor:
    places = torch.tensor([[0, 0], [1, 1]])
    return torch.sparse_coo_tensor(places, [value, 2.0], (3, 3), check_invariants=True)


def _per_channel(value: float) -> torch.Tensor:
    scales, zeros = torch.tensor([0.1, 0.2, 0.3]), torch.zeros(3, dtype=torch.long)
    whole = torch.full((3, 3), value)
    return torch.quantize_per_channel(whole, scales, zeros, 0, torch.qint8)


def _per_tensor(value: float) -> torch.Tensor:
    return torch.quantize_per_tensor(torch.full((3, 3), value), 0.1, 2, torch.quint8)


RARE: dict[str, Callable[[float], torch.Tensor]] = {
    "coordinates": lambda value: (value * torch.eye(3)).to_sparse(),
    "uncoalesced": _uncoalesced,
    "csr": lambda value: (value * torch.eye(3)).to_sparse_csr(),
    "per tensor": _per_tensor,
    "per channel": _per_channel,
}
MESSY = "ignore:.*(quantize|Sparse|sparse|TypedStorage).*"


@pytest.mark.filterwarnings(MESSY)
@pytest.mark.parametrize("mode", AsyncCheckpointMode)
@pytest.mark.parametrize("kind", RARE)
def test_a_buffer_of_a_rare_layout_comes_back_as_it_was(
    tmp_path: Path, kind: str, mode: AsyncCheckpointMode
) -> None:
    built = with_buffer(RARE[kind](1.0))
    expected = copied(built[0].table)
    held = manager(tmp_path, built, async_mode=mode)
    held.save(1, extra={"table": built[0].table})
    built[0].table = RARE[kind](5.0)
    held.wait()
    built = with_buffer(RARE[kind](3.0))
    extra = manager(tmp_path, built).load()[2]
    assert difference(expected, built[0].table) == ""
    assert difference(expected, extra["table"]) == ""


def _blocks(side: int) -> torch.Tensor:
    return torch.eye(4).to_sparse_bsr((side, side))


UNLIKE: dict[str, tuple[Callable[[], torch.Tensor], Callable[[], torch.Tensor], str]] = {
    "fewer elements": (
        lambda: torch.eye(4).to_sparse_csr(),
        lambda: torch.ones(4, 4).to_sparse_csr(),
        r"sparse_csr with 4 elements, .* tensor of layout sparse_csr with 16 elements",
    ),
    "by columns": (
        lambda: torch.eye(4).to_sparse_csr(),
        lambda: torch.eye(4).to_sparse_csc(),
        r"sparse_csr with 4 elements, .* tensor of layout sparse_csc with 4 elements",
    ),
    "other blocks": (
        lambda: _blocks(2),
        lambda: _blocks(4),
        r"blocks of \(2, 2\), .* tensor of layout sparse_bsr with 1 elements",
    ),
    "by coordinates": (
        lambda: torch.eye(4).to_sparse(),
        lambda: torch.eye(4).to_sparse_csr(),
        r"sparse_coo, .* tensor of layout sparse_csr with 4 elements",
    ),
}


@pytest.mark.filterwarnings(MESSY)
@pytest.mark.parametrize("kind", UNLIKE)
def test_a_sparse_buffer_that_cannot_take_the_saved_one_is_refused_before_anything_changes(
    tmp_path: Path, kind: str
) -> None:
    saved, now, words = UNLIKE[kind]
    manager(tmp_path, with_buffer(saved())).save(1)
    built = with_buffer(now())
    before = copied(built[0].linear.weight)
    with pytest.raises(StateMismatchError, match=f"model.table: .*{words}"):
        manager(tmp_path, built).load()
    assert difference(before, built[0].linear.weight) == ""


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "meta": (lambda: torch.empty(3, device="meta"), "is on the meta device"),
    "jagged": (
        lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)], layout=torch.jagged),
        "is a nested tensor",
    ),
    "oneDNN": (lambda: torch.ones(3, 3).to_mkldnn(), "has the layout of oneDNN"),
    "opaque": (lambda: Opaque(torch.ones(3)), "that cannot be taken apart"),
    "lazy": (lambda: nn.parameter.UninitializedBuffer(), "has no shape yet"),
}


@pytest.mark.filterwarnings("ignore:.*nested.*")
@pytest.mark.parametrize("kind", REFUSED)
def test_a_tensor_that_has_no_form_on_disk_is_refused_by_name(tmp_path: Path, kind: str) -> None:
    make, words = REFUSED[kind]
    held = manager(tmp_path, with_buffer(make()))
    with pytest.raises(CheckpointError, match=f"model.table {words}|model.table .*{words}"):
        held.save(1)
    built = with_buffer(torch.ones(1))
    held = manager(tmp_path, built)
    with pytest.raises(CheckpointError, match=f"'average' in the train state .*{words}"):
        held.save(1, extra={"average": {"a": [make()]}})
    built[1].state[built[0].linear.weight]["m"] = make()
    with pytest.raises(CheckpointError, match=rf"optimizer\.state\.linear\.weight\.m .*{words}"):
        held.save(1)
    assert list(tmp_path.glob("step_*")) == []
