"""What the files of a checkpoint hold is read by name, without running what they contain."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.distributed.checkpoint.state_dict_saver import save

from harness.content import Content, tensor_digest
from harness.layouts.values import Value, values_of


def _files(folder: Path) -> dict[str, Content]:
    paths = [path for path in folder.rglob("*") if path.is_file()]
    data = {str(path.relative_to(folder)): path.read_bytes() for path in paths}
    return {name: Content.of(one, 0, len(one)) for name, one in data.items()}


def _digest(tensor: torch.Tensor) -> str:
    return tensor_digest(tensor.contiguous().reshape(-1).view(torch.uint8).numpy())


def _saved(**held: Any) -> list[Value]:
    file = io.BytesIO()
    torch.save(held, file)
    data = file.getvalue()
    return list(values_of({"state.pt": Content.of(data, 0, len(data))}))


def test_each_tensor_of_dcp_is_found_under_its_name(tmp_path: Path) -> None:
    weight, step = torch.randn(40, 3, dtype=torch.bfloat16), torch.ones(())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        state = {"model": {"weight": weight}, "optimizer": {"step": step}, "extra": 3}
        save(state, checkpoint_id=tmp_path / "pp0", no_dist=True)
    found = {one.name: one for one in values_of(_files(tmp_path))}
    assert found["model.weight"].text == _digest(weight)
    assert found["optimizer.step"].text == _digest(step)
    assert not found["model.weight"].is_plain
    assert found["optimizer.step"].is_plain


def test_the_same_piece_has_the_same_place_in_two_checkpoints() -> None:
    (first,) = _saved(weight=torch.randn(4, 2))
    (second,) = _saved(weight=torch.randn(4, 2))
    (wider,) = _saved(weight=torch.randn(4, 3))
    assert first.place == second.place != wider.place
    assert first.text != second.text


def test_values_of_a_torch_file_are_named_by_their_keys() -> None:
    weight = nn.Parameter(torch.randn(3))
    found = _saved(extra={"scaler": {"scale": 2.0, "tracker": 1}, "ema": [weight, "text", True]})
    assert [(one.name, one.text) for one in found] == [
        ("extra.scaler.scale", (2.0).hex()),
        ("extra.scaler.tracker", (1.0).hex()),
        ("extra.ema.0", _digest(weight.detach())),
    ]


def test_a_view_of_a_larger_storage_is_read_as_its_own_part() -> None:
    whole = torch.randn(6, 4)
    (part,) = _saved(rows=whole[2:4])
    assert part.text == _digest(whole[2:4])


@pytest.mark.parametrize("kind", ["column", "transposed", "empty"])
def test_a_tensor_with_gaps_or_without_elements_is_left_out(kind: str) -> None:
    whole = torch.randn(6, 4)
    assert (
        _saved(odd={"column": whole[:, 1], "transposed": whole.t(), "empty": whole[:0]}[kind]) == []
    )


class _Hostile:
    def __reduce__(self) -> tuple[Any, ...]:
        return (pytest.fail, ("code of a checkpoint was run",))


def test_a_file_that_is_no_archive_or_hostile_holds_nothing_that_is_known() -> None:
    assert list(values_of({"torn.pt": Content.of(b"PK\x03\x04 torn", 0, 9)})) == []
    assert _saved(evil=_Hostile()) == []
