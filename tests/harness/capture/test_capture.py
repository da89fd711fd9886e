"""`capture`: findings become actions of a scenario, and what cannot be expressed is listed."""

from __future__ import annotations

import errno
import os
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

from harness.__main__ import main
from harness.capture import capture as capturing
from harness.capture.command import capture_directory
from harness.scenario.read import check_source
from harness.scenario.schema import Scenario
from harness.scenario.source import parse_source
from kempnerforge.checkpoint.format import layout
from tests.checkpoint.failing_reads import failing_paths
from tests.checkpoint.newer import make_newer
from tests.cli.checkpoints import SHARD, flip, save, save_plain
from tests.cli.test_unreadable import unreadable


def text_of(root: Path, *, deep: bool = False) -> str:
    """What is written of a directory."""
    return capture_directory(root, None, deep=deep)[1]


def captured(root: Path, *, deep: bool = False) -> tuple[Scenario, list[str]]:
    """The scenario as the harness reads it, and the comments."""
    text = text_of(root, deep=deep)
    source = parse_source(text, shown="captured.yaml")
    comments = [line.removeprefix("#   ") for line in text.splitlines() if line.startswith("#")]
    return check_source(source, gpus=0), comments


def actions(scenario: Scenario) -> list[dict[str, object]]:
    return [one.model_dump(exclude_unset=True) for one in scenario.runs[1].before]


def test_an_undamaged_directory_is_a_job_with_as_many_checkpoints(tmp_path: Path) -> None:
    for step in (4, 6):
        save(tmp_path, step)
    scenario, comments = captured(tmp_path, deep=True)
    assert scenario.checkpoint.interval == 2
    assert scenario.checkpoint.keep_last_n == 2
    assert [run.until_step for run in scenario.runs] == [6, 8]
    assert actions(scenario) == []
    assert scenario.world.size == 1
    assert "step_4: committed, 5 files" in comments
    assert f"  {SHARD} 5" in comments


def test_each_damaged_file_is_an_action(tmp_path: Path) -> None:
    paths = [save(tmp_path, step, content=b"shard of %d" % step) for step in (2, 4, 6, 8)]
    (paths[0] / layout.TRAIN_STATE).unlink()
    (paths[1] / SHARD).write_bytes(b"sh")
    (paths[2] / SHARD).write_bytes(b"")
    flip(paths[3] / layout.METADATA)
    scenario, _ = captured(tmp_path, deep=True)
    assert actions(scenario) == [
        {"delete": {"path": "step_2/train_state.pt"}},
        {"truncate": {"path": f"step_4/{SHARD}"}},
        {"truncate": {"path": f"step_6/{SHARD}", "to": 0}},
        {"flip_bit": {"path": "step_8/metadata.json"}},
    ]


def test_files_that_changed_places_are_one_exchange(tmp_path: Path) -> None:
    one, other = (save(tmp_path, step, content=b"shard of %d" % step) for step in (2, 4))
    (one / SHARD).rename(tmp_path / "aside")
    (other / SHARD).rename(one / SHARD)
    (tmp_path / "aside").rename(other / SHARD)
    scenario, _ = captured(tmp_path, deep=True)
    assert actions(scenario) == [{"swap": {"path": f"step_2/{SHARD}", "against": "step_4"}}]


def test_a_torn_checkpoint_is_compared_with_a_whole_one(tmp_path: Path) -> None:
    save(tmp_path, 2)
    torn = save(tmp_path, 4)
    (torn / layout.MANIFEST).unlink()
    (torn / SHARD).unlink()
    scenario, comments = captured(tmp_path)
    assert actions(scenario) == [
        {"delete": {"path": f"step_4/{SHARD}"}},
        {"delete": {"path": "step_4/manifest.json"}},
    ]
    assert "changed bytes in files of the right size: --deep looks for them" in comments


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("step_4", []),
        ("step_2", [{"latest": {"step": 2}}]),
        ("step_9", [{"latest": {"becomes": "dangling"}}]),
        (None, [{"latest": {"becomes": "absent"}}]),
    ],
)
def test_latest_is_what_it_was(tmp_path: Path, target: str | None, expected: list[object]) -> None:
    save(tmp_path, 2)
    save(tmp_path, 4)
    (tmp_path / "latest").unlink()
    if target is not None:
        (tmp_path / "latest").symlink_to(target)
    assert actions(captured(tmp_path)[0]) == expected


def test_a_latest_that_is_a_directory_and_one_that_leads_elsewhere(tmp_path: Path) -> None:
    save(tmp_path, 2)
    (tmp_path / "latest").unlink()
    (tmp_path / "latest").symlink_to("/elsewhere")
    scenario, comments = captured(tmp_path)
    assert actions(scenario) == []
    assert "`latest` names /elsewhere" in comments
    (tmp_path / "latest").unlink()
    (tmp_path / "latest").mkdir()
    assert actions(captured(tmp_path)[0]) == [{"latest": {"becomes": "directory"}}]


def test_leftovers_and_foreign_names_are_made_and_the_rest_is_listed(tmp_path: Path) -> None:
    save(tmp_path, 2)
    for name in (
        ".staging-step_4-00c0ffee00c0ffee",
        ".trash-step_0-00c0ffee00c0ffee",
        "step_2.bak",
        "a name: {of: somebody}\n- else",
    ):
        (tmp_path / name).mkdir()
    (tmp_path / "notes.txt").touch()
    (tmp_path / "best").symlink_to("step_2")
    (tmp_path / ".latest-00c0ffee00c0ffee").symlink_to("step_2")
    scenario, comments = captured(tmp_path)
    assert actions(scenario) == [
        {"leftover": {"kind": "link"}},
        {"leftover": {"kind": "staging"}},
        {"foreign": {"path": "best", "kind": "link"}},
        {"foreign": {"path": "notes.txt", "kind": "file"}},
        {"foreign": {"path": "step_2.bak", "kind": "directory"}},
    ]
    assert ".trash-step_0-00c0ffee00c0ffee was left behind" in comments
    assert r"a foreign name: a name: {of: somebody}\x0a- else" in comments


def test_large_steps_keep_their_order_and_the_comment_says_which_is_which(tmp_path: Path) -> None:
    for step in (5000, 5500, 6000):
        save(tmp_path, step)
    (tmp_path / "step_5500" / SHARD).unlink()
    scenario, comments = captured(tmp_path)
    assert [run.until_step for run in scenario.runs] == [6, 8]
    assert actions(scenario) == [{"delete": {"path": f"step_4/{SHARD}"}}]
    assert "step_5000 is step_2, step_5500 is step_4, step_6000 is step_6 here" in comments


def test_freeze_settings_are_those_of_the_checkpoints(tmp_path: Path) -> None:
    frozen = {"vlm_freeze": [{"module": "vision_encoder", "frozen": True}, {"module": "lora"}]}
    save(tmp_path, 2, metadata=frozen)
    scenario, comments = captured(tmp_path)
    assert scenario.model.preset == "tiny_vlm"
    assert [(one.module, one.frozen) for one in scenario.freeze.base] == [("vision_encoder", True)]
    assert "a freeze setting: {'module': 'lora'}" in comments


def test_a_job_of_many_ranks_and_a_plain_checkpoint_are_made_smaller(tmp_path: Path) -> None:
    path = save_plain(tmp_path, 3)
    for rank in range(1, 16):
        (path / f"__{rank}_0.distcp").write_bytes(b"shard")
    other = save_plain(tmp_path, 6)
    for rank in range(1, 15):
        (other / f"__{rank}_0.distcp").write_bytes(b"shard")
    path.joinpath("__13_0.distcp").unlink()
    scenario, comments = captured(tmp_path)
    assert scenario.world.dp_shard == 2
    assert "the job had 15 ranks in 1 stages; here are 2 ranks in 1" in comments
    assert {"delete": {"path": "step_3/__1_0.distcp"}} in actions(scenario)


def test_a_directory_without_checkpoints_cannot_be_captured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["capture", str(tmp_path)]) == 2
    assert "contains no checkpoint" in capsys.readouterr().err
    assert main(["capture", str(tmp_path / "none")]) == 2
    assert "is not a directory" in capsys.readouterr().err


def test_a_file_is_written_once_and_never_over_another(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "checkpoints"
    save(root, 2)
    file = tmp_path / "captured.yaml"
    assert main(["capture", str(root), "-o", str(file)]) == 0
    assert file.read_text(encoding="utf-8") == capsys.readouterr().out
    assert main(["capture", str(root), "-o", str(file)]) == 2
    assert "exists" in capsys.readouterr().err


def test_what_cannot_be_read_is_listed_and_the_scenario_may_be_incomplete(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save(tmp_path, 1)
    save(tmp_path, 3)
    with failing_paths(unreadable(tmp_path / "step_3" / "manifest.json", errno.EIO)):
        assert main(["capture", str(tmp_path)]) == 1
    text = capsys.readouterr().out
    assert "# could not be read:" in text
    assert f"manifest.json cannot be read at present: {os.strerror(errno.EIO)}" in text


def test_a_newer_format_is_named(tmp_path: Path) -> None:
    save(tmp_path, 1)
    make_newer(save(tmp_path, 3))
    assert "newer version of this package, format" in text_of(tmp_path)


def test_a_pointer_that_is_a_file_is_one_in_the_scenario(tmp_path: Path) -> None:
    save(tmp_path, 2)
    (tmp_path / "latest").unlink()
    (tmp_path / "latest").write_text("step_2\n")
    scenario, _ = captured(tmp_path)
    assert scenario.checkpoint.latest == "file"
    assert actions(scenario) == []


def test_a_name_that_looks_like_a_pattern_hits_that_file_alone(tmp_path: Path) -> None:
    path = save(tmp_path, 2, extra={"odd[1].bin": b"odd", "odd1.bin": b"odd"})
    (path / "odd[1].bin").unlink()
    (action,) = actions(captured(tmp_path)[0])
    pattern = str(action["delete"]["path"])  # type: ignore[index]
    assert fnmatchcase("step_2/odd[1].bin", pattern)
    assert not fnmatchcase("step_2/odd1.bin", pattern)


def test_a_name_that_no_line_of_text_holds_is_listed(tmp_path: Path) -> None:
    (save_plain(tmp_path, 2) / "a\nb").touch()
    (save_plain(tmp_path, 4) / layout.TRAIN_STATE).unlink()
    scenario, comments = captured(tmp_path)
    assert actions(scenario)[1:] == [{"delete": {"path": "step_4/train_state.pt"}}]
    assert "step_4/a\\x0ab: is missing" in comments


@pytest.mark.parametrize("bad", [{"delete": {"path": ""}}, {"foreign": {"path": "-", "kind": "x"}}])
def test_what_the_language_refuses_is_listed(bad: dict[str, dict[str, object]]) -> None:
    notes = capturing._Remarks()
    ((word, settings),) = bad.items()
    assert list(notes.action(word, settings, "that")) == []
    assert notes.unexpressed == ["that"]


def test_whatever_names_say_the_text_is_a_scenario(tmp_path: Path) -> None:
    save(tmp_path, 2)
    for name in ("\x1b[31m", '"', "a\\", "*", "[x]", "é", "-", "null", "yes", "1", "a: b", "# c"):
        (tmp_path / name).mkdir()
    os.mkdir(os.fsencode(tmp_path) + b"/\xff")
    scenario, comments = captured(tmp_path)
    assert actions(scenario) == [
        {"foreign": {"path": "null", "kind": "directory"}},
        {"foreign": {"path": "yes", "kind": "directory"}},
    ]
    assert sum(line.startswith("a foreign name: ") for line in comments) == 11
