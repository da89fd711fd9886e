"""`latest` as a link and as a file: written as configured, read in either form, refused early."""

import errno
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from kempnerforge.checkpoint import CheckpointError, UnsupportedStorageError
from kempnerforge.checkpoint.protocol import pointer
from kempnerforge.checkpoint.protocol.pointer import read_pointer, resolve_pointer
from kempnerforge.checkpoint.runtime.stale import RetryingStorage
from kempnerforge.checkpoint.runtime.storage import LocalStorage
from kempnerforge.cli.__main__ import main
from kempnerforge.config.schema import CheckpointConfig
from kempnerforge.resilience.elastic import resolve_resume_path
from tests.checkpoint.effects import give
from tests.checkpoint.storages import Refusing
from tests.checkpoint.training import Job

STORAGE = LocalStorage()


def new(directory: Path, **options: Any) -> Job:
    return Job(directory, 0, seed=1, **options)


def without_links(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, *_: object) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM), str(self))

    monkeypatch.setattr(Path, "symlink_to", refuse)


def test_a_file_is_one_line_with_the_name_of_the_newest_and_no_link(tmp_path: Path) -> None:
    job = new(tmp_path, latest="file")
    for step in (1, 20):
        job.save(step)
    latest = tmp_path / "checkpoints" / "latest"
    assert not latest.is_symlink()
    assert latest.read_bytes() == b"step_20\n"
    assert sorted(path.name for path in latest.parent.iterdir()) == ["latest", "step_1", "step_20"]


def test_a_file_is_followed_by_all_that_loads(tmp_path: Path) -> None:
    job = new(tmp_path, latest="file")
    for step in (1, 2, 3):
        job.save(step)
    root = tmp_path / "checkpoints"
    (root / "latest").write_bytes(b"step_2\n")  # as an operator rolls back
    reader = new(tmp_path)
    assert reader.manager.peek_saved_step() == 2
    assert resolve_resume_path(root) == root / "step_2"
    assert reader.load()[0] == 2
    assert reader.load(str(root / "latest"))[0] == 2
    assert reader.load(str(root))[0] == 2
    assert new(tmp_path, load_path=str(root / "latest")).load()[0] == 2


def test_retention_keeps_what_a_file_names(tmp_path: Path) -> None:
    job = new(tmp_path, latest="file", keep_last_n=1)
    job.save(1)
    names = ("link", "file", "link", "file")
    for step, latest in enumerate(names, start=2):
        job = new(tmp_path, latest=latest, keep_last_n=1)
        assert job.load()[0] == step - 1
        job.save(step)
        root = tmp_path / "checkpoints"
        assert sorted(path.name for path in root.iterdir()) == ["latest", f"step_{step}"]
        assert (root / "latest").is_symlink() is (latest == "link")
        assert read_pointer(root, STORAGE) == f"step_{step}"


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"step_1\n", "step_1"),
        (b"step_12", None),
        (b"step_1", None),  # of a client that sees fewer bytes than there are
        (b"step_01\n", None),
        (b"../elsewhere/step_1\n", None),
        (b"global_step1\n", None),
        (b"step_1\nstep_2\n", None),
        (b"\xff\xfe\n", None),
        (b"", None),
        (b"step_1\n" + b" " * 1000, None),
    ],
)
def test_a_file_counts_only_if_its_line_is_a_name_of_ours(
    tmp_path: Path, content: bytes, named: str | None
) -> None:
    (tmp_path / "step_1").mkdir()
    (tmp_path / "latest").write_bytes(content)
    assert read_pointer(tmp_path, STORAGE) == named
    expected = "latest" if named is None else named
    assert resolve_pointer(tmp_path, STORAGE) == tmp_path / expected


def test_a_pipe_of_that_name_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "latest")
    assert read_pointer(tmp_path, STORAGE) is None


def test_a_file_that_is_no_pointer_of_ours_hides_no_checkpoint(tmp_path: Path) -> None:
    new(tmp_path).save(1)
    (tmp_path / "checkpoints" / "latest").unlink()
    (tmp_path / "checkpoints" / "latest").write_text("global_step_100\n")
    assert new(tmp_path).load()[0] == 1


def test_commands_read_a_file_and_leave_it_one(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    job = new(tmp_path, latest="file", keep_last_n=0)
    for step in (1, 2, 3):
        job.save(step)
    del job
    root = tmp_path / "checkpoints"
    assert main(["ls", str(root), "--json"]) == 0
    rows = json.loads(capfd.readouterr().out)["rows"]
    assert {row["name"]: row["latest"] for row in rows} == {
        "step_1": False,
        "step_2": False,
        "step_3": True,
    }
    assert main(["verify", str(root / "latest")]) == 0
    assert main(["verify", str(root)]) == 0
    assert "step_3" in capfd.readouterr().out
    shutil.rmtree(root / "step_3")
    assert main(["verify", str(root)]) == 1
    assert main(["repair", "--apply", str(root)]) == 0
    assert (root / "latest").read_bytes() == b"step_2\n"
    assert main(["retain", "--keep-last-n", "1", "--apply", str(root)]) == 0
    assert sorted(path.name for path in root.iterdir()) == ["latest", "step_2"]


def test_repair_makes_a_file_where_there_are_no_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    new(tmp_path, latest="file").save(1)
    root = tmp_path / "checkpoints"
    (root / "latest").unlink()
    without_links(monkeypatch)
    assert main(["repair", "--apply", str(root)]) == 0
    assert (root / "latest").read_bytes() == b"step_1\n"


# Where there are no links.

SENTENCE = r'without symbolic links \(Operation not permitted\).*latest="file" in the configuration'


def test_a_directory_without_links_is_refused_when_the_manager_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_links(monkeypatch)
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(UnsupportedStorageError, match=SENTENCE):
        new(tmp_path)
    assert list((tmp_path / "checkpoints").iterdir()) == []
    new(tmp_path, latest="file").save(1)
    assert (tmp_path / "checkpoints" / "latest").read_bytes() == b"step_1\n"


def test_one_that_is_not_there_yet_is_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_links(monkeypatch)
    job = new(tmp_path)
    for step in (1, 2):
        with pytest.raises(UnsupportedStorageError, match=SENTENCE):
            job.save(step)
        assert list((tmp_path / "checkpoints").iterdir()) == []


def test_who_only_loads_there_needs_no_option(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_links(monkeypatch)
    new(tmp_path, latest="file").save(1)
    reader = new(tmp_path)
    assert reader.load()[0] == 1
    with pytest.raises(UnsupportedStorageError, match=SENTENCE):
        reader.save(2)
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == [
        "latest",
        "step_1",
    ]


def test_a_directory_in_which_nothing_can_be_made_is_not_said_to_lack_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = new(tmp_path)
    (tmp_path / "checkpoints").mkdir()
    give(
        job.manager,
        storage=Refusing(errno.EPERM, lambda name, *_: name in ("make_link", "make_directory")),
    )
    with pytest.raises(CheckpointError, match="Operation not permitted") as caught:
        job.save(1)
    assert "symbolic" not in str(caught.value)


def test_links_are_tried_before_the_first_save_and_not_again(tmp_path: Path) -> None:
    made: list[str] = []

    def note(name: str, *files: str) -> bool:
        if name == "make_link":
            made.append(files[0].split("-")[0])
        return False

    job = new(tmp_path)
    give(job.manager, storage=Refusing(errno.EIO, note))
    for step in (1, 2, 3):
        job.save(step)
    assert made == [".latest"] * 4


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="latest must be 'link' or 'file', found 'copy'"):
        CheckpointConfig(latest="copy")


# Who may only read.


@contextmanager
def nobody() -> Iterator[None]:
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def shared() -> Iterator[Path]:
    """A job's directory with what a dead run left, which other users may read."""
    made = Path(tempfile.mkdtemp())
    made.chmod(0o755)
    new(made).save(1)
    (made / "checkpoints" / ".staging-step_2-00c0ffee00c0ffee").mkdir()
    (made / "checkpoints" / ".trash-step_0-00c0ffee00c0ffee").mkdir()
    (made / "checkpoints" / ".latest-00c0ffee00c0ffee").symlink_to("step_1")
    yield made
    shutil.rmtree(made)


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user")
def test_a_user_who_may_only_read_loads_without_a_word_of_leftovers(
    shared: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = sorted(path.name for path in (shared / "checkpoints").iterdir())
    with nobody():
        assert new(shared).load()[0] == 1
    assert [record.getMessage() for record in caplog.records if record.levelname != "INFO"] == []
    assert sorted(path.name for path in (shared / "checkpoints").iterdir()) == before
    assert new(shared).load()[0] == 1
    assert sorted(path.name for path in (shared / "checkpoints").iterdir()) == ["latest", "step_1"]


@pytest.mark.parametrize("code", [errno.EROFS, errno.EACCES])
def test_a_read_only_medium_loads_without_a_word_of_leftovers(
    shared: Path, caplog: pytest.LogCaptureFixture, code: int
) -> None:
    class ReadOnly(Refusing):
        def may_change(self, directory: Path) -> bool:
            return False

    reading = {"names", "scan", "read", "size", "stamp", "stamps", "is_directory", "read_link"}
    reading |= {"resolve", "read_small", "checksum", "may_lag", "may_change", "note"}
    storage = ReadOnly(code, lambda name, *_: name not in reading)
    job = new(shared)
    give(job.manager, storage=RetryingStorage(storage))
    assert job.load()[0] == 1
    assert storage.refused == []
    assert [record.getMessage() for record in caplog.records if record.levelname != "INFO"] == []


# The bugs that the tests above exist for.


def test_a_probe_that_is_left_out_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_links(monkeypatch)
    monkeypatch.setattr(pointer, "require_possible", lambda *_, **__: None)
    new(tmp_path)
    monkeypatch.setattr(
        "kempnerforge.checkpoint.protocol.commit.require_possible", lambda *_, **__: None
    )
    job = new(tmp_path)
    with pytest.raises(CheckpointError) as caught:
        job.save(1)
    assert type(caught.value) is not UnsupportedStorageError
    assert list((tmp_path / "checkpoints").glob("step_*")) == []  # which even so is not published
