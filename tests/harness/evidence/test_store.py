"""Bytes that lie in a file."""

from __future__ import annotations

from pathlib import Path

from harness.content import CHUNK_BYTES
from harness.evidence.store import ByteStore, StoredBytes, add_file


def test_what_was_added_is_where_it_was_said_to_be(tmp_path: Path) -> None:
    store = ByteStore(tmp_path / "bytes")
    assert store.add(b"first") == 0
    place = store.reserve(4)
    assert store.add(b"last") == 9
    store.fill(place, b"fill")

    assert (store[:], len(store)) == (b"firstfilllast", 13)
    assert StoredBytes(tmp_path / "bytes")[5:9] == b"fill"


def test_a_store_does_not_wait_with_much(tmp_path: Path) -> None:
    store = ByteStore(tmp_path / "bytes")
    for _ in range(8):
        store.add(bytes(CHUNK_BYTES))
    assert (tmp_path / "bytes").stat().st_size >= 7 * CHUNK_BYTES


def test_a_file_is_added_whole(tmp_path: Path) -> None:
    data = bytes(range(256)) * 5000
    (tmp_path / "file").write_bytes(data)
    store = ByteStore(tmp_path / "bytes")
    store.add(b"x")
    assert add_file(store, tmp_path / "file") == (1, len(data))
    assert store[1 : len(data) + 1] == data


def test_stored_bytes_can_be_read_when_their_name_is_gone(tmp_path: Path) -> None:
    (tmp_path / "bytes").write_bytes(b"0123456789")
    stored = StoredBytes(tmp_path / "bytes")
    (tmp_path / "bytes").unlink()
    assert (len(stored), stored[2:4], stored[8:99]) == (10, b"23", b"89")
