"""The operator really changes the disk, tells what it did, and says so where it found nothing."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

from harness.content import Content
from harness.disk.tree import FileSystem
from harness.evidence.evidence import BEFORE, AtRest
from harness.evidence.operation import Operation
from harness.evidence.store import ByteStore
from harness.evidence.write import list_entries
from harness.layouts.archive import read_pickle, read_torch_file
from harness.layouts.registry import DEFAULT, LAYOUTS
from harness.plan.model import OperatorAction
from harness.run.at_rest import do_at_rest
from harness.run.operator import DirectoryOperator
from harness.run.pickles import make_hostile
from harness.scenario.schema import Run


def decided(choice: int = 5, **action: Any) -> OperatorAction:
    """A planned action, as a file spells it."""
    run = Run.model_validate({"until_step": 2, "before": (action,)})
    return OperatorAction(id="d", action=run.before[0], choice=choice)


@pytest.fixture
def operator(tmp_path: Path) -> DirectoryOperator:
    """A directory with two checkpoints, told from its first file on."""
    (tmp_path / "checkpoints").mkdir()
    found = DirectoryOperator(tmp_path / "checkpoints", ByteStore(tmp_path / "written.bin"))
    for step in (2, 4):
        found.make(f"step_{step}")
        found.put(f"step_{step}/__0_0.distcp", b"shard of step %d" % step)
        found.put(f"step_{step}/metadata.json", b'{"step": %d}' % step)
        found.put(f"step_{step}/.metadata", pickle.dumps({"step": step}))
    found.link("latest", "step_4")
    return found


def act(
    operator: DirectoryOperator, *actions: OperatorAction, earlier: tuple[Operation, ...] = ()
) -> AtRest:
    """Do the actions, and require that what they told explains what is on the disk."""
    written = ByteStore(operator.root.with_name(BEFORE))
    found = do_at_rest(actions, operator.root, earlier, written, LAYOUTS[DEFAULT])
    files = FileSystem()
    for operation in operator.operations:
        files.apply(operation, operator.written)
    for done in found.done:
        for operation in done.operations:
            files.apply(operation, found.written)
    assert files.snapshot() == found.after
    return found


SHARDS = {"step_2/__0_0.distcp", "step_4/__0_0.distcp"}


@pytest.mark.parametrize(
    ("action", "expected"),
    [
        ({"flip_bit": {"path": "step_4/*.distcp", "byte": 0}}, {"step_4/__0_0.distcp"}),
        ({"flip_bit": {"path": "*.distcp", "every": True}}, SHARDS),
        ({"truncate": {"path": "step_2/*.json"}}, {"step_2/metadata.json"}),
        ({"delete": {"path": "step_4/.metadata"}}, {"step_4/.metadata"}),
        ({"swap": {"path": "step_4/*.distcp", "against": "step_2"}}, SHARDS),
        ({"half_delete": {"path": "step_4"}}, {"step_4/.metadata", "step_4/__0_0.distcp"}),
        ({"hostile": {"path": "step_4/.metadata"}}, {"step_4/.metadata"}),
        ({"write": {"path": "step_4/metadata.json", "text": "{}"}}, {"step_4/metadata.json"}),
        ({"foreign": {"path": "a", "kind": "directory"}}, {"a", "a/notes.txt"}),
        ({"latest": {"becomes": "absent"}}, {"latest"}),
        ({"latest": {"becomes": "dangling"}}, {"latest"}),
        ({"latest": {"step": 2}}, {"latest"}),
    ],
)  # fmt: skip
def test_an_action_changes_what_it_names_and_nothing_else(
    operator: DirectoryOperator, action: dict[str, Any], expected: set[str]
) -> None:
    before = list_entries(operator.root)
    found = act(operator, decided(**action))
    assert [one.problem for one in found.done] == [None]
    assert {path for path, _ in before.items() ^ found.after.items()} == expected


def test_latest_becomes_a_directory_with_what_it_named(operator: DirectoryOperator) -> None:
    found = act(operator, decided(latest={"becomes": "directory"})).after
    assert found["latest"].kind == "directory"
    assert found["latest/metadata.json"] == found["step_4/metadata.json"]


@pytest.mark.parametrize(
    ("latest", "expected"),
    [({"step": 2}, "step_2\n"), ({"becomes": "dangling"}, "step_5\n")],
)
def test_a_pointer_that_is_a_file_stays_one(
    operator: DirectoryOperator, latest: dict[str, Any], expected: str
) -> None:
    operator.remove("latest")
    operator.put("latest", b"step_4\n")
    found = act(operator, decided(latest=latest))
    assert found.after["latest"].kind == "file"
    assert operator.read("latest").decode() == expected


def test_a_directory_takes_the_place_of_a_pointer_that_is_a_file(
    operator: DirectoryOperator,
) -> None:
    operator.remove("latest")
    operator.put("latest", b"step_2\n")
    found = act(operator, decided(latest={"becomes": "directory"})).after
    assert found["latest/metadata.json"] == found["step_2/metadata.json"]


@pytest.mark.parametrize(
    ("action", "expected"),
    [
        ({"flip_bit": {"path": "step_6/*"}}, "nothing matches the pattern"),
        ({"flip_bit": {"path": "*/metadata.json", "byte": 99}}, "step_4/metadata.json has 11"),
        ({"truncate": {"path": "step_4/metadata.json", "to": 11}}, "step_4/metadata.json has 11"),
        ({"swap": {"path": "step_4/*.distcp", "against": "step_6"}}, "step_6 has no other file"),
        ({"hostile": {"path": "step_4/metadata.json"}}, "step_4/metadata.json is not a pickle: "),
        ({"write": {"path": "step_4/metadata.json", "text": '{"step": 4}'}}, "changed nothing"),
        ({"foreign": {"path": "latest", "kind": "file"}}, "latest already exists"),
        ({"leftover": {"kind": "staging"}}, "no earlier save renamed a staging into place"),
        ({"latest": {"step": 6}}, "there is no step_6"),
        ({"latest": {"step": 4}}, "changed nothing"),
        ({"relocate": {"how": "move", "to": "checkpoints"}}, "checkpoints already exists"),
    ],
)  # fmt: skip
def test_an_action_that_finds_nothing_is_the_last_and_says_why(
    operator: DirectoryOperator, action: dict[str, Any], expected: str
) -> None:
    if "foreign" in action:
        operator.remove("latest")
        operator.link("latest", "step_2")
    found = act(operator, decided(**action), decided(latest={"becomes": "absent"}))
    (done,) = found.done
    assert (done.problem or "").startswith(expected)


def test_the_choice_of_the_plan_decides_which_file_and_which_byte(
    operator: DirectoryOperator,
) -> None:
    def paths(choice: int) -> list[tuple[str, int]]:
        found = act(operator, decided(choice, flip_bit={"path": "*.distcp"}))
        write = next(one for one in found.done[0].operations if one.kind == "write")
        act(operator, decided(choice, flip_bit={"path": "*.distcp"}))  # and back again
        return [(write.path, write.offset)]

    assert paths(5) == paths(5) == [("step_4/__0_0.distcp", 5)]
    assert paths(6) == [("step_2/__0_0.distcp", 6)]


@pytest.mark.parametrize("how", ["move", "copy"])
def test_a_relocated_directory_is_the_same_elsewhere(operator: DirectoryOperator, how: str) -> None:
    before = list_entries(operator.root)
    found = act(operator, decided(relocate={"how": how, "to": "elsewhere"}))
    assert found.after == before == list_entries(operator.root.parent / "elsewhere")
    assert found.behind == (before if how == "copy" else {})


def test_a_leftover_has_the_name_that_an_earlier_save_used(operator: DirectoryOperator) -> None:
    def renamed(path: str, target: str) -> Operation:
        return Operation(
            index=0, time_s=0, rank=0, thread=0, kind="rename", path=path, target=target
        )

    earlier = (renamed(".part-4", "step_4"), renamed(".link", "latest"))
    staging, link = decided(leftover={"kind": "staging"}), decided(leftover={"kind": "link"})
    found = act(operator, staging, link, earlier=earlier)
    assert [one.paths for one in found.done] == [(".part-4",), (".link",)]
    assert found.after[".part-4"].kind == "directory"
    assert found.after[".link"].detail == "step_4"


def test_a_hostile_pickle_runs_where_it_is_unpickled_and_means_what_it_did(tmp_path: Path) -> None:
    for protocol in (2, 4, 5):
        marker = tmp_path / f"marker{protocol}"
        value = {"step": 4, "again": [{"step": 4}] * 2}
        hostile = make_hostile(pickle.dumps(value, protocol=protocol), str(marker))
        assert read_pickle(io.BytesIO(hostile)) == value
        assert not marker.exists()
        assert pickle.loads(hostile) == value  # noqa: S301
        assert marker.exists()


def test_a_hostile_torch_file_runs_only_where_everything_is_allowed(tmp_path: Path) -> None:
    marker, file = tmp_path / "marker", io.BytesIO()
    value = {"step": 4, "tensor": torch.arange(3)}
    torch.save(value, file)
    hostile = make_hostile(file.getvalue(), str(marker))
    assert read_torch_file(Content.of(hostile, 0, len(hostile))).value["step"] == 4
    with pytest.raises(pickle.UnpicklingError):
        torch.load(io.BytesIO(hostile), weights_only=True)
    assert not marker.exists()
    found = torch.load(io.BytesIO(hostile), weights_only=False)
    assert (found["step"], found["tensor"].tolist()) == (4, [0, 1, 2])
    assert marker.exists()
