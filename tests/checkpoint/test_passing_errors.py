"""A read that fails for a transient reason is not damage: what is loaded, raised and left on disk,
by the place of the read and by the error."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest

from kempnerforge.checkpoint import (
    CheckpointError,
    CorruptCheckpointError,
    NewerFormatError,
    UnreachableDirectoryError,
    UnreadableCheckpointError,
)
from kempnerforge.checkpoint.errors import OddFileError, shows_damage
from kempnerforge.checkpoint.format import manifest
from kempnerforge.checkpoint.protocol import replacing
from kempnerforge.checkpoint.protocol.catalog import read_catalog
from kempnerforge.checkpoint.runtime import stale
from kempnerforge.checkpoint.runtime.clock import SystemClock
from kempnerforge.checkpoint.runtime.stale import RetryingStorage
from kempnerforge.checkpoint.runtime.storage import LocalStorage
from kempnerforge.resilience.elastic import resolve_resume_path
from tests.checkpoint import passing_jobs
from tests.checkpoint.effects import give
from tests.checkpoint.failing_reads import (
    NO_MEMORY,
    PASSING,
    PLACES,
    Failing,
    contents,
    failing_at,
    failing_paths,
    name_of,
)
from tests.checkpoint.newer import make_newer
from tests.checkpoint.ranks import run_ranks
from tests.checkpoint.storages import NoExchange
from tests.checkpoint.training import Job

CODES = (*PASSING, NO_MEMORY)


@pytest.fixture(autouse=True)
def without_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stale, "_PAUSES_S", (0.0, 0.0, 0.0, 0.0))
    monkeypatch.setattr(replacing, "_PAUSES_S", ())


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two checkpoints that nobody changes."""
    directory = tmp_path_factory.mktemp("saved")
    job = Job(directory, 0, seed=1)
    job.save(2)
    job.save(3)
    return directory


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Three checkpoints of the job that :func:`job_in` continues."""
    job = job_in(tmp_path)
    for step in (1, 2, 3):
        job.save(step)
    return tmp_path / "checkpoints"


def job_in(directory: Path, **options: Any) -> Job:
    return Job(directory, 0, seed=1, **options)


def names_in(root: Path) -> list[str]:
    return sorted(path.name for path in root.iterdir())


def sequences(root: Path) -> dict[str, int]:
    return {entry.path.name: entry.sequence for entry in read_catalog(root, LocalStorage()).entries}


@pytest.mark.parametrize("code", CODES, ids=name_of)
@pytest.mark.parametrize("place", PLACES)
def test_a_read_that_fails_once_is_repeated(saved: Path, place: str, code: int) -> None:
    root = saved / "checkpoints"
    job = job_in(saved)
    with failing_at(place, root, code, times=1) as failing:
        assert job.load()[0] == 3
    assert failing.count == 1
    assert job.manager.last_load is not None
    assert job.manager.last_load.passed_over == ()


@pytest.mark.parametrize("code", CODES, ids=name_of)
@pytest.mark.parametrize("place", PLACES)
def test_a_read_that_keeps_failing_is_an_error_of_its_own_and_changes_nothing(
    saved: Path, place: str, code: int
) -> None:
    root = saved / "checkpoints"
    before = contents(root)
    job = job_in(saved)
    weights = job.digest()
    with failing_at(place, root, code), pytest.raises(UnreadableCheckpointError) as caught:
        job.load()
    assert not isinstance(caught.value, CorruptCheckpointError | OSError)
    unreachable = isinstance(caught.value, UnreachableDirectoryError)
    words = "cannot be listed" if unreachable else "cannot be read at present"
    assert words in str(caught.value)
    assert job.digest() == weights
    assert contents(root) == before
    assert job.load()[0] == 3


@pytest.mark.parametrize("place", [place for place in PLACES if place != "contents"])
def test_resolving_and_peeking_say_so_too(saved: Path, place: str) -> None:
    root = saved / "checkpoints"
    job = job_in(saved)
    with failing_at(place, root, errno.EIO), pytest.raises(UnreadableCheckpointError):
        resolve_resume_path(root)
    if place in ("manifest", "link", "directory"):
        with failing_at(place, root, errno.EIO), pytest.raises(UnreadableCheckpointError):
            job.manager.peek_saved_step()
    with failing_at(place, root, errno.EIO, times=1):
        assert resolve_resume_path(root) == root / "step_3"
    assert job.manager.peek_saved_step() == 3


@pytest.mark.parametrize("code", [errno.EMFILE, errno.EACCES, errno.ENOTCONN, NO_MEMORY])
def test_an_older_one_is_not_taken_past_one_that_cannot_be_read(
    root: Path, tmp_path: Path, code: int
) -> None:
    (root / "latest").unlink()
    before = contents(root)
    with failing_at("manifest", root, code), pytest.raises(UnreadableCheckpointError):
        job_in(tmp_path).load()
    assert contents(root) == before
    assert job_in(tmp_path).load()[0] == 3


def test_one_that_is_not_needed_may_be_unreadable(root: Path, tmp_path: Path) -> None:
    old = Failing(errno.EACCES, float("inf"), lambda path: "step_1/" in path)
    with failing_paths(old):
        assert job_in(tmp_path).load()[0] == 3
        assert resolve_resume_path(root) == root / "step_3"


@pytest.mark.parametrize("damage", ["missing", "short", "flipped", "directory"])
def test_damage_still_leads_to_the_checkpoint_before(
    root: Path, tmp_path: Path, damage: str
) -> None:
    shard = root / "step_3" / "__0_0.distcp"
    data = bytearray(shard.read_bytes())
    shard.unlink()
    match damage:
        case "short":
            shard.write_bytes(data[:-1])
        case "flipped":
            data[len(data) // 2] ^= 1
            shard.write_bytes(data)
        case "directory":
            shard.mkdir()
    assert job_in(tmp_path).load()[0] == 2


@pytest.mark.parametrize(
    ("error", "damage"),
    [
        *((OSError(code, os.strerror(code)), False) for code in PASSING),
        (MemoryError(), False),
        (OSError("without a number"), False),
        (UnreadableCheckpointError(""), False),
        (NewerFormatError(""), False),
        *(
            (OSError(code, os.strerror(code)), True)
            for code in (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP)
        ),
        (OddFileError(errno.EINVAL, "is a pipe"), True),
        (CorruptCheckpointError(""), True),
    ],
    ids=repr,
)
def test_only_what_is_missing_or_wrong_is_damage(error: Exception, damage: bool) -> None:
    assert shows_damage(error) is damage


# Saves.


@pytest.mark.parametrize("code", CODES, ids=name_of)
def test_an_older_checkpoint_that_a_save_cannot_read_stays_and_comes_before_it_in_the_order(
    root: Path, tmp_path: Path, code: int
) -> None:
    job = job_in(tmp_path, keep_last_n=1)
    with failing_at("manifest", root, code):
        job.save(4)
        assert names_in(root) == ["latest", "step_1", "step_2", "step_3", "step_4"]
    found = sequences(root)
    assert (found["step_1"], found["step_2"], found["step_3"]) == (1, 2, 3)
    assert found["step_4"] > 3
    job.save(5)
    assert names_in(root) == ["latest", "step_5"]


@pytest.mark.parametrize("code", CODES, ids=name_of)
def test_the_version_that_a_save_would_replace_and_cannot_read_is_not_replaced(
    root: Path, tmp_path: Path, code: int
) -> None:
    before = contents(root)
    job = job_in(tmp_path)
    with failing_at("manifest", root, code), pytest.raises(UnreadableCheckpointError):
        job.save(3)
    assert contents(root) == before
    job.save(3)
    assert contents(root)["step_3/manifest.json"] != before["step_3/manifest.json"]


@pytest.mark.parametrize("place", ["directory", "link"])
def test_a_save_that_cannot_look_at_the_directory_fails_and_the_next_one_works(
    root: Path, tmp_path: Path, place: str
) -> None:
    before = contents(root)
    job = job_in(tmp_path, keep_last_n=2)
    with failing_at(place, root, errno.EIO), pytest.raises(CheckpointError):
        job.save(4)
    assert contents(root) == before
    job.save(4)
    assert names_in(root) == ["latest", "step_3", "step_4"]


@pytest.mark.parametrize("code", [errno.EIO, errno.EMFILE, errno.EACCES])
def test_a_half_way_replacement_stays_as_it_is_while_a_version_cannot_be_read(
    tmp_path: Path, code: int
) -> None:
    root = tmp_path / "checkpoints"
    _die_in_a_replacement(tmp_path)
    hidden = os.readlink(root / "latest")
    assert hidden.startswith(".replaced-step_1-")
    before = contents(root)
    new = hidden.replace(".replaced", ".staging")
    failing = Failing(code, float("inf"), lambda path: path == f"{root / new}/manifest.json")
    job = job_in(tmp_path)
    for attempt in (job.load, lambda: job.save(2)):
        with failing_paths(failing), pytest.raises(UnreadableCheckpointError):
            attempt()
        assert contents(root) == before
    assert job.load()[2]["version"] == 2
    assert names_in(root) == ["latest", "step_1"]


def _die_in_a_replacement(directory: Path) -> None:
    """When ``latest`` names the old version under a hidden name."""

    class Death(BaseException):
        pass

    job = job_in(directory)
    job.save(1, version=1)

    class Dying(NoExchange):
        def rename(self, source: Path, target: Path) -> None:
            if target.name == "step_1":
                raise Death
            super().rename(source, target)

    give(job.manager, storage=Dying())
    with pytest.raises(Death):
        job.save(1, version=2)


# Two ranks.


def test_all_ranks_agree_whichever_of_them_cannot_read(tmp_path: Path) -> None:
    one, other = run_ranks(passing_jobs.one_rank_cannot_read, tmp_path, world=2)
    assert len(one) == len(passing_jobs.CASES) == 28
    for case in passing_jobs.CASES:
        assert one[case] == other[case], case
        found = one[case]
        assert (found["once"], found["healed"]) == (3, 3), case
        directory = "UnreachableDirectoryError: " if case[0] == "directory" else "?"
        assert found["always"].startswith(("UnreadableCheckpointError: ", directory)), case
        assert "rank" in found["always"], case
        assert found["names"] == ["latest", "step_1", "step_2", "step_3"], case


def test_all_ranks_raise_the_same_where_a_save_would_replace_what_cannot_be_read(
    tmp_path: Path,
) -> None:
    one, other = run_ranks(passing_jobs.replaced_version_cannot_be_read, tmp_path, world=2)
    assert one == other
    assert one["error"].startswith("UnreadableCheckpointError: saving step 3 to ")
    assert one["names"] == ["latest", "step_1", "step_2", "step_3", "step_4"]
    assert one["loaded"] == 4


# Newer formats.


def test_a_newer_format_is_refused_by_name(root: Path, tmp_path: Path) -> None:
    make_newer(root / "step_3")
    before = contents(root)
    job = job_in(tmp_path)
    newest = manifest.READABLE_FORMATS[-1]
    said = f"written by a newer version of this package, format {newest + 1}; .* up to {newest}"
    with pytest.raises(NewerFormatError, match=said):
        job.load()
    with pytest.raises(NewerFormatError, match=said):
        job.load(str(root / "step_3"))
    with pytest.raises(NewerFormatError, match=said):
        resolve_resume_path(root)
    with pytest.raises(NewerFormatError, match=said):
        job.manager.peek_saved_step()
    assert contents(root) == before


@pytest.mark.parametrize("latest", ["absent", "step_1"])
def test_a_newer_format_is_not_passed_over_unless_latest_was_pointed_before_it(
    root: Path, tmp_path: Path, latest: str
) -> None:
    make_newer(root / "step_3")
    (root / "latest").unlink()
    if latest == "absent":
        with pytest.raises(NewerFormatError):
            job_in(tmp_path).load()
    else:
        (root / "latest").symlink_to(latest)
        assert job_in(tmp_path).load()[0] == 1
    assert job_in(tmp_path).load(str(root / "step_2"))[0] == 2


def test_a_save_neither_replaces_nor_deletes_nor_ignores_a_newer_format(
    root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    make_newer(root / "step_3")
    kept = contents(root / "step_3")
    job = job_in(tmp_path, keep_last_n=1)
    with pytest.raises(NewerFormatError, match=r"saving step 3 to .* newer version"):
        job.save(3)
    job.save(4)
    assert "left alone: " in caplog.text
    job.save(5)
    assert names_in(root) == ["latest", "step_3", "step_5"]
    assert contents(root / "step_3") == kept
    assert sequences(root) == {"step_3": 3, "step_5": 5}


def test_a_newer_format_without_the_head_of_ours_is_refused_all_the_same(
    root: Path, tmp_path: Path
) -> None:
    make_newer(root / "step_3", only=("step",))
    with pytest.raises(NewerFormatError, match="newer version"):
        job_in(tmp_path).load()
    job_in(tmp_path, keep_last_n=1).save(4)
    assert names_in(root) == ["latest", "step_1", "step_2", "step_3", "step_4"]
    assert sequences(root)["step_4"] > 3


@pytest.mark.parametrize("number", [0, -1, "2", None, 1.5])
def test_a_format_that_never_was_is_damage(root: Path, tmp_path: Path, number: object) -> None:
    make_newer(root / "step_3", number=number)
    assert job_in(tmp_path).load()[0] == 2


def test_a_number_that_was_only_changed_is_damage(root: Path, tmp_path: Path) -> None:
    path = root / "step_3" / "manifest.json"
    path.write_bytes(path.read_bytes().replace(b'"format":1', b'"format":9'))
    assert job_in(tmp_path).load()[0] == 2


def test_the_head_is_what_the_whole_manifest_says(root: Path) -> None:
    data = (root / "step_3" / "manifest.json").read_bytes()
    whole = manifest.decode(data, where="m")
    assert manifest.read_head(data, where="m") == whole.head
    assert json.loads(data)["manifest"]["format"] == whole.head.format == 1
    for at in range(len(data)):
        altered = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
        with pytest.raises(CorruptCheckpointError):
            manifest.read_head(altered, where="m")


# The directory itself.


@pytest.mark.parametrize("below", ["", "run/7"])
def test_a_link_whose_storage_is_not_mounted_is_no_clean_start(tmp_path: Path, below: str) -> None:
    link = tmp_path / "checkpoints"
    link.symlink_to(tmp_path / "not mounted")
    with pytest.raises(UnreadableCheckpointError, match=r"not mounted"):
        resolve_resume_path(link / below)
    with pytest.raises(UnreadableCheckpointError, match=r"not mounted"):
        job_in(tmp_path).load()
    (tmp_path / "not mounted").mkdir()
    assert resolve_resume_path(link / below) is None
    assert job_in(tmp_path).load() == (0, 0, {})


def test_a_directory_that_is_not_there_is_a_clean_start(tmp_path: Path) -> None:
    assert resolve_resume_path(tmp_path / "a" / "b") is None


def test_no_pause_outlasts_the_deadline_so_that_all_learn_the_cause(
    saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    pauses: list[float] = []

    class Sleepless(SystemClock):
        def sleep(self, seconds: float) -> None:
            pauses.append(seconds)

    job = job_in(saved, commit_timeout_s=4.0)  # of which reading has 1.6 s
    give(job.manager, clock=Sleepless())
    failing = failing_at("contents", saved / "checkpoints", errno.EIO)
    with failing, pytest.raises(UnreadableCheckpointError, match=r"\(EIO\)"):
        job.load()
    assert pauses == [0.05, 0.2]
    pauses.clear()
    job = job_in(saved, commit_timeout_s=40.0)
    give(job.manager, clock=Sleepless())
    failing = failing_at("contents", saved / "checkpoints", errno.EIO)
    with failing, pytest.raises(UnreadableCheckpointError, match=r"\(EIO\)"):
        job.load()
    assert pauses == [0.05, 0.2, 1.0, 3.0]


@pytest.mark.parametrize("moves", range(1, 5))
def test_a_link_that_cannot_be_read_half_way_through_a_replacement_leaves_a_whole_version(
    root: Path, tmp_path: Path, moves: int
) -> None:
    made = []

    class Renaming(NoExchange):
        def rename(self, source: Path, target: Path) -> None:
            super().rename(source, target)
            made.append(source.name)

    hit = Failing(
        errno.EIO, float("inf"), lambda path: path == f"{root}/latest" and len(made) >= moves
    )
    job = job_in(tmp_path)
    give(job.manager, storage=RetryingStorage(Renaming()))
    with failing_paths(hit), pytest.raises(CheckpointError):
        job.save(3, version=2)
    assert (root / "latest" / "manifest.json").exists()
    assert job_in(tmp_path).load()[0] == 3
    assert names_in(root) == ["latest", "step_1", "step_2", "step_3"]
