"""The output and the exit status of each command."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from kempnerforge.checkpoint.format import layout
from kempnerforge.cli.__main__ import main
from tests.cli.checkpoints import SHARD, flip, save, save_plain
from tests.cli.conftest import Cli


def test_ls_lists_every_state(cli: Cli, tmp_path: Path) -> None:
    save_plain(tmp_path, 1)
    save(tmp_path, 2)
    (tmp_path / "step_3").mkdir()
    (tmp_path / ".trash-step_0-00c0ffee00c0ffee").mkdir()
    (tmp_path / "step_3.bak").mkdir()
    status, found = cli.json("ls", tmp_path)
    assert status == 1
    assert found["latest"] == {
        "target": "step_2",
        "problem": None,
        "note": None,
        "unreadable": None,
    }
    assert [(row["name"], row["state"], row["latest"]) for row in found["rows"]] == [
        ("step_1", "plain", False),
        ("step_2", "committed", True),
        ("step_3", "torn", False),
        (".trash-step_0-00c0ffee00c0ffee", "leftover", False),
    ]
    assert found["rows"][1]["tokens_seen"] == 20
    assert found["rows"][1]["world_size"] == 1
    status, text = cli.text("ls", tmp_path)
    assert "step_2 <- latest" in text
    assert "step_3: train_state.pt is missing" in text


def test_an_empty_directory_is_fine_to_list_and_a_missing_one_is_not(
    cli: Cli, tmp_path: Path
) -> None:
    assert cli.text("ls", tmp_path)[0] == 0
    status, text = cli.text("ls", tmp_path / "missing")
    assert status == 2
    assert "leads nowhere" in text
    (tmp_path / "file").touch()
    assert cli.text("ls", tmp_path / "file")[0] == 2
    assert cli.text("verify", tmp_path)[0] == 2
    assert cli.text("show", tmp_path)[0] == 2


def test_show_names_files_that_are_missing_short_or_foreign(cli: Cli, tmp_path: Path) -> None:
    path = save(tmp_path, 2)
    (path / SHARD).write_bytes(b"sh")
    (path / layout.TRAIN_STATE).unlink()
    (path / "extra").write_bytes(b"x")
    status, found = cli.json("show", tmp_path / "latest")
    assert status == 0
    assert found["files"][SHARD]["bytes"] == 2
    assert found["files"][SHARD]["expected"] == 5
    assert found["files"][layout.TRAIN_STATE]["bytes"] is None
    assert found["files"]["extra"] == {"bytes": 1, "expected": None, "crc32": None}
    assert found["manifest"]["step"] == 2
    assert "missing" in cli.text("show", path)[1]


def test_verify_finds_a_short_file_by_size_and_a_flipped_bit_by_reading(
    cli: Cli, tmp_path: Path
) -> None:
    save(tmp_path, 1)
    path = save(tmp_path, 2)
    assert cli.text("verify", "--deep", tmp_path)[0] == 0
    flip(path / SHARD)
    assert cli.text("verify", path)[0] == 0
    status, found = cli.json("verify", path, "--deep")
    assert status == 1
    assert found["level"] == "checksums"
    assert SHARD in found["problems"][0]
    (path / SHARD).write_bytes(b"")
    status, text = cli.text("verify", tmp_path)
    assert status == 1
    assert "step_1: whole" in text
    assert "step_2: BROKEN" in text


def test_verify_notices_a_dangling_latest_and_a_plain_checkpoint_without_its_shard(
    cli: Cli, tmp_path: Path
) -> None:
    path = save_plain(tmp_path, 1)
    assert cli.text("verify", tmp_path)[0] == 0
    (tmp_path / "latest").symlink_to("step_9")
    status, found = cli.json("verify", tmp_path)
    assert (status, found["latest"]["problem"]) == (1, "leads nowhere")
    (path / SHARD).unlink()
    assert SHARD in cli.json("verify", path)[1]["problems"][0]


def test_diff_tells_tensors_files_metadata_and_freeze_apart(cli: Cli, tmp_path: Path) -> None:
    def frozen(value: bool) -> dict[str, Any]:
        return {"vlm_freeze": [{"module": "adapter", "frozen": value}]}

    one = save(tmp_path, 1, metadata=frozen(True), tensors={"a": (2,), "b": (3, 4)})
    other = save(
        tmp_path, 2, metadata=frozen(False), tensors={"b": (4, 3), "c": ()}, content=b"other"
    )
    status, found = cli.json("diff", one, other)
    assert status == 1
    assert found["tensors_added"] == ["c"]
    assert found["tensors_removed"] == ["a"]
    assert found["tensors_changed"] == {"b": ["bfloat16[3, 4]", "bfloat16[4, 3]"]}
    assert found["files_changed"] == [SHARD]
    assert found["metadata"] == {"step": [1, 2], "tokens_seen": [10, 20]}
    assert found["freeze"] == {"adapter": [True, False]}
    assert found["compared_by"] == "checksums"
    status, text = cli.text("diff", one, other)
    assert "frozen adapter: True -> False" in text
    assert "different content" in text


def test_two_saves_of_the_same_state_are_the_same(cli: Cli, tmp_path: Path) -> None:
    one, other = save(tmp_path / "a", 1), save(tmp_path / "b", 1)
    assert cli.text("diff", one, other) == (0, "the same content (compared by checksums)\n")
    plain = save_plain(tmp_path / "c", 1)
    status, found = cli.json("diff", one, plain)
    assert (status, found["compared_by"], found["files_changed"]) == (1, "bytes", [])
    assert found["metadata"] == {"tokens_seen": [10, 1]}


def test_repair_points_latest_at_the_newest_that_verifies_when_asked_to(
    cli: Cli, tmp_path: Path
) -> None:
    save(tmp_path, 10)
    save(tmp_path, 20)
    save(tmp_path, 15)  # newer than 20, after a rollback
    flip(save(tmp_path, 30) / SHARD)
    status, found = cli.json("repair", tmp_path)
    assert (status, found["applied"], found["mended"]) == (1, False, True)
    assert [(step["action"], step["target"]) for step in found["steps"]] == [("point", "step_15")]
    assert (tmp_path / "latest").readlink() == Path("step_30")
    status, found = cli.json("repair", "--apply", tmp_path)
    assert (status, found["applied"]) == (0, True)
    assert (tmp_path / "latest").readlink() == Path("step_15")
    assert cli.text("repair", tmp_path) == (0, "nothing to repair\n")


def test_repair_leaves_a_latest_alone_that_an_operator_pointed_at_something_whole(
    cli: Cli, tmp_path: Path
) -> None:
    save(tmp_path, 1)
    save(tmp_path, 2)
    (tmp_path / "latest").unlink()
    (tmp_path / "latest").symlink_to("step_1")
    status, text = cli.text("repair", "--apply", tmp_path)
    assert (status, text.splitlines()[-1]) == (0, "nothing to repair")
    assert "note: step_2 was committed after step_1, which latest names" in text
    assert (tmp_path / "latest").readlink() == Path("step_1")


def test_repair_gives_a_checkpoint_that_was_set_aside_its_name_back(
    cli: Cli, tmp_path: Path
) -> None:
    save(tmp_path, 1)
    aside = ".replaced-step_2-00c0ffee00c0ffee"
    save(tmp_path, 2).rename(tmp_path / aside)
    status, text = cli.text("repair", tmp_path)
    assert status == 1
    assert f"would: rename {aside} -> step_2" in text
    assert cli.text("repair", "--apply", tmp_path)[0] == 0
    assert cli.text("verify", "--deep", tmp_path)[0] == 0
    assert (tmp_path / "latest").readlink() == Path("step_2")


def test_repair_says_so_where_nothing_can_be_resumed_from(cli: Cli, tmp_path: Path) -> None:
    assert cli.text("repair", tmp_path)[0] == 0
    (save(tmp_path, 1) / layout.TRAIN_STATE).unlink()
    status, text = cli.text("repair", "--apply", tmp_path)
    assert status == 1
    assert "no checkpoint verifies" in text
    assert (tmp_path / "latest").readlink() == Path("step_1")


def test_repair_sets_a_directory_called_latest_aside(cli: Cli, tmp_path: Path) -> None:
    path = save(tmp_path, 1)
    (tmp_path / "latest").unlink()
    (tmp_path / "latest").mkdir()
    (tmp_path / "latest" / "mine").touch()
    assert cli.text("repair", "--apply", tmp_path)[0] == 0
    assert (tmp_path / "latest").resolve() == path
    assert [p.name for p in tmp_path.glob("latest.aside-*/*")] == ["mine"]


def test_retain_deletes_the_oldest_whole_ones_only_when_asked_to(cli: Cli, tmp_path: Path) -> None:
    for step in (1, 2, 3, 4, 5, 6):
        save(tmp_path, step)
    (tmp_path / "step_6" / SHARD).unlink()
    (tmp_path / "step_9").mkdir()
    options = ("retain", tmp_path, "--keep-last-n", 1, "--keep-step", 1, "--milestones", "0:2")
    status, found = cli.json(*options)
    assert (status, found["applied"]) == (0, False)
    assert [step["name"] for step in found["steps"]] == ["step_3", "step_4"]
    assert found["kept"] == ["step_1", "step_2", "step_5"]
    assert found["ignored"] == ["step_6", "step_9"]
    assert len(list(tmp_path.glob("step_*"))) == 7
    assert cli.text(*options, "--apply")[0] == 0
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"latest", "step_1", "step_2", "step_5", "step_6", "step_9"}


def test_retain_does_not_count_flipped_bits_when_it_reads_them(cli: Cli, tmp_path: Path) -> None:
    save(tmp_path, 1)
    flip(save(tmp_path, 2) / SHARD)
    assert len(cli.json("retain", tmp_path, "--keep-last-n", 1)[1]["steps"]) == 1
    assert cli.json("retain", tmp_path, "--keep-last-n", 1, "--deep")[1]["steps"] == []


def test_wrong_arguments_exit_with_2(capfd: pytest.CaptureFixture[str]) -> None:
    for arguments in ([], ["nope"], ["retain", ".", "--keep-last-n", "0"]):
        with pytest.raises(SystemExit) as caught:
            main(arguments)
        assert caught.value.code == 2


def test_the_command_imports_neither_torch_nor_numpy(tmp_path: Path) -> None:
    save(tmp_path, 1)
    script = (
        "import sys; from kempnerforge.cli.__main__ import main; "
        f"assert main(['verify', '--deep', {str(tmp_path)!r}]) == 0; "
        "sys.exit(bool({'torch', 'numpy'} & set(sys.modules)))"
    )
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)


def test_capture_says_where_it_went(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["capture", "--deep", "checkpoints"])
    assert left.value.code == 2
    assert "`python -m harness capture DIR` makes scenarios" in capsys.readouterr().err
