"""The supervisor sees, orders and strikes the file operations of real processes."""

from __future__ import annotations

import fcntl
import gc
import json
import mmap
import os
import resource
import select
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.boot import job_launcher
from harness.evidence.record import Entered, SaveBegan
from harness.report.frames import short_stacks
from harness.run.launch.launch import Calls
from harness.run.supervise import Supervisor
from harness.run.support import missing
from harness.system.errors import HarnessError
from harness.system.stacks import read_stacks, stacks_of
from tests.harness.run.jobs import supervise
from tests.harness.strikes import strike

pytestmark = pytest.mark.skipif(missing() is not None, reason=str(missing()))


def _begin_save(directory: Path, rank: int) -> int:
    records = directory / "run0" / f"rank{rank}.jsonl"
    descriptor = os.open(records, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(descriptor, SaveBegan(step=2, ordinal=1).to_line().encode() + b"\n")
    return descriptor


def _four_files(directory: Path, rank: int) -> None:
    """Write f0 ... f3, one after the other, as the first save of the run."""
    os.close(_begin_save(directory, rank))
    for number in range(4):
        (directory / "checkpoints" / f"f{number}").write_bytes(b"x" * 10)


def test_each_kind_of_call_is_seen_with_its_path_and_result(tmp_path: Path) -> None:
    def body(directory: Path, rank: int) -> None:
        os.chdir(directory / "checkpoints")
        os.mkdir("d")
        with open("d/a", "wb") as file:
            file.write(b"hello")
            file.flush()
            os.fsync(file.fileno())
            file.truncate(3)
        folder = os.open("d", os.O_RDONLY)
        os.fsync(folder)
        os.rename("a", "b", src_dir_fd=folder, dst_dir_fd=folder)
        os.close(folder)
        os.symlink("d", "latest")
        os.link("d/b", "hard")
        os.unlink("hard")
        with pytest.raises(FileExistsError):
            os.mkdir("d")
        os.unlink("d/b")
        os.rmdir("d")

    trace, processes = supervise(body, tmp_path)

    assert processes.exits == (0,)
    seen = [(o.kind, o.path, o.target, o.size, o.error) for o in trace.operations]
    assert seen == [
        ("mkdir", "d", None, 0, 0),
        ("open", "d/a", None, 0, 0),
        ("write", "d/a", None, 5, 0),
        ("fsync", "d/a", None, 0, 0),
        ("truncate", "d/a", None, 3, 0),
        ("fsync", "d", None, 0, 0),
        ("rename", "d/a", "d/b", 0, 0),
        ("symlink", "latest", "d", 0, 0),
        ("link", "d/b", "hard", 0, 0),
        ("unlink", "hard", None, 0, 0),
        ("mkdir", "d", None, 0, 17),
        ("unlink", "d/b", None, 0, 0),
        ("rmdir", "d", None, 0, 0),
    ]
    assert trace.written[:] == b"hello"


def test_writes_outside_the_directory_and_reads_are_not_in_the_trace(tmp_path: Path) -> None:
    def body(directory: Path, rank: int) -> None:
        (directory / "elsewhere").write_bytes(b"x")
        (directory / "checkpoints" / "a").write_bytes(b"x")
        (directory / "checkpoints" / "a").read_bytes()

    trace, _ = supervise(body, tmp_path)

    assert [(o.kind, o.path) for o in trace.operations] == [("open", "a"), ("write", "a")]


def test_threads_and_subprocesses_count_for_their_rank(tmp_path: Path) -> None:
    def body(directory: Path, rank: int) -> None:
        inside = directory / "checkpoints"
        thread = threading.Thread(target=lambda: (inside / f"t{rank}").write_bytes(b"x"))
        thread.start()
        thread.join()
        subprocess.run(["touch", str(inside / f"s{rank}")], check=True)

    trace, processes = supervise(body, tmp_path, ranks=2)

    assert processes.exits == (0, 0)
    assert {(o.rank, o.path) for o in trace.operations} == {
        (0, "t0"), (0, "s0"), (1, "t1"), (1, "s1"),
    }  # fmt: skip


def test_copies_in_the_kernel_fall_back_to_writes_that_are_seen(tmp_path: Path) -> None:
    def body(directory: Path, rank: int) -> None:
        (directory / "source").write_bytes(b"content")
        shutil.copyfile(directory / "source", directory / "checkpoints" / "copy")

    trace, _ = supervise(body, tmp_path)

    assert (tmp_path / "checkpoints" / "copy").read_bytes() == b"content"
    assert trace.written[:] == b"content"
    # The refused call is no operation, so it takes no strike that is meant for a write.
    assert [operation.kind for operation in trace.operations] == ["open", "write"]


def test_a_shared_writable_mapping_is_refused_because_it_could_not_be_seen(tmp_path: Path) -> None:
    def body(directory: Path, rank: int) -> None:
        with open(directory / "checkpoints" / "m", "w+b") as file:
            file.write(b"x" * 4096)
            file.flush()
            with pytest.raises(OSError, match="No such device"):
                mmap.mmap(file.fileno(), 4096, mmap.MAP_SHARED)

    _, processes = supervise(body, tmp_path)

    assert processes.exits == (0,)


@pytest.mark.parametrize(
    ("when", "left"), [("before", ["f0", "f1"]), ("after", ["f0", "f1", "f2"])]
)
def test_a_kill_falls_exactly_before_or_after_its_operation(
    tmp_path: Path, when: str, left: list[str]
) -> None:
    at_third_open = strike(save=1, operation="open", nth=3, when=when)

    trace, processes = supervise(_four_files, tmp_path, strikes=[at_third_open])

    assert processes.exits == (-signal.SIGKILL,)
    assert [(item.strike, item.ranks) for item in trace.fired] == [("s", (0,))]
    assert sorted(os.listdir(tmp_path / "checkpoints")) == left


def test_a_kill_can_hit_another_rank_than_the_one_at_the_point(tmp_path: Path) -> None:
    def body(directory: Path, rank: int) -> None:
        if rank == 1:
            signal.pause()
        _four_files(directory, rank)

    _, processes = supervise(
        body, tmp_path, ranks=2, strikes=[strike(ranks=(1,), rank=0, save=1, path="f1")]
    )

    assert processes.exits == (0, -signal.SIGKILL)
    assert len(os.listdir(tmp_path / "checkpoints")) == 4


def test_a_kill_takes_the_subprocesses_of_the_rank_with_it(tmp_path: Path) -> None:
    def body(directory: Path, rank: int) -> None:
        subprocess.Popen(["sleep", "60"])
        _four_files(directory, rank)

    _, processes = supervise(body, tmp_path, strikes=[strike(save=1, path="f0")])

    assert processes.exits == (-signal.SIGKILL,)
    assert processes.leaked == ()


def test_a_strike_whose_point_never_comes_does_not_fire(tmp_path: Path) -> None:
    trace, processes = supervise(_four_files, tmp_path, strikes=[strike(save=1, path="f9")])

    assert processes.exits == (0,)
    assert trace.fired == []


def test_a_process_that_outlives_its_rank_is_reported_and_ended(tmp_path: Path) -> None:
    def body(directory: Path, rank: int) -> None:
        child = subprocess.Popen(["sleep", "60"], start_new_session=True)
        (directory / "child").write_text(str(child.pid))

    _, processes = supervise(body, tmp_path)

    assert len(processes.leaked) == 1
    assert processes.leaked[0].endswith("sleep 60")
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "child").read_text()), 0)


def test_a_process_that_was_killed_with_its_rank_is_not_left_while_its_memory_is_taken_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_launcher, "_ORPHAN_GRACE_S", 0.0)

    def body(directory: Path, rank: int) -> None:
        reading, writing = os.pipe()
        pid = os.fork()
        if pid == 0:
            held = bytearray(b"x" * (300 << 20))
            os.write(writing, held[:1])
            signal.pause()
        os.read(reading, 1)
        os.kill(pid, signal.SIGKILL)

    _, processes = supervise(body, tmp_path)

    assert processes.leaked == ()


def test_ranks_that_are_alive_at_the_deadline_are_named_and_ended(tmp_path: Path) -> None:
    def body(directory: Path, rank: int) -> None:
        if rank == 1:
            signal.pause()  # which ends when the rank is asked for its stacks
            (directory / "checkpoints" / "late").write_text("x")

    trace, processes = supervise(body, tmp_path, ranks=2, deadline_s=2.0)

    assert processes.hung == (1,)
    assert processes.exits == (0, -signal.SIGKILL)
    assert trace.operations == []
    assert not (tmp_path / "checkpoints" / "late").exists()


def test_a_rank_that_hangs_writes_where_each_of_its_threads_is(tmp_path: Path) -> None:
    def wait_in_a_thread() -> None:
        threading.Event().wait()

    def body(directory: Path, rank: int) -> None:
        thread = threading.Thread(target=wait_in_a_thread)
        thread.start()
        thread.join()  # in C, with the main thread never back in Python

    _, processes = supervise(body, tmp_path, deadline_s=2.0)

    assert (processes.hung, processes.exits) == ((0,), (-signal.SIGKILL,))
    main, thread = short_stacks(read_stacks(stacks_of(tmp_path / "run0", 0)), "tests", most=3)
    assert main.startswith("main thread: ")
    assert "test_supervise.py" in main
    assert "wait_in_a_thread" in thread


def test_sigterm_in_a_period_arrives_as_the_rank_enters_it_for_the_nth_time(
    tmp_path: Path,
) -> None:
    def body(directory: Path, rank: int) -> None:
        arrived: list[int] = []
        signal.signal(signal.SIGTERM, lambda *_: arrived.append(1))
        descriptor = _begin_save(directory, rank)
        for entries, period in enumerate(("training", "evaluation", "evaluation", "ending")):
            line = Entered(period=period).to_line().encode()
            os.write(descriptor, line + b"\n")
            assert bool(arrived) == (entries >= 2)

    struck = strike("sigterm", during="evaluation", nth=2)

    trace, processes = supervise(body, tmp_path, strikes=[struck])

    assert processes.exits == (0,)
    assert len(trace.fired) == 1


def test_sigterm_at_a_step_arrives_before_the_rank_goes_on(tmp_path: Path) -> None:
    def body(directory: Path, rank: int) -> None:
        arrived: list[int] = []
        signal.signal(signal.SIGTERM, lambda *_: arrived.append(1))
        descriptor = _begin_save(directory, rank)
        state: dict[str, dict[str, str]] = {"params": {}, "moments": {}, "rng": {}}
        line = {
            **json.loads(SaveBegan(step=1, ordinal=1).to_line()),
            "kind": "stepped",
            "step": 3,
            "state": state,
        }
        os.write(descriptor, json.dumps(line).encode() + b"\n")
        assert arrived == [1]

    trace, processes = supervise(body, tmp_path, strikes=[strike("sigterm", step=3)])

    assert processes.exits == (0,)
    assert len(trace.fired) == 1


@pytest.mark.parametrize(
    ("obeys", "grace_s", "ends"), [(True, 30.0, (0, None)), (False, 0.3, (-9, "killed"))]
)
def test_a_rank_that_is_alive_when_its_grace_is_over_is_killed(
    tmp_path: Path, *, obeys: bool, grace_s: float, ends: tuple[int, str | None]
) -> None:
    def body(directory: Path, rank: int) -> None:
        signal.signal(signal.SIGTERM, lambda *_: None)
        _four_files(directory, rank)
        if not obeys:
            signal.pause()

    asked = strike("sigterm", {"grace_s": grace_s}, save=1, path="f1")

    trace, processes = supervise(body, tmp_path, strikes=[asked])

    assert (processes.exits[0], trace.fired[-1].then) == ends


def _lock_twice(directory: Path, rank: int) -> None:
    """A lock of a file goes with the last descriptor of it, whoever opened the file."""
    os.close(_begin_save(directory, rank))
    path = directory / "checkpoints/.lock"
    for number in range(3):
        file = os.open(path, os.O_RDWR | os.O_CREAT)
        again = os.dup(file)
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.close(file)
        other = os.open(path, os.O_RDWR | os.O_CREAT)
        with pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.write(again, f"{number}".encode())
        os.close(other)
        os.close(again)


def test_a_file_that_a_rank_has_closed_is_not_locked_any_more(tmp_path: Path) -> None:
    trace, processes = supervise(_lock_twice, tmp_path)
    assert (processes.exits, trace.unseen) == ((0,), [])
    assert [one.offset for one in trace.operations if one.kind == "write"] == [0, 0, 0]


def _open_a_file(directory: Path) -> None:
    (directory / "checkpoints" / "a").write_bytes(b"x")


def _sync_a_folder(directory: Path) -> None:
    os.fsync(os.open(directory / "checkpoints", os.O_RDONLY))


@pytest.mark.parametrize("ask", [_open_a_file, _sync_a_folder])
def test_a_supervisor_without_descriptors_ends_the_run(
    tmp_path: Path, ask: Callable[[Path], None]
) -> None:
    supervisor, before = os.getpid(), resource.getrlimit(resource.RLIMIT_NOFILE)

    def body(directory: Path, rank: int) -> None:
        sleeping = subprocess.Popen(["sleep", "1000"])
        (directory / "sleeping").write_text(str(sleeping.pid))
        resource.prlimit(supervisor, resource.RLIMIT_NOFILE, (3, before[1]))
        ask(directory)

    try:
        with pytest.raises(HarnessError, match="Too many open files"):
            supervise(body, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert os.listdir(tmp_path / "checkpoints") == []
    assert not Path("/proc", (tmp_path / "sleeping").read_text()).exists()


def test_the_collector_leaves_alone_what_was_there_before_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve, frozen = Supervisor._serve_once, []

    def look(self: Supervisor, listener: Calls, poll: select.poll) -> None:
        frozen.append(gc.get_freeze_count())
        serve(self, listener, poll)

    monkeypatch.setattr(Supervisor, "_serve_once", look)
    there = len(gc.get_objects())

    supervise(_four_files, tmp_path)

    assert min(frozen) >= there
    assert gc.get_freeze_count() == 0


def test_a_file_that_is_opened_through_a_link_has_its_own_name(tmp_path: Path) -> None:
    def body(directory: Path, rank: int) -> None:
        inside = directory / "checkpoints"
        (inside / "link").symlink_to("file")
        (inside / "link").write_bytes(b"new")
        (inside / "link").write_bytes(b"again")

    trace, _ = supervise(body, tmp_path)

    opened = [one for one in trace.operations if one.kind == "open"]
    assert [(one.path, one.creates, one.truncates) for one in opened] == [
        ("file", True, True),
        ("file", False, True),
    ]
