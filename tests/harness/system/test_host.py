"""Ranks of two hosts: other mounts, locks, names and boot ids, and one trace."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from harness.faults.strike import Strike
from harness.run.fuse.behaviour import Behaviour
from harness.run.fuse.mount import missing_fuse, mounted
from harness.run.support import missing
from harness.system.host import Host
from harness.system.mounts import own_mounts
from tests.harness.run.jobs import supervise
from tests.harness.run.test_supervise import _begin_save
from tests.harness.strikes import strike

pytestmark = pytest.mark.skipif(missing() is not None, reason=str(missing()))

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@pytest.fixture(autouse=True)
def needs_fuse() -> None:
    if (reason := missing_fuse()) is not None:
        pytest.skip(reason)


@contextmanager
def _two_hosts(directory: Path) -> Iterator[tuple[str, list[Host]]]:
    root = directory / "checkpoints"
    root.mkdir()
    hosts = [
        Host(name=name, place=directory / f"on-{name}", shown=root, boot_id=directory / name)
        for name in ("first", "other")
    ]
    with own_mounts() as mounts, ExitStack() as stack:
        for host in hosts:
            host.prepare()
            stack.enter_context(mounted(root, host.place, Behaviour()))
        yield mounts, hosts


def _join(rank: int = 0) -> Strike:
    return strike("second_job", ranks=(rank,), save=1, path="held0", operation="open")


def _body(directory: Path, rank: int) -> None:
    """The first job has rank 0, the second one rank 1."""
    os.close(_begin_save(directory, rank))
    root = directory / "checkpoints"
    own = os.open(root, os.O_RDONLY)
    try:
        fcntl.flock(own, fcntl.LOCK_EX | fcntl.LOCK_NB)
        described = "locked"
    except OSError as error:
        described = errno.errorcode[error.errno or 0]
    described = f"{described} {socket.gethostname()} {_BOOT_ID.read_text()}"
    (root / f"told{rank}").write_text(described)
    if rank == 0:
        (root / "held0").write_text("by the first")
    else:
        (root / "told0").rename(root / "moved")
        os.chdir(root)
        Path("below").mkdir()
        Path("below/file").write_bytes(b"x" * 100_000)


def _run(directory: Path, mounts: str, hosts: Sequence[Host]) -> list[str]:
    request = {"mounts": mounts, "hosts": [host.as_request() for host in hosts]}
    trace, processes = supervise(_body, directory, strikes=[_join()], request=request)
    assert (processes.exits, processes.second, trace.unseen) == ((0,), (0,), [])
    return [
        f"{one.rank} {one.kind} {one.path}"
        for one in trace.operations
        if one.kind in ("open", "rename", "mkdir", "write")
    ]


def test_each_host_has_its_own_lock_and_names_and_one_trace_has_both(tmp_path: Path) -> None:
    with _two_hosts(tmp_path) as (mounts, hosts):
        found = _run(tmp_path, mounts, hosts)

    assert found == [
        "0 open told0",
        "0 write told0",
        "1 open told1",
        "1 write told1",
        "1 rename told0",
        "1 mkdir below",
        "1 open below/file",
        "1 write below/file",
        "0 open held0",
        "0 write held0",
    ]
    root = tmp_path / "checkpoints"
    first, other = ((root / name).read_text().split() for name in ("moved", "told1"))
    assert first[:2] == ["locked", "first-host"]
    assert other[:2] == ["locked", "other-host"]
    assert len({first[2], other[2], _BOOT_ID.read_text().strip()}) == 3
    assert (root / "below/file").stat().st_size == 100_000


def test_two_jobs_on_one_host_share_its_lock(tmp_path: Path) -> None:
    with _two_hosts(tmp_path) as (mounts, hosts):
        _run(tmp_path, mounts, [hosts[1], hosts[1]])

    described = (tmp_path / "checkpoints/told1").read_text().split()
    assert described[:2] == ["EAGAIN", "other-host"]


def test_this_process_keeps_its_name_and_sees_no_mount(tmp_path: Path) -> None:
    before = socket.gethostname(), _BOOT_ID.read_text()
    with _two_hosts(tmp_path) as (mounts, hosts):
        _run(tmp_path, mounts, hosts)
    assert (socket.gethostname(), _BOOT_ID.read_text()) == before
    assert str(tmp_path) not in Path("/proc/thread-self/mounts").read_text()
