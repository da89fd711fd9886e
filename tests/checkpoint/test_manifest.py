"""The manifest notices every change."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kempnerforge.checkpoint import manifest
from kempnerforge.checkpoint.errors import CorruptCheckpointError
from kempnerforge.checkpoint.manifest import FileRecord, Manifest

EXAMPLE = Manifest(
    save_id="00c0ffee00c0ffee",
    step=4,
    tokens_seen=40,
    sequence=2,
    parent=None,
    world_size=2,
    stages=(0, 1),
    layout={"stage_of_rank": [0, 1], "meshes": []},
    files={"pp0/.metadata": FileRecord(size=12, crc32=0xDEADBEEF)},
)


def test_a_manifest_reads_back_equal() -> None:
    assert manifest.decode(manifest.encode(EXAMPLE), where="m") == EXAMPLE


@given(st.data())
def test_any_flipped_bit_is_noticed(data: st.DataObject) -> None:
    encoded = bytearray(manifest.encode(EXAMPLE))
    position = data.draw(st.integers(0, len(encoded) - 1))
    encoded[position] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(CorruptCheckpointError):
        manifest.decode(bytes(encoded), where="m")


@given(st.integers(0, len(manifest.encode(EXAMPLE)) - 1))
def test_any_truncation_is_noticed(length: int) -> None:
    with pytest.raises(CorruptCheckpointError):
        manifest.decode(manifest.encode(EXAMPLE)[:length], where="m")


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b"null", b"3", b'{"manifest": 1}', b"\xff"])
def test_other_content_is_refused_with_its_place(content: bytes) -> None:
    with pytest.raises(CorruptCheckpointError, match=r"here/manifest\.json"):
        manifest.decode(content, where="here/manifest.json")
