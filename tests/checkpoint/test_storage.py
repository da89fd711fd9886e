"""File operations."""

import os
from pathlib import Path
from typing import Any

import pytest

from kempnerforge.checkpoint.storage import LocalStorage
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
