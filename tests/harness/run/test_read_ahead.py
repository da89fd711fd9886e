"""Bytes of a rank that are read while those before them are written."""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Iterator
from threading import Event, Thread

import pytest
import xxhash

from harness.system.memory import PIECE_BYTES, Span
from harness.system.read_ahead import ReadAhead

_PATIENCE_S = 10.0
_DATA = bytes(range(251)) * (10 * PIECE_BYTES // 251)


@pytest.fixture
def ahead() -> Iterator[ReadAhead]:
    made = ReadAhead()
    yield made
    made.close()


@pytest.fixture
def span() -> Iterator[Span]:
    """These bytes in the memory of this process."""
    buffer = ctypes.create_string_buffer(_DATA, len(_DATA))
    yield ctypes.addressof(buffer), len(_DATA)
    del buffer


def _read(ahead: ReadAhead, spans: list[Span]) -> tuple[bytes, bytes]:
    data, digest = b"", xxhash.xxh3_128()
    for piece, told in ahead.pieces(os.getpid(), spans):
        data += bytes(piece)
        digest = told
    return data, digest.digest()


def test_all_bytes_come_in_their_order_with_their_digest(ahead: ReadAhead, span: Span) -> None:
    address, _ = span
    spans = [(address + 7, 3 * PIECE_BYTES), (address, 5), (address + 1, 5 * PIECE_BYTES + 3)]
    wanted = b"".join(_DATA[at - address : at - address + size] for at, size in spans)
    assert _read(ahead, spans) == (wanted, xxhash.xxh3_128_digest(wanted))


def test_each_piece_has_the_digest_of_all_until_there(ahead: ReadAhead, span: Span) -> None:
    done = 0
    for piece, digest in ahead.pieces(os.getpid(), [span]):
        done += len(piece)
        assert digest.digest() == xxhash.xxh3_128_digest(_DATA[:done])
    assert done == len(_DATA)


def test_the_next_one_begins_anew_where_nobody_wanted_the_rest(
    ahead: ReadAhead, span: Span
) -> None:
    for _ in range(3):
        pieces = ahead.pieces(os.getpid(), [span])
        assert bytes(next(pieces)[0]) == _DATA[:PIECE_BYTES]
        pieces.close()
    assert _read(ahead, [span])[0] == _DATA


def test_memory_that_is_not_there_is_an_error_and_not_the_last_thing(
    ahead: ReadAhead, span: Span
) -> None:
    address, _ = span
    told = ahead.pieces(os.getpid(), [(address, 2 * PIECE_BYTES), (8, PIECE_BYTES)])
    assert [len(next(told)[0]), len(next(told)[0])] == [PIECE_BYTES] * 2
    with pytest.raises(OSError, match="reading"):
        next(told)
    assert _read(ahead, [span])[0] == _DATA


def test_it_can_be_closed_without_having_read(ahead: ReadAhead) -> None:
    ahead.close()


def test_it_can_be_closed_after_an_interrupt_before_the_first_piece(
    ahead: ReadAhead, span: Span
) -> None:
    class Interrupting(list[Span]):
        """Spans that interrupt the process before the first of them is read."""

        def __iter__(self) -> Iterator[Span]:
            os.kill(os.getpid(), signal.SIGINT)
            interrupted.wait(_PATIENCE_S)
            return super().__iter__()

    interrupted = Event()
    with pytest.raises(KeyboardInterrupt):
        next(ahead.pieces(os.getpid(), Interrupting([span])))
    interrupted.set()
    closing = Thread(target=ahead.close, daemon=True)
    closing.start()
    closing.join(_PATIENCE_S)
    assert not closing.is_alive()
    assert _read(ahead, [span])[0] == _DATA
