"""crc32 gives the same values with and without zlib-ng."""

import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from zlib_ng import zlib_ng

from kempnerforge.checkpoint.format import checksum

crc32s = st.integers(min_value=0, max_value=(1 << 32) - 1)


@given(crc32s, crc32s, st.integers(min_value=0, max_value=1 << 50))
def test_two_checksums_combine_as_zlib_ng_combines_them(
    first: int, second: int, length: int
) -> None:
    expected = zlib_ng.crc32_combine(first, second, length)
    assert checksum.combine_operator(first, second, length) == expected
    assert checksum.combine(first, second, length) == expected


@pytest.mark.parametrize("data", [b"", b"a", bytes(range(256)) * 99])
def test_both_libraries_agree_on_data(data: bytes) -> None:
    assert checksum.crc32(data) == zlib.crc32(data) == zlib_ng.crc32(data)
    assert checksum.combine_operator(zlib.crc32(b"begin"), zlib.crc32(data), len(data)) == (
        zlib.crc32(b"begin" + data)
    )
