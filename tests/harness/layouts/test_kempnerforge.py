"""The documented layout, judged on real files of torch's distributed checkpoints."""

from __future__ import annotations

import io
import os
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from harness.layouts.archive import Inert, read_pickle
from harness.layouts.kempnerforge import KempnerForge
from harness.world import World
from tests.harness.layouts.directories import checkpoint, tree_of

LAYOUT = KempnerForge()


def _defects(root: Path, pp: int = 1) -> tuple[str, ...]:
    return LAYOUT.defects(tree_of(root), "step_4", World(pp=pp))


@pytest.mark.parametrize("pp", [1, 2])
def test_a_real_checkpoint_has_no_defects(tmp_path: Path, pp: int) -> None:
    checkpoint(tmp_path, pp=pp)
    assert _defects(tmp_path, pp) == ()


def _cut(name: str, keep: int) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        data = (folder / name).read_bytes()
        (folder / name).write_bytes(data[:keep])

    return damage


def _drop(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def _write(name: str, text: str) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        (folder / name).write_text(text)

    return damage


@pytest.mark.parametrize(
    ("damage", "described"),
    [
        (_drop(".metadata"), ".metadata is missing"),
        (_cut(".metadata", 0), ".metadata is empty"),
        (_cut(".metadata", 300), ".metadata is not a complete pickle"),
        (_drop("__0_0.distcp"), "__0_0.distcp is missing"),
        (_cut("__0_0.distcp", 100), "__0_0.distcp has 100 of at least"),
        (_drop("train_state.pt"), "train_state.pt is missing"),
        (_cut("train_state.pt", 0), "train_state.pt is empty"),
        (_cut("train_state.pt", 900), "train_state.pt is not a complete archive"),
        (_drop("metadata.json"), "metadata.json is missing"),
        (_cut("metadata.json", 5), "metadata.json is not JSON"),
        (_write("metadata.json", '{"step": 2}'), "metadata.json is of step 2"),
        (_write("manifest.json", "{"), "manifest.json is not JSON"),
        (_write("rank0.pt", ""), "rank0.pt is empty"),
        (_write(".metadata.tmp", ""), ".metadata.tmp is a stray temporary file"),
    ],
)
def test_damage_is_a_defect(tmp_path: Path, damage: Callable[[Path], None], described: str) -> None:
    damage(checkpoint(tmp_path))
    assert [one[: len(described)] for one in _defects(tmp_path)] == [described]


def test_a_train_state_of_another_step_is_a_defect(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path)
    torch.save({"step": 2}, folder / "train_state.pt")
    assert _defects(tmp_path) == ("train_state.pt is of step 2",)


def test_a_missing_stage_is_a_defect_and_so_is_one_too_many(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path, pp=2)
    assert _defects(tmp_path, pp=1) == ("has stages [0, 1], the job has 1",)
    for one in (folder / "pp1").iterdir():
        one.unlink()
    assert _defects(tmp_path, pp=2) == ("pp1/.metadata is missing",)


def test_only_exact_names_are_checkpoints(tmp_path: Path) -> None:
    for name in ("step_4", "step_4.tmp", ".staging-step_6", "old-step_900", "step_8\n"):
        (tmp_path / name).mkdir()
    (tmp_path / "step_10").write_text("a file")
    assert LAYOUT.checkpoints(tree_of(tmp_path)) == {"step_4": 4}
    assert [LAYOUT.owned(name) for name in ("step_4", "latest", "step_4.tmp")] == [
        True,
        True,
        False,
    ]


@pytest.mark.parametrize(
    ("text", "state"),
    [
        ("step_4", "checkpoint"),
        ("./step_4/", "checkpoint"),
        ("step_6", "dangling"),
        ("latest", "astray"),
        ("/somewhere/step_4", "astray"),
        ("step_4/pp0", "astray"),
        ("..", "astray"),
    ],
)
def test_latest_is_followed(tmp_path: Path, text: str, state: str) -> None:
    checkpoint(tmp_path)
    (tmp_path / "step_4" / "pp0").mkdir()
    assert LAYOUT.latest(tree_of(tmp_path)).state == "absent"
    (tmp_path / "latest").symlink_to(text)
    assert LAYOUT.latest(tree_of(tmp_path)).state == state
    assert LAYOUT.published(tmp_path) == (4 if state == "checkpoint" else None)


def test_latest_may_name_a_directory_that_has_another_name_for_the_time_being(
    tmp_path: Path,
) -> None:
    checkpoint(tmp_path)
    (tmp_path / "step_4").rename(tmp_path / ".replaced-step_4")
    (tmp_path / "latest").symlink_to(".replaced-step_4")
    tree = tree_of(tmp_path)
    assert LAYOUT.latest(tree).name == ".replaced-step_4"
    assert LAYOUT.defects(tree, ".replaced-step_4", World()) == ()
    assert LAYOUT.published(tmp_path) is None


def test_a_directory_in_the_place_of_latest_leads_astray(tmp_path: Path) -> None:
    (tmp_path / "latest").mkdir()
    assert LAYOUT.latest(tree_of(tmp_path)).state == "astray"
    assert LAYOUT.published(tmp_path) is None


def test_the_freeze_metadata_is_read(tmp_path: Path) -> None:
    checkpoint(tmp_path)
    assert LAYOUT.freeze(tree_of(tmp_path), "step_4") == [{"module": "adapter", "frozen": True}]
    assert LAYOUT.freeze(tree_of(tmp_path), "step_6") is None


class _Bomb:
    def __reduce__(self) -> tuple[Callable[[int], None], tuple[int]]:
        return (os._exit, (9,))


def test_a_pickle_runs_nothing() -> None:
    assert isinstance(read_pickle(io.BytesIO(pickle.dumps(_Bomb()))), Inert)


@pytest.mark.parametrize(
    ("text", "state"),
    [("step_4\n", "checkpoint"), ("step_6\n", "dangling"), ("step_4", "astray"), ("", "astray")],
)
def test_latest_may_be_a_file_of_one_line(tmp_path: Path, text: str, state: str) -> None:
    (tmp_path / "step_4").mkdir()
    (tmp_path / "latest").write_text(text)
    assert LAYOUT.latest(tree_of(tmp_path)).state == state
    assert LAYOUT.published(tmp_path) == (4 if text.startswith("step_4") else None)
