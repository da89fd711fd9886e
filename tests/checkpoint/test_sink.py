"""Files are written through the page cache, and past it."""

import contextlib
import errno
import fcntl
import gc
import mmap
import os
import resource
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.state_dict_loader import load as dcp_load

from kempnerforge.checkpoint import CheckpointManager
from kempnerforge.checkpoint.bulk import staging
from kempnerforge.checkpoint.bulk.shards import stage_shards
from kempnerforge.checkpoint.format.manifest import FileRecord
from kempnerforge.checkpoint.runtime import sink
from kempnerforge.checkpoint.runtime.sink import FileSink
from kempnerforge.checkpoint.runtime.storage import LocalStorage, checksum_file
from kempnerforge.config.schema import AsyncCheckpointMode, CheckpointConfig
from tests.checkpoint.descriptors import below
from tests.checkpoint.mounts import passed_through

MIB = 1 << 20
PAGE = mmap.PAGESIZE
BLOCK = 4 * MIB
WHOLE = bytes(range(250)) * 40_000
"""Two blocks and a part of a third that ends within a page."""


@pytest.fixture(autouse=True)
def _no_device_has_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sink, "_refusing", set())


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


Writes = list[tuple[bool, int]]
"""Whether each passed the page cache, and how many bytes it was given."""


@pytest.fixture
def writes(monkeypatch: pytest.MonkeyPatch) -> Writes:
    found: Writes = []
    genuine = os.write

    def write(fd: int, data: memoryview) -> int:
        found.append((_is_direct(fd), len(data)))
        return genuine(fd, data)

    monkeypatch.setattr(os, "write", write)
    return found


def _is_direct(fd: int) -> bool:
    return bool(fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_DIRECT)


def _write_directly(path: Path, whole: bytes = WHOLE) -> FileRecord:
    with FileSink(path, direct=True) as sink:
        for begin in range(0, len(whole), 300_000):
            sink.write(whole[begin : begin + 300_000])
    return sink.record


def test_whole_pages_pass_the_page_cache_and_the_rest_does_not(
    tmp_path: Path, writes: Writes
) -> None:
    record = _write_directly(tmp_path / "file")
    rest = len(WHOLE) - 2 * BLOCK
    pages = rest - rest % PAGE
    assert writes == [(True, BLOCK), (True, BLOCK), (True, pages), (False, rest - pages)]
    assert (tmp_path / "file").read_bytes() == WHOLE
    assert record == FileRecord(size=len(WHOLE), crc32=zlib.crc32(WHOLE))


@pytest.mark.parametrize("size", [0, 1, PAGE - 1, PAGE, PAGE + 1, BLOCK - 1, BLOCK, BLOCK + PAGE])
def test_a_file_of_any_size_is_written_past_the_page_cache(
    tmp_path: Path, writes: Writes, size: int
) -> None:
    assert _write_directly(tmp_path / "file", WHOLE[:size]).size == size
    assert (tmp_path / "file").read_bytes() == WHOLE[:size]
    assert sum(count for direct, count in writes if direct) == size - size % PAGE


def test_what_passed_the_page_cache_is_synced_when_it_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    genuine = os.fsync

    def fsync(fd: int) -> None:
        synced.append(os.fstat(fd).st_size)
        genuine(fd)

    monkeypatch.setattr(os, "fsync", fsync)
    _write_directly(tmp_path / "file")
    assert synced == [len(WHOLE)]


@pytest.mark.parametrize("number", [errno.EINVAL, errno.EOPNOTSUPP])
def test_a_file_system_that_cannot_pass_its_cache_is_written_through_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writes: Writes, number: int
) -> None:
    genuine = os.open

    def refuse(path: Any, flags: int, *mode: int, **more: int) -> int:
        if flags & os.O_DIRECT:
            raise OSError(number, os.strerror(number))
        return genuine(path, flags, *mode, **more)

    monkeypatch.setattr(os, "open", refuse)
    _write_directly(tmp_path / "file")
    assert {direct for direct, _ in writes} == {False}
    assert (tmp_path / "file").read_bytes() == WHOLE


def test_a_device_that_has_refused_is_not_asked_for_each_file_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writes: Writes
) -> None:
    _spoil(monkeypatch, _refuse(errno.EINVAL))
    _write_directly(tmp_path / "one")
    assert any(direct for direct, _ in writes)
    writes.clear()
    _write_directly(tmp_path / "other")
    assert not any(direct for direct, _ in writes)
    assert (tmp_path / "other").read_bytes() == WHOLE


def test_what_follows_a_direct_write_is_sent_to_the_disk_from_its_own_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[tuple[int, int]] = []
    monkeypatch.setattr(
        sink,
        "_sync_file_range",
        lambda fd, offset, length, flags: begun.append((offset.value, length.value)),
    )
    _spoil(monkeypatch, _refuse(errno.EINVAL))
    _write_directly(tmp_path / "file")
    assert begun[:2] == [(BLOCK, MIB), (BLOCK + MIB, MIB)]


@pytest.fixture
def _keeps_direct(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system that writes directly to what was opened so, whatever fcntl says later."""
    opened: set[int] = set()
    genuine_open, genuine_write = os.open, os.write

    def open_(path: Any, flags: int, *mode: int, **more: int) -> int:
        fd = genuine_open(path, flags, *mode, **more)
        (opened.add if flags & os.O_DIRECT else opened.discard)(fd)
        return fd

    def write(fd: int, data: memoryview) -> int:
        if fd in opened and len(data) % PAGE:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return genuine_write(fd, data)

    monkeypatch.setattr(os, "open", open_)
    monkeypatch.setattr(os, "write", write)


@pytest.mark.usefixtures("_keeps_direct")
@pytest.mark.parametrize("size", [1, PAGE + 1, BLOCK + 100, len(WHOLE)])
def test_a_file_system_that_keeps_the_flag_gets_a_file_that_is_no_whole_number_of_pages(
    tmp_path: Path, size: int
) -> None:
    assert _write_directly(tmp_path / "file", WHOLE[:size]).size == size
    assert (tmp_path / "file").read_bytes() == WHOLE[:size]


@pytest.mark.parametrize("program", ["mergerfs", "bindfs"])
@pytest.mark.parametrize("size", [0, 100, BLOCK, BLOCK + 100, len(WHOLE)])
def test_a_fuse_file_system_which_hands_the_flag_on_or_not_gets_every_file_whole(
    tmp_path: Path, size: int, program: str
) -> None:
    with passed_through(program, tmp_path / "real", tmp_path / "at") as at:
        assert _write_directly(at / "file", WHOLE[:size]).size == size
        assert (tmp_path / "real/file").read_bytes() == WHOLE[:size]


@pytest.mark.parametrize("call", ["write", "fsync", "close", "lseek"])
@pytest.mark.parametrize("direct", [True, False])
def test_an_error_names_the_file_that_it_is_about(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, *, direct: bool
) -> None:
    if call == "lseek" and not direct:
        return
    path, genuine = tmp_path / "file", getattr(os, call)

    def fail(fd: int, *more: Any) -> Any:
        if os.readlink(f"/proc/self/fd/{fd}") != str(path):
            return genuine(fd, *more)
        if call == "close":
            genuine(fd)
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, call, fail)
    with (
        pytest.raises(OSError, match="Input/output error") as raised,
        FileSink(path, direct=direct) as made,
    ):
        made.write(b"12345")
    assert raised.value.filename == str(path)
    assert str(raised.value) == f"[Errno 5] Input/output error: '{path}'"


def _spoil(monkeypatch: pytest.MonkeyPatch, spoiled: Callable[[int, memoryview], int]) -> None:
    """The second direct write goes wrong in this way."""
    genuine, left = os.write, [1]

    def write(fd: int, data: memoryview) -> int:
        if _is_direct(fd):
            left[0] -= 1
            if left[0] < 0:
                return spoiled(fd, data)
        return genuine(fd, data)

    monkeypatch.setattr(os, "write", write)


def _refuse(number: int) -> Callable[[int, memoryview], int]:
    def refuse(fd: int, data: memoryview) -> int:
        raise OSError(number, os.strerror(number))

    return refuse


def test_a_file_system_that_asks_for_more_than_pages_gets_the_rest_through_its_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writes: Writes
) -> None:
    _spoil(monkeypatch, _refuse(errno.EINVAL))
    _write_directly(tmp_path / "file")
    direct = [count for is_direct, count in writes if is_direct]
    cached = [count for is_direct, count in writes if not is_direct]
    assert direct == [BLOCK]
    assert sum(cached) == len(WHOLE) - BLOCK
    assert max(cached) == MIB  # so that the disk begins early, as in any other file
    assert (tmp_path / "file").read_bytes() == WHOLE


def test_what_a_direct_write_did_not_take_follows_through_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writes: Writes
) -> None:
    genuine = os.write
    _spoil(monkeypatch, lambda fd, data: genuine(fd, data[: 2 * PAGE]))
    _write_directly(tmp_path / "file")
    assert [count for direct, count in writes if direct] == [BLOCK, 2 * PAGE]
    assert (tmp_path / "file").read_bytes() == WHOLE


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_an_error_of_a_direct_write_is_raised_whatever_is_made_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    _spoil(monkeypatch, _refuse(number))
    with pytest.raises(OSError, match=os.strerror(number)):
        _write_as_torch(tmp_path / "file")


def _write_as_torch(path: Path) -> None:
    with FileSink(path, direct=True) as sink:
        try:
            for _ in range(3):
                sink.write(WHOLE)
        except OSError as error:
            raise RuntimeError("unexpected pos 704 vs 598") from error


def test_an_error_that_was_passed_over_is_raised_in_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _spoil(monkeypatch, _refuse(errno.EIO))
    sink = FileSink(tmp_path / "file", direct=True)
    for _ in range(3):
        with contextlib.suppress(OSError):
            sink.write(WHOLE)
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        sink.close()
    with pytest.raises(ValueError, match="closed"):
        sink.write(b"more")


def test_nothing_is_left_open_or_mapped_by_files_that_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def left() -> set[str]:
        maps = Path("/proc/self/maps").read_text(encoding="utf-8").splitlines()
        shared = {line for line in maps if " rw-s " in line and "/dev/zero" in line}
        return shared.union(below(tmp_path))

    before, limits = left(), resource.getrlimit(resource.RLIMIT_FSIZE)
    gc.disable()
    resource.setrlimit(resource.RLIMIT_FSIZE, (5 * MIB, limits[1]))
    try:
        for _ in range(3):
            with pytest.raises(OSError, match=os.strerror(errno.EFBIG)):
                _write_directly(tmp_path / "file")
        monkeypatch.setattr(mmap, "mmap", _refuse(errno.ENOMEM))
        with pytest.raises(OSError, match=os.strerror(errno.ENOMEM)):
            FileSink(tmp_path / "file", direct=True)
        assert left() <= before  # what others had open may have been closed
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        gc.enable()


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled")
@pytest.mark.parametrize(
    ("mode", "direct_io", "is_direct"),
    [
        (AsyncCheckpointMode.async_, True, True),
        (AsyncCheckpointMode.async_pinned, True, True),
        (AsyncCheckpointMode.async_, False, False),
        (AsyncCheckpointMode.disabled, True, False),
    ],
)
def test_large_shards_of_background_saves_pass_the_page_cache(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    writes: Writes,
    mode: AsyncCheckpointMode,
    *,
    direct_io: bool,
    is_direct: bool,
) -> None:
    monkeypatch.setattr(staging, "_DIRECT_BYTES", 3 * MIB)
    model = nn.Linear(512, 512)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(1, 512)).sum().backward()
    optimizer.step()  # 3 MiB of parameters and moments
    config = CheckpointConfig(dir=str(tmp_path / "c"), async_mode=mode, direct_io=direct_io)
    manager = CheckpointManager(config, model, optimizer)
    manager.save(1)
    manager.wait()
    assert any(direct for direct, _ in writes) == is_direct

    other = nn.Linear(512, 512)
    fresh = CheckpointManager(config, other, torch.optim.AdamW(other.parameters()))
    assert fresh.load()[0] == 1
    assert torch.equal(other.weight, model.weight)
    state: dict[str, Any] = {"model": {"weight": torch.zeros(512, 512)}}
    dcp_load(state, storage_reader=FileSystemReader(tmp_path / "c/step_1"), no_dist=True)
    assert torch.equal(state["model"]["weight"], model.weight)


def test_small_shards_do_not(tmp_path: Path, writes: Writes) -> None:
    model = nn.Linear(512, 512)
    config = CheckpointConfig(dir=str(tmp_path / "c"), async_mode=AsyncCheckpointMode.async_)
    manager = CheckpointManager(config, model, torch.optim.AdamW(model.parameters()))
    manager.save(1)
    manager.wait()
    assert writes
    assert not any(direct for direct, _ in writes)


def test_what_counts_is_what_a_rank_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(staging, "_DIRECT_BYTES", 1 << 20)
    tensors = [torch.ones(1 << 18), torch.ones(1 << 18), torch.ones(1 << 17, dtype=torch.cfloat)]
    state = {str(number): tensor for number, tensor in enumerate(tensors)}
    for may in (True, False):
        stager = staging.KeptBuffers(pinned=False, direct=may)
        image = stage_shards(state, stager=stager, is_coordinator=True).image
        assert image.goes_direct([0]) == may  # 1 MiB and what makes it an archive
        assert image.goes_direct([2]) == may  # has no fixed form, and is as large
        assert not image.goes_direct([])  # all of it is another rank's
