"""The manifest detects every change."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kempnerforge.checkpoint.errors import CorruptCheckpointError
from kempnerforge.checkpoint.format import manifest
from kempnerforge.checkpoint.format.manifest import FileRecord, Manifest

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


save_ids = st.text("0123456789abcdef", min_size=16, max_size=16)
counts = st.integers(0, 1 << 62)
file_names = st.text("ab_.0/é", min_size=1).filter(
    lambda name: all(part not in ("", ".", "..") for part in name.split("/"))
)
manifests = st.builds(
    Manifest,
    save_id=save_ids,
    step=counts,
    tokens_seen=counts,
    sequence=counts,
    parent=st.none() | save_ids,
    world_size=counts,
    stages=st.none() | st.lists(counts, max_size=3).map(tuple),
    layout=st.dictionaries(st.text(), st.none() | st.text() | st.lists(counts), max_size=3),
    files=st.dictionaries(
        file_names, st.builds(FileRecord, size=counts, crc32=st.integers(0, (1 << 32) - 1))
    ),
    has_rank_values=st.booleans(),
)


@given(manifests)
def test_any_manifest_reads_back_equal(made: Manifest) -> None:
    assert manifest.decode(manifest.encode(made), where="m") == made


@given(manifests)
def test_the_head_of_any_manifest_is_read_without_the_rest(made: Manifest) -> None:
    assert manifest.read_head(manifest.encode(made), where="m") == made.head
    assert made.head.format == (2 if made.has_rank_values else 1)


@given(made=manifests, data=st.data())
def test_any_byte_changed_inserted_or_removed_is_noticed(
    made: Manifest, data: st.DataObject
) -> None:
    encoded = manifest.encode(made)
    at = data.draw(st.integers(0, len(encoded) - 1))
    byte = data.draw(st.binary(min_size=1, max_size=1).filter(lambda b: b != encoded[at : at + 1]))
    for altered in (
        encoded[:at] + byte + encoded[at + 1 :],
        encoded[:at] + byte + encoded[at:],
        encoded[:at] + encoded[at + 1 :],
    ):
        with pytest.raises(CorruptCheckpointError):
            manifest.decode(altered, where="m")


@given(st.binary() | st.text().map(str.encode))
def test_any_other_content_is_refused(data: bytes) -> None:
    with pytest.raises(CorruptCheckpointError):
        manifest.decode(data, where="m")


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
