"""File operations."""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kempnerforge.checkpoint.runtime.storage import LocalStorage
from kempnerforge.cli.cautious import CautiousStorage
from tests.checkpoint.descriptors import below


def test_the_file_has_its_full_size_when_it_is_synced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    genuine = os.fsync

    def fsync(fd: int) -> None:
        sizes.append(os.fstat(fd).st_size)
        genuine(fd)

    monkeypatch.setattr(os, "fsync", fsync)
    LocalStorage().write(tmp_path / "small", b"x" * 1234)
    assert sizes == [1234]


def test_a_sync_that_fails_is_raised_and_leaves_no_open_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(fd: int) -> None:
        assert below(tmp_path) == [str(tmp_path / "file")]
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="Input/output error"):
        LocalStorage().write(tmp_path / "file", b"x")
    assert below(tmp_path) == []


def test_exchange_swaps_two_directories(tmp_path: Path) -> None:
    storage: Any = LocalStorage()
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).touch()
    if not storage.exchange(tmp_path / "a", tmp_path / "b"):
        pytest.skip("this file system cannot exchange names")
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["b"]


def test_exchange_with_a_missing_name_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises(FileNotFoundError):
        LocalStorage().exchange(tmp_path / "a", tmp_path / "missing")


def test_removing_a_tree_does_not_follow_links(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "link").symlink_to("kept")
    LocalStorage().remove_tree(tmp_path / "link")
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


def _file(path: Path) -> Path:
    (path / "file").write_bytes(b"x")
    return path / "file"


NAMING: dict[str, tuple[Callable[[Path], Path], Callable[[Any, Path], object]]] = {
    "fsync": (lambda path: path, lambda storage, path: storage.sync_directory(path)),
    "scandir": (lambda path: path, lambda storage, path: storage.scan(path)),
    "listdir": (lambda path: path, lambda storage, path: storage.names(path)),
    "stat": (_file, lambda storage, path: storage.stamps(path.parent, [path.name])),
}


@pytest.mark.parametrize("call", NAMING)
def test_an_error_names_the_directory_or_file_that_it_is_about(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    make, use = NAMING[call]
    path = make(tmp_path)

    def fail(*arguments: Any, **more: Any) -> Any:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patched:
        patched.setattr(os, call, fail)
        with pytest.raises(OSError, match="Input/output error") as raised:
            use(LocalStorage(), path)
    assert raised.value.filename == str(path)


@pytest.mark.parametrize("use", ["read", "checksum"])
def test_a_read_that_fails_in_the_middle_names_its_file(use: str) -> None:
    # The kernel answers EIO to a read of the memory of a process where nothing is mapped.
    path = Path("/proc/self/mem")
    with pytest.raises(OSError, match="/proc/self/mem") as raised:
        getattr(LocalStorage(), use)(path)
    assert raised.value.errno == errno.EIO


def test_a_cautious_read_that_fails_in_the_middle_names_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(fd: int, size: int) -> bytes:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    path = _file(tmp_path)
    monkeypatch.setattr(os, "read", fail)
    with pytest.raises(OSError, match="Input/output error") as raised:
        CautiousStorage().checksum(path)
    assert raised.value.filename == str(path)
