"""The contract of every layout: what those who ask it rely on."""

from __future__ import annotations

from fnmatch import fnmatchcase
from pathlib import Path

import pytest

from harness.faults.actions import Foreign, Naming
from harness.layouts.base import Layout
from harness.layouts.registry import DEFAULT, LAYOUTS, is_owned, renumber
from harness.plan.model import Implementation
from harness.world import World
from tests.harness.layouts.directories import WHOLE, tree_of

STEPS = (0, 1, 4, 12, 100, 123456)
every_layout = pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)


def test_a_layout_is_found_by_its_name() -> None:
    assert {name: layout.name for name, layout in LAYOUTS.items()} == {one: one for one in LAYOUTS}
    assert Implementation().layout == DEFAULT


@every_layout
def test_a_name_that_is_made_is_read_back(layout: Layout) -> None:
    for step in STEPS:
        name = layout.name_of(step)
        assert layout.step_of(name) == step
        assert fnmatchcase(name, layout.any_name)
        assert layout.owned(name)
        assert is_owned(name)


@every_layout
def test_no_other_name_is_read_as_that_of_a_checkpoint(layout: Layout) -> None:
    name = layout.name_of(4)
    others = (
        f"{name}.tmp",
        f".staging-{name}",
        f"old-{name}",
        f"{name}\n",
        f"{name}/x",
        f" {name}",
    )
    for other in (*others, "", layout.prefix, f"{layout.prefix}٤", *layout.lookalikes):
        assert layout.step_of(other) is None
        assert not layout.owned(other)


@every_layout
def test_names_that_look_alike_can_be_left_by_somebody(layout: Layout) -> None:
    for name in layout.lookalikes:
        assert Foreign(foreign=Naming(path=name, kind="directory")).foreign.path == name
        assert not is_owned(name)


@every_layout
def test_the_step_in_the_name_of_something_unfinished_is_found(layout: Layout) -> None:
    assert layout.step_in(f".staging-{layout.name_of(12)}-ab") == 12
    assert layout.step_in("notes.txt") is None


@every_layout
def test_steps_in_a_text_become_others_and_nothing_else_does(layout: Layout) -> None:
    text = f"{layout.name_of(4)}/*.distcp {layout.name_of(12)} 4"
    expected = f"{layout.name_of(5)}/*.distcp {layout.name_of(13)} 4"
    assert layout.renumber(text, lambda step: step + 1) == expected
    assert renumber(text, lambda step: step + 1) == expected


@every_layout
def test_a_pointer_is_owned_and_is_no_checkpoint(layout: Layout) -> None:
    if layout.pointer is not None:
        assert layout.owned(layout.pointer)
        assert layout.step_of(layout.pointer) is None
        assert layout.is_pointer(f".{layout.pointer}-new")
        assert not layout.is_pointer(f"{layout.name_of(4)}/{layout.pointer}")


@every_layout
def test_the_kinds_of_files_are_those_of_a_checkpoint(layout: Layout, tmp_path: Path) -> None:
    folder = WHOLE[layout.name](tmp_path, 4)
    names = {str(one.relative_to(folder)) for one in folder.rglob("*")}
    assert {layout.summary, *layout.pickles} <= names
    assert layout.shards in {layout.pattern_of(name) for name in names}
    assert layout.pattern_of(layout.summary) == layout.summary
    assert layout.is_seal(f"{folder.name}/{layout.summary}")
    assert layout.is_seal(f".staging/{layout.summary}.tmp")
    assert not any(layout.is_seal(name) for name in names if layout.pattern_of(name) != name)


@every_layout
def test_a_whole_checkpoint_has_no_defects(layout: Layout, tmp_path: Path) -> None:
    folder = WHOLE[layout.name](tmp_path, 4)
    assert layout.checkpoints(tree_of(tmp_path)) == {folder.name: 4}
    assert layout.defects(tree_of(tmp_path), folder.name, World()) == ()


@every_layout
@pytest.mark.parametrize("how", ["missing", "empty", "cut off"])
def test_damage_to_a_file_that_the_layout_knows_is_seen(
    layout: Layout, how: str, tmp_path: Path
) -> None:
    folder = WHOLE[layout.name](tmp_path, 4)
    known = {layout.summary, *layout.pickles, *(one.name for one in folder.glob(layout.shards))}
    for name in sorted(known):
        data = (folder / name).read_bytes()
        if how == "missing":
            (folder / name).unlink()
        else:
            (folder / name).write_bytes(b"" if how == "empty" else data[: len(data) // 2])
        is_called_one = folder.name in layout.checkpoints(tree_of(tmp_path))
        assert not is_called_one or layout.defects(tree_of(tmp_path), folder.name, World()), name
        (folder / name).write_bytes(data)
    assert layout.defects(tree_of(tmp_path), folder.name, World()) == ()


@every_layout
def test_what_only_has_the_name_is_no_whole_checkpoint(layout: Layout, tmp_path: Path) -> None:
    (tmp_path / layout.name_of(2)).write_text("a file")
    (tmp_path / layout.name_of(4)).mkdir()
    (tmp_path / layout.name_of(6)).symlink_to(layout.name_of(4))
    found = layout.checkpoints(tree_of(tmp_path))
    assert set(found) <= {layout.name_of(4)}
    assert all(layout.defects(tree_of(tmp_path), name, World()) for name in found)


@every_layout
def test_the_newest_checkpoint_is_published(layout: Layout, tmp_path: Path) -> None:
    assert layout.published(tmp_path / "none") is None
    assert layout.published(tmp_path) is None
    assert layout.latest(tree_of(tmp_path)).state == "absent"
    for step in (4, 12):
        folder = WHOLE[layout.name](tmp_path, step)
        if layout.pointer is not None:
            (tmp_path / layout.pointer).unlink(missing_ok=True)
            (tmp_path / layout.pointer).symlink_to(folder.name)
            assert layout.latest(tree_of(tmp_path)).name == folder.name
        assert layout.published(tmp_path) == step
    if layout.completes is not None:
        (folder / layout.completes).unlink()
        assert layout.published(tmp_path) == 4
        assert set(layout.checkpoints(tree_of(tmp_path))) == {layout.name_of(4)}


@every_layout
def test_the_phases_of_a_save_into_a_directory_of_its_own(layout: Layout) -> None:
    name, staging = layout.name_of(4), f".staging-{layout.name_of(4)}"
    tracker = layout.tracker()
    tracker.save_began(0, 4, 1)
    shard = layout.shards.replace("*", "__0_0")
    operations = (
        ("mkdir", staging, None, "stage"),
        ("write", f"{staging}/{shard}", None, "flush"),
        ("write", f"{staging}/{layout.summary}", None, "seal"),
        ("fsync", staging, None, "seal"),
        ("rename", staging, name, "publish"),
        ("fsync", ".", None, "publish"),
        ("rename", layout.name_of(2), ".gone", "prune"),
        ("unlink", ".gone/x", None, "prune"),
    )
    for kind, path, target, phase in operations:
        assert (kind, path, *tracker.place(0, kind, path, target)) == (kind, path, 1, phase)


@pytest.mark.parametrize(
    "layout", [one for one in LAYOUTS.values() if one.completes], ids=lambda one: str(one.name)
)
def test_the_phases_of_a_save_in_place(layout: Layout) -> None:
    name, last = layout.name_of(4), layout.completes or ""
    tracker = layout.tracker()
    tracker.save_began(0, 4, 1)
    operations = (
        ("mkdir", name, None, "stage"),
        ("write", f"{name}/{layout.shards.replace('*', '__0_0')}", None, "flush"),
        ("fsync", name, None, "seal"),
        ("write", f"{name}/{last}.tmp", None, "seal"),
        ("rename", f"{name}/{last}.tmp", f"{name}/{last}", "publish"),
        ("unlink", f"{layout.name_of(2)}/{last}", None, "prune"),
        ("rmdir", layout.name_of(2), None, "prune"),
    )
    for kind, path, target, phase in operations:
        assert (kind, path, *tracker.place(0, kind, path, target)) == (kind, path, 1, phase)
