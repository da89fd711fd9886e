"""crc32 by zlib-ng, or by Python's own zlib if zlib-ng is not installed.

zlib-ng is faster and a dependency of this package. The fallback returns the same values; it is for
the checkpoint folder copied into another package that depends on torch only.
"""

import zlib
from functools import lru_cache
from typing import Any

_fast: Any = None
try:
    from zlib_ng import zlib_ng
except ImportError:
    pass
else:
    _fast = zlib_ng

__all__ = ["adler32", "combine", "combine_operator", "crc32"]

_POLYNOMIAL = 0xEDB88320
_ONE = 1 << 31
"""The polynomial 1: bits are reflected, so the highest bit is the constant term."""

crc32 = zlib.crc32 if _fast is None else _fast.crc32
adler32 = zlib.adler32 if _fast is None else _fast.adler32


def combine(first: int, second: int, length: int) -> int:
    """Returns the crc32 of two pieces of data in sequence.

    Args:
        first: crc32 of the first piece.
        second: crc32 of the second piece.
        length: Size of the second piece in bytes.
    """
    if _fast is None:
        return combine_operator(first, second, length)
    found: int = _fast.crc32_combine(first, second, length)
    return found


def combine_operator(first: int, second: int, length: int) -> int:
    """:func:`combine` without zlib-ng, because Python's zlib lacks the function."""
    return _times(_shift(length), first) ^ second


@lru_cache(maxsize=4096)
def _shift(length: int) -> int:
    """Returns x to the power of the bits in ``length`` bytes, modulo the polynomial of crc32."""
    power, square, bits = _ONE, _ONE >> 1, 8 * length
    while bits:
        if bits & 1:
            power = _times(square, power)
        square = _times(square, square)
        bits >>= 1
    return power


def _times(one: int, other: int) -> int:
    product, mask = 0, _ONE
    while mask:
        if one & mask:
            product ^= other
        other = (other >> 1) ^ (_POLYNOMIAL if other & 1 else 0)
        mask >>= 1
    return product
