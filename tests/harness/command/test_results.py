"""A result is compared by its bytes, and where these differ, by the values in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch.distributed.checkpoint.state_dict_saver import save
from torch.utils.data import TensorDataset

from harness.evidence.operation import Operation
from harness.jobs.command.reading import read_values
from harness.run.command.results import files_below, make_reference, newest_checkpoint


def read(paths: Sequence[Path]) -> list[Mapping[str, str] | str]:
    found: list[Mapping[str, str] | str] = []
    for path in paths:
        try:
            found.append(read_values(str(path)))
        except Exception as error:  # noqa: BLE001 - as the command server does
            found.append(f"{type(error).__name__}: {error}")
    return found


def texts(here: Path, there: Path, *patterns: str) -> list[str]:
    reference = make_reference(patterns, here, read)
    return [f"{one.path} {one.text}" for one in reference.differences(there, read)]


def directories(tmp_path: Path) -> tuple[Path, Path]:
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
    return tmp_path / "here", tmp_path / "there"


def test_values_are_named(tmp_path: Path) -> None:
    here, there = directories(tmp_path)
    state = {"model": {"weight": torch.arange(4.0)}, "step": 3}
    torch.save(state, here / "a.pt")
    torch.save({**state, "step": 4}, there / "a.pt")
    assert texts(here, there, "a.pt") == ["a.pt differs in step"]


def test_equal_values_in_other_bytes_are_equal(tmp_path: Path) -> None:
    here, there = directories(tmp_path)
    one = torch.arange(4.0)
    torch.save({"a": one, "b": one.clone()}, here / "a.pt")
    torch.save({"b": one.clone(), "a": one}, there / "a.pt")
    assert (here / "a.pt").read_bytes() != (there / "a.pt").read_bytes()
    assert texts(here, there, "a.pt") == []


def test_a_missing_and_a_torn_file_are_said(tmp_path: Path) -> None:
    here, there = directories(tmp_path)
    save_file({"w": torch.ones(2)}, here / "w.safetensors")
    (here / "log.txt").write_text("one")
    (there / "w.safetensors").write_bytes(b"torn")
    found = texts(here, there, "*")
    assert found[0] == "log.txt is missing"
    assert found[1].startswith("w.safetensors cannot be read: SafetensorError")


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled")
def test_a_folder_of_dcp_is_one_result(tmp_path: Path) -> None:
    here, there = directories(tmp_path)
    for root, value in ((here, 1.0), (there, 2.0)):
        save({"w": torch.full((3,), value)}, checkpoint_id=root / "step-2", no_dist=True)
    assert list(files_below(here, ["*"])) == ["step-2"]
    assert texts(here, there, "*") == ["step-2 differs in w"]


def test_a_file_that_cannot_be_read_is_accused_of_nothing_unless_it_is_missing(
    tmp_path: Path,
) -> None:
    here, there = directories(tmp_path)
    (here / "a.pt").write_bytes(b"of a class that only the script has")
    (there / "a.pt").write_bytes(b"of the same class")
    assert texts(here, there, "a.pt") == []
    assert list(make_reference(("a.pt",), here, read).unreadable) == ["a.pt"]
    (there / "a.pt").unlink()
    assert texts(here, there, "a.pt") == ["a.pt is missing"]


def test_an_object_is_compared_by_its_attributes(tmp_path: Path) -> None:
    here, there = directories(tmp_path)
    for root, number in ((here, 1.0), (there, 2.0)):
        rows = TensorDataset(torch.full((3,), number))
        torch.save(rows, root / "a.pt")
        torch.save({"rows": rows, "twice": rows.tensors}, root / "b.pt")
    assert texts(here, there, "*.pt") == [
        "a.pt differs in tensors.0",
        "b.pt differs in rows.tensors.0, twice.0",
    ]
    torch.save({"twice": (torch.ones(3),), "rows": TensorDataset(torch.ones(3))}, there / "b.pt")
    assert texts(here, there, "b.pt") == []


def test_other_files_are_compared_by_their_bytes(tmp_path: Path) -> None:
    here, there = directories(tmp_path)
    (here / "state.json").write_text("1")
    (there / "state.json").write_text("2")
    assert texts(here, there, "*.json") == ["state.json has other bytes"]


def operation(kind: str, path: str, target: str | None = None) -> Operation:
    return Operation(index=0, time_s=0.0, rank=0, thread=1, kind=kind, path=path, target=target)


def test_the_newest_checkpoint_is_a_folder_with_a_number_before_a_pointer(tmp_path: Path) -> None:
    (tmp_path / "checkpoint-4").mkdir()
    (tmp_path / "checkpoint-4" / "model.safetensors").write_text("")
    (tmp_path / "latest").write_text("checkpoint-4")
    operations = [
        operation("write", "checkpoint-2/model.safetensors"),
        operation("rename", "checkpoint-4/.tmp", "checkpoint-4/model.safetensors"),
        operation("write", "latest"),
    ]
    assert newest_checkpoint(operations, tmp_path) == "checkpoint-4"


def test_a_file_can_be_a_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("")
    (tmp_path / "last.ckpt").write_text("")
    operations = [operation("write", "last.ckpt"), operation("write", "log.csv")]
    assert newest_checkpoint(operations, tmp_path) == "last.ckpt"
