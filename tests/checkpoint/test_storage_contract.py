"""The contract of both storages: the local file system, and the one in memory that tests crash."""

import zlib
from pathlib import Path

import pytest

from kempnerforge.checkpoint.format.manifest import FileRecord
from kempnerforge.checkpoint.protocol.storage import Storage
from kempnerforge.checkpoint.runtime.storage import LocalStorage
from kempnerforge.cli.cautious import CautiousStorage
from tests.checkpoint.memory_storage import MemoryStorage


@pytest.fixture(params=[LocalStorage, CautiousStorage, MemoryStorage])
def storage(request: pytest.FixtureRequest) -> Storage:
    made: Storage = request.param()
    return made


@pytest.fixture
def root(storage: Storage, tmp_path: Path) -> Path:
    storage.make_durable_directory(tmp_path / "a" / "root")
    return tmp_path / "a" / "root"


def test_a_file_reads_back_with_its_size_and_checksum(storage: Storage, root: Path) -> None:
    record = storage.write(root / "file", b"content")
    assert record == FileRecord(size=7, crc32=zlib.crc32(b"content"))
    assert storage.read(root / "file") == b"content"
    assert storage.size(root / "file") == 7
    assert storage.checksum(root / "file") == record
    assert storage.names(root) == ("file",)


def test_a_missing_directory_has_no_names_and_a_missing_file_is_an_error(
    storage: Storage, root: Path
) -> None:
    assert storage.names(root / "missing") == ()
    for operation in (storage.read, storage.size, storage.checksum):
        with pytest.raises(FileNotFoundError):
            operation(root / "missing")


def test_the_names_of_a_file_are_an_error(storage: Storage, root: Path) -> None:
    storage.write(root / "file", b"")
    with pytest.raises(NotADirectoryError):
        storage.names(root / "file")
    with pytest.raises(NotADirectoryError):
        storage.read(root / "file" / "below")


def test_a_link_is_read_and_followed_and_is_no_directory_itself(
    storage: Storage, root: Path
) -> None:
    storage.make_directory(root / "step_1")
    storage.write(root / "step_1" / "file", b"x")
    storage.make_link(root / "latest", "step_1")
    assert storage.read_link(root / "latest") == "step_1"
    assert storage.read_link(root / "step_1") is None
    assert storage.read_link(root / "missing") is None
    assert storage.is_directory(root / "step_1")
    assert not storage.is_directory(root / "latest")
    assert storage.read(root / "latest" / "file") == b"x"
    found = storage.resolve(root / "latest")
    assert found is not None
    assert found == storage.resolve(root / "step_1")


def test_links_that_lead_nowhere_or_in_a_circle_resolve_to_nothing(
    storage: Storage, root: Path
) -> None:
    storage.make_link(root / "dangling", "missing")
    storage.make_link(root / "one", "other")
    storage.make_link(root / "other", "one")
    assert [storage.resolve(root / name) for name in ("dangling", "one", "missing")] == [None] * 3
    assert not storage.is_directory(root / "one")


def test_a_directory_is_made_in_one_that_is_there_and_nowhere_else(
    storage: Storage, root: Path
) -> None:
    storage.make_directory(root / "step_1")
    storage.make_directory(root / "step_1")
    assert storage.names(root) == ("step_1",)
    with pytest.raises(FileNotFoundError):
        storage.make_directory(root / "missing" / "below")
    assert storage.names(root) == ("step_1",)
    storage.write(root / "file", b"x")
    with pytest.raises(FileExistsError):
        storage.make_directory(root / "file")


def test_a_rename_replaces_a_link_and_refuses_a_directory_with_content(
    storage: Storage, root: Path
) -> None:
    storage.make_link(root / "latest", "old")
    storage.make_link(root / "new", "target")
    storage.rename(root / "new", root / "latest")
    assert storage.read_link(root / "latest") == "target"
    assert storage.names(root) == ("latest",)
    for name in ("full", "other"):
        storage.make_directory(root / name)
        storage.write(root / name / "file", b"")
    with pytest.raises(OSError, match="not empty"):
        storage.rename(root / "other", root / "full")
    with pytest.raises(FileNotFoundError):
        storage.rename(root / "missing", root / "x")
    with pytest.raises(IsADirectoryError):
        storage.rename(root / "latest", root / "full")


def test_an_exchange_swaps_both_names(storage: Storage, root: Path) -> None:
    for name in ("one", "other"):
        storage.make_directory(root / name)
        storage.write(root / name / name, b"")
    if storage.exchange(root / "one", root / "other"):
        assert storage.names(root / "one") == ("other",)
        assert storage.names(root / "other") == ("one",)
    with pytest.raises(FileNotFoundError):
        storage.exchange(root / "one", root / "missing")


def test_removing_takes_what_is_there_and_follows_no_link(storage: Storage, root: Path) -> None:
    storage.make_directory(root / "tree")
    storage.make_directory(root / "tree" / "below")
    storage.write(root / "tree" / "below" / "file", b"")
    storage.make_directory(root / "kept")
    storage.make_link(root / "tree" / "link", "../kept")
    storage.remove_tree(root / "tree")
    storage.remove_tree(root / "tree")
    storage.unlink(root / "missing")
    assert storage.names(root) == ("kept",)
    storage.write(root / "file", b"")
    with pytest.raises(NotADirectoryError):
        storage.remove_tree(root / "file")
    storage.unlink(root / "file")
    assert storage.names(root) == ("kept",)


def test_what_was_not_synced_is_gone_after_a_power_cut(tmp_path: Path) -> None:
    storage = MemoryStorage()
    storage.make_durable_directory(tmp_path)
    storage.make_directory(tmp_path / "a")
    storage.write(tmp_path / "a" / "file", b"x")
    storage.sync_directory(tmp_path / "a")
    storage.sync_directory(tmp_path)
    storage.write(tmp_path / "a" / "later", b"x")
    storage.rename(tmp_path / "a", tmp_path / "b")
    storage.cut_power(lambda states: 0)
    assert storage.names(tmp_path) == ("a",)
    assert storage.names(tmp_path / "a") == ("file",)
