"""The FUSE file system of the harness: the same as the directory below, but for what it is told."""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

import pytest

from harness.run.fuse.behaviour import Behaviour
from harness.run.fuse.mount import missing_fuse, mounted
from harness.scenario.filesystem import Filesystem
from harness.system.mounts import own_mounts
from harness.system.syscalls import EXCHANGE, renameat2

_FOR_EVER_S = 3600.0
_PATIENCE_S = 30.0
Mount = Callable[..., Path]


@pytest.fixture(autouse=True)
def needs_fuse() -> None:
    if (reason := missing_fuse()) is not None:
        pytest.skip(reason)


@pytest.fixture
def below(tmp_path: Path) -> Path:
    folder = tmp_path / "below"
    folder.mkdir()
    return folder


@pytest.fixture
def mount(tmp_path: Path, below: Path) -> Iterator[Mount]:
    """Mounts the directory below once more, behaving as the keywords say."""
    with own_mounts(), ExitStack() as stack:

        def mount(**settings: object) -> Path:
            place = tmp_path / f"mount{len(list(tmp_path.glob('mount*')))}"
            place.mkdir()
            behaviour = Behaviour(**settings)  # type: ignore[arg-type]
            stack.enter_context(mounted(below, place, behaviour))
            return place

        yield mount


def _error_of(call: Callable[[], object]) -> str | None:
    try:
        call()
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    return None


def _lock(path: Path) -> int:
    descriptor = os.open(path, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return descriptor


def _write_direct(path: Path, *sizes: int, then_plain: bool) -> None:
    """Write with O_DIRECT and, where asked to, a last byte after the flag was taken away."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_DIRECT)
    try:
        for size in sizes:
            with mmap.mmap(-1, size) as memory:
                os.write(descriptor, memory)
        if then_plain:
            flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
            fcntl.fcntl(descriptor, fcntl.F_SETFL, flags & ~os.O_DIRECT)
            os.write(descriptor, b"x")
    finally:
        os.close(descriptor)


def test_the_server_has_as_many_files_open_as_the_hard_limit_allows(
    mount: Mount, below: Path
) -> None:
    limit = 40 + len(os.listdir("/proc/self/fd"))  # this process may have some open already
    names = [f"f{number}" for number in range(limit + 10)]
    for name in names:
        (below / name).touch()
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, before[1]))
    try:
        place = mount()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)

    with ExitStack() as stack:
        opened = [stack.enter_context((place / name).open("rb")) for name in names]
        assert len(opened) == len(names)


def test_the_language_has_what_a_mount_can_do() -> None:
    assert Filesystem().model_dump() == asdict(Behaviour())


# What stays as it is.


def test_what_one_mount_writes_another_one_reads_at_once(mount: Mount, below: Path) -> None:
    here, there = mount(), mount()
    (here / "step_1").mkdir()
    data = os.urandom((3 << 20) + 7)
    (here / "step_1/shard").write_bytes(data)
    (here / "latest").symlink_to("step_1")
    (here / "step_1").rename(here / "step_2")
    (here / "new").symlink_to("step_2")
    (here / "new").rename(here / "latest")

    assert (there / "latest/shard").read_bytes() == data == (below / "step_2/shard").read_bytes()
    assert sorted(os.listdir(there)) == ["latest", "step_2"]


def test_files_are_the_same_as_on_the_directory_below(mount: Mount, below: Path) -> None:
    here = mount()
    descriptor = os.open(here / "file", os.O_WRONLY | os.O_CREAT, 0o640)
    os.write(descriptor, b"12345678")
    os.ftruncate(descriptor, 4)
    os.fchmod(descriptor, 0o600)
    os.posix_fallocate(descriptor, 0, 6)
    os.fsync(descriptor)
    os.close(descriptor)
    os.utime(here / "file", ns=(1, 2))
    os.setxattr(here / "file", "user.who", b"me")
    os.link(here / "file", here / "again")

    one, same = (here / "again").stat(), (below / "file").stat()
    assert (one.st_ino, one.st_mode, one.st_size, one.st_nlink, one.st_mtime_ns) == (
        same.st_ino,
        0o100600,
        6,
        2,
        2,
    )
    assert (below / "file").read_bytes() == b"1234\0\0"
    assert os.getxattr(below / "file", "user.who") == b"me"
    assert os.listxattr(here / "file") == ["user.who"]


def test_two_names_change_places(mount: Mount, below: Path) -> None:
    here = mount()
    (here / "a").write_text("a")
    (here / "b").write_text("b")
    renameat2(str(here / "a"), str(here / "b"), EXCHANGE)
    assert ((below / "a").read_text(), (below / "b").read_text()) == ("b", "a")


def test_an_open_file_without_a_name_can_still_be_read(mount: Mount) -> None:
    here = mount()
    (here / "file").write_text("text")
    with (here / "file").open() as file:
        (here / "file").unlink()
        assert file.read() == "text"


def test_a_directory_of_many_names_is_listed_and_removed(mount: Mount, below: Path) -> None:
    here = mount()
    (here / "many").mkdir()
    for number in range(500):
        (here / f"many/{number:03}").touch()
    assert sorted(os.listdir(here / "many")) == [f"{number:03}" for number in range(500)]
    shutil.rmtree(here / "many")
    assert os.listdir(below) == []


def test_a_lock_keeps_others_out_on_the_same_mount_alone(mount: Mount) -> None:
    here, there = mount(), mount()
    first = _lock(here)
    assert _error_of(lambda: _lock(here)) == "EAGAIN"
    os.close(_lock(there))
    os.close(first)
    os.close(_lock(here))


# What is otherwise.


def test_what_others_did_is_not_seen_until_something_is_changed_here(mount: Mount) -> None:
    here, there = mount(), mount(stale_s=_FOR_EVER_S)
    (here / "latest").symlink_to("step_1")
    assert (os.listdir(there), os.readlink(there / "latest")) == (["latest"], "step_1")
    (here / "new").symlink_to("step_2")
    (here / "new").rename(here / "latest")
    (here / "step_2").mkdir()

    assert (os.listdir(there), os.readlink(there / "latest")) == (["latest"], "step_1")
    assert not (there / "step_2").exists()
    (there / "look").touch()
    assert sorted(os.listdir(there)) == ["latest", "look", "step_2"]
    assert os.readlink(there / "latest") == "step_2"


def test_attributes_are_old_but_those_of_files_written_here_are_not(mount: Mount) -> None:
    here, there = mount(), mount(stale_s=_FOR_EVER_S)
    (here / "file").write_bytes(b"1")
    assert (there / "file").stat().st_size == 1
    (here / "file").write_bytes(b"12")
    assert (there / "file").stat().st_size == 1
    (there / "file").write_bytes(b"123")
    assert (there / "file").stat().st_size == 3


def test_what_was_seen_is_looked_at_again_when_it_is_too_old(mount: Mount) -> None:
    here, there = mount(), mount(stale_s=0.2)
    assert os.listdir(there) == []
    (here / "name").touch()
    deadline = time.monotonic() + _PATIENCE_S
    while not (there / "name").exists() and time.monotonic() < deadline:
        pass
    assert os.listdir(there) == ["name"]


def test_the_kernel_believes_what_it_was_told_whatever_is_changed(mount: Mount) -> None:
    here, there = mount(), mount(cache_s=_FOR_EVER_S)
    assert not (there / "step_1").exists()
    (here / "step_1").mkdir()
    (there / "look").touch()
    assert not (there / "step_1").exists()
    assert sorted(os.listdir(there)) == ["look", "step_1"]


def test_names_that_others_gave_appear_late_and_own_ones_at_once(mount: Mount) -> None:
    here, there = mount(), mount(late_s=_FOR_EVER_S)
    (there / "new").symlink_to("step_1")
    (there / "new").rename(there / "latest")
    (here / "step_2").mkdir()
    (here / "new").symlink_to("step_2")
    (here / "new").rename(here / "latest")

    assert os.listdir(there) == ["latest"]
    assert os.readlink(there / "latest") == "step_1"
    (there / "own").touch()
    assert sorted(os.listdir(there)) == ["latest", "own"]


def test_a_late_name_appears_in_the_end(mount: Mount) -> None:
    here, there = mount(), mount(late_s=0.2)
    (here / "name").touch()
    assert not (there / "name").exists()
    deadline = time.monotonic() + _PATIENCE_S
    while not (there / "name").exists() and time.monotonic() < deadline:
        pass
    assert os.listdir(there) == ["name"]


def test_symlinks_can_be_refused(mount: Mount) -> None:
    here = mount(symlinks=False)
    assert _error_of(lambda: (here / "latest").symlink_to("step_1")) == "EPERM"
    assert os.listdir(here) == []


def test_an_exchange_can_be_refused(mount: Mount) -> None:
    here = mount(exchange=False)
    (here / "a").touch()
    (here / "b").touch()
    names = (str(here / "a"), str(here / "b"))
    assert _error_of(lambda: renameat2(*names, EXCHANGE)) == "EINVAL"
    assert _error_of(lambda: os.rename(*names)) is None


def test_the_rename_of_a_directory_can_be_refused_and_that_of_a_file_is_not(mount: Mount) -> None:
    here = mount(directory_renames=False)
    (here / "directory").mkdir()
    (here / "file").touch()
    assert _error_of(lambda: (here / "directory").rename(here / "new")) == "EXDEV"
    assert _error_of(lambda: (here / "file").rename(here / "new")) is None


@pytest.mark.parametrize(
    ("direct", "sizes", "then_plain", "error"),
    [
        ("works", (4096,), True, None),
        ("refused", (4096,), False, "EINVAL"),
        ("kept", (4096,), False, None),
        ("kept", (4096,), True, "EINVAL"),
    ],
)
def test_direct_writes_work_or_are_refused_or_last(
    mount: Mount, direct: str, sizes: tuple[int, ...], then_plain: bool, error: str | None
) -> None:
    file = mount(direct=direct) / "file"
    assert _error_of(lambda: _write_direct(file, *sizes, then_plain=then_plain)) == error


def test_a_file_that_is_opened_anew_without_the_flag_takes_any_write(mount: Mount) -> None:
    file = mount(direct="kept") / "file"
    _write_direct(file, 4096, then_plain=False)
    with file.open("ab") as plain:
        plain.write(b"x")
    assert file.stat().st_size == 4097


def test_locks_of_files_can_be_refused_and_those_of_directories_are_local(mount: Mount) -> None:
    here, there = mount(flock="refused"), mount()
    (there / "file").touch()
    os.close(_lock(there / "file"))
    assert _error_of(lambda: _lock(here / "file")) == "ENOSYS"
    first, second = _lock(here), _lock(there)
    os.close(first)
    os.close(second)


def test_a_link_that_was_replaced_can_say_what_it_said_before(mount: Mount, below: Path) -> None:
    here = mount(follows_links=False)
    for step in ("step_1", "step_2"):
        (here / "new").unlink(missing_ok=True)
        (here / "new").symlink_to(step)
        (here / "new").rename(here / "latest")
        os.readlink(here / "latest")
    assert (os.readlink(here / "latest"), os.readlink(below / "latest")) == ("step_1", "step_2")
    assert _error_of(lambda: os.link(here / "latest", here / "x", follow_symlinks=False)) == "EPERM"
    (here / "latest").unlink()
    (here / "latest").symlink_to("step_2")
    assert os.readlink(here / "latest") == "step_2"


# Its end.

_MOUNTS_AND_WAITS = """
import sys
from pathlib import Path
from harness.run.fuse.behaviour import Behaviour
from harness.run.fuse.mount import mounted
from harness.system.mounts import own_mounts
with own_mounts(), mounted(Path(sys.argv[1]), Path(sys.argv[2]), Behaviour()):
    Path(sys.argv[2], "ready").touch()
    print("ready", flush=True)
    sys.stdin.read()
"""


def _servers(below: Path) -> list[str]:
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if b"harness.run.fuse" in command and os.fsencode(below) in command:
            found.append(process.name)
    return found


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL], ids=str)
def test_no_server_and_no_mount_outlives_the_process_that_mounted(
    below: Path, tmp_path: Path, end: signal.Signals
) -> None:
    place = tmp_path / "mount"
    place.mkdir()
    command = [sys.executable, "-c", _MOUNTS_AND_WAITS, str(below), str(place)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        assert len(_servers(below)) == 1
        process.send_signal(end)
    deadline = time.monotonic() + _PATIENCE_S
    while _servers(below) and time.monotonic() < deadline:
        pass
    assert _servers(below) == []
    assert str(place) not in Path("/proc/self/mounts").read_text()
    assert os.listdir(below) == ["ready"]


def test_a_call_that_waits_is_answered_when_the_server_dies(mount: Mount, below: Path) -> None:
    here = mount()
    (here / "file").touch()
    os.kill(int(_servers(below)[0]), signal.SIGKILL)
    deadline = time.monotonic() + _PATIENCE_S
    while (error := _error_of(lambda: os.listdir(here))) is None and time.monotonic() < deadline:
        pass
    assert error in ("ENOTCONN", "ECONNABORTED")
