"""File operations."""

import os
import zlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kempnerforge.checkpoint.manifest import FileRecord
from kempnerforge.checkpoint.storage import FileSink, LocalStorage, checksum_file


@given(parts=st.lists(st.tuples(st.binary(max_size=400_000), st.booleans()), max_size=6))
def test_a_sink_writes_and_sums_exactly_what_it_is_given(
    tmp_path_factory: pytest.TempPathFactory, parts: list[tuple[bytes, bool]]
) -> None:
    path = tmp_path_factory.mktemp("sink") / "file"
    whole = b"".join(part for part, _ in parts)
    with FileSink(path) as sink:
        for part, is_summed in parts:
            crc32 = zlib.crc32(part) if is_summed else None
            assert sink.write(part, crc32=crc32) == len(part)
        assert sink.tell() == len(whole)
    assert path.read_bytes() == whole
    expected = FileRecord(size=len(whole), crc32=zlib.crc32(whole))
    assert sink.record == expected
    assert checksum_file(path) == expected


def test_a_large_part_is_written_a_mebibyte_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    genuine = os.write

    def write(fd: int, data: memoryview) -> int:
        sizes.append(len(data))
        return genuine(fd, data)

    monkeypatch.setattr(os, "write", write)
    whole = bytes(range(250)) * 10_000
    assert LocalStorage().write(tmp_path / "file", whole).size == 2_500_000
    assert sizes == [1 << 20, 1 << 20, 2_500_000 - (2 << 20)]
    assert (tmp_path / "file").read_bytes() == whole


def test_short_writes_are_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    genuine = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: genuine(fd, bytes(data)[:3]))
    assert LocalStorage().write(tmp_path / "file", b"0123456789").size == 10
    assert (tmp_path / "file").read_bytes() == b"0123456789"


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
        raise OSError(5, "Input/output error")

    before = len(list(Path("/proc/self/fd").iterdir()))
    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="Input/output error"):
        LocalStorage().write(tmp_path / "file", b"x")
    assert len(list(Path("/proc/self/fd").iterdir())) == before


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
