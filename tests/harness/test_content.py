"""Contents by reference, beside the same changes of plain bytes."""

from __future__ import annotations

from random import Random

import pytest

from harness.content import CHUNK_BYTES, Content, Identities

SOURCE = bytes(range(256)) * 8


def _of(start: int, size: int) -> Content:
    return Content.of(SOURCE, start, size)


def _overwritten(before: bytes, offset: int, data: bytes) -> bytes:
    return before[:offset].ljust(offset, b"\0") + data + before[offset + len(data) :]


@pytest.mark.parametrize("seed", range(30))
def test_any_changes_are_those_of_plain_bytes(seed: int) -> None:
    chance = Random(seed)
    content, plain = Content(), b""
    for _ in range(60):
        before, old = content, plain
        at, start, size = chance.randrange(90), chance.randrange(2000), chance.randrange(40)
        match chance.choice(("write", "append", "resize", "follow")):
            case "write":
                content = content.overwritten(at, _of(start, size))
                plain = _overwritten(plain, at, SOURCE[start : start + size])
            case "append":
                content = content.overwritten(content.size, _of(start, size))
                plain += SOURCE[start : start + size]
            case "resize":
                content, plain = content.resized(at), plain[:at].ljust(at, b"\0")
            case _:
                at = min(at, len(plain))
                content = content.followed(at, _of(start, size))
                plain = plain[:at] + SOURCE[start : start + size][at:]
        assert (content.read(), content.size) == (plain, len(plain))
        assert content.read(at, size) == plain[at : at + size]
        assert before.read() == old, "a content never changes"


def test_a_content_that_is_written_piece_by_piece_is_one_piece() -> None:
    content = Content()
    for start in range(0, 100, 10):
        content = content.overwritten(start, _of(start, 10))
    assert content._pieces == _of(0, 100)._pieces


def test_equal_bytes_have_equal_digests_whatever_they_are_made_of() -> None:
    one = _of(0, 256).overwritten(256, _of(512, 256))
    assert one.digest() == _of(256, 512).digest() != _of(1, 512).digest()


def test_chunks_are_all_of_a_large_content() -> None:
    size = 2 * CHUNK_BYTES + 5
    content = Content.of(b"x" * size, 0, size)
    assert [len(chunk) for chunk in content.chunks()] == [CHUNK_BYTES, CHUNK_BYTES, 5]


def test_a_content_is_read_as_a_file_is() -> None:
    with _of(3, 100).open() as file:
        assert file.read(5) == SOURCE[3:8]
        file.seek(-4, 2)
        assert (file.tell(), file.read(), file.read()) == (96, SOURCE[99:103], b"")


def test_a_fact_is_found_once() -> None:
    asked: list[int] = []

    def size(content: Content) -> int:
        asked.append(content.size)
        return content.size

    content = _of(0, 4)
    assert (content.fact("size", size), content.fact("size", size)) == (4, 4)
    assert asked == [4]


def test_contents_are_identical_where_their_bytes_are_equal_and_only_there() -> None:
    identities, size = Identities(), 600_000
    source = bytes(range(250)) * (2 * size // 250)
    whole = Content.of(source, 0, size)
    made = Content.of(source, 0, 3).overwritten(3, Content.of(source, 503, size - 3))
    torn = whole.followed(300_000, Content().resized(size))

    assert identities.of(whole) == identities.of(made)
    others = [torn, whole.resized(size + 1), whole.resized(size - 1), Content.of(source, 1, size)]
    assert len({identities.of(one) for one in (whole, *others)}) == 5


def test_a_block_that_two_contents_share_is_read_once() -> None:
    class Counted:
        asked = 0

        def __getitem__(self, part: slice) -> bytes:
            self.asked += part.stop - part.start
            return bytes(part.stop - part.start)

    identities, source = Identities(), Counted()
    whole = Content.of(source, 0, 10 << 20)
    identities.of(whole)
    assert source.asked == 10 << 20

    identities.of(whole.overwritten(5 << 20, Content.of(b"x", 0, 1)))

    assert source.asked < 11 << 20
