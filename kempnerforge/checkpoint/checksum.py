"""crc32 of a whole from the crc32 of its parts, so that no byte is summed twice.

The crc of a followed by b is the crc of a advanced over len(b) zero bytes, plus (exclusive or) the
crc of b. Advancing is a multiplication modulo the polynomial, by a factor that depends on the
length alone; as in zlib's ``crc32_combine``, which Python does not expose.
"""

from functools import cache, lru_cache

__all__ = ["combine"]

_POLYNOMIAL = 0xEDB88320
_ONE = 1 << 31  # bits are reflected: x to the power of 0 stands highest
_BITS_OF_A_BYTE = 3  # as a power of two


def combine(first: int, second: int, second_bytes: int) -> int:
    """crc32 of two parts in a row, the second of which is ``second_bytes`` long."""
    return _product(_factor(second_bytes), first) ^ second


@lru_cache(maxsize=4096)
def _factor(length: int) -> int:
    factor, power = _ONE, _BITS_OF_A_BYTE
    while length:
        if length & 1:
            factor = _product(_squared(power), factor)
        length >>= 1
        power += 1
    return factor


@cache
def _squared(times: int) -> int:
    """x, squared that many times."""
    value = _ONE >> 1
    for _ in range(times):
        value = _product(value, value)
    return value


def _product(one: int, other: int) -> int:
    total, bit = 0, _ONE
    while bit:
        if one & bit:
            total ^= other
        bit >>= 1
        other = (other >> 1) ^ _POLYNOMIAL if other & 1 else other >> 1
    return total
