"""A lease has one holder; it is taken over from a dead one, and never from a living one."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from kempnerforge.checkpoint import DirectoryInUseError
from kempnerforge.checkpoint.runtime import lease, lock
from kempnerforge.checkpoint.runtime.file_systems import Mount
from kempnerforge.checkpoint.runtime.guarded import guarded
from kempnerforge.checkpoint.runtime.lease import FoundLease, Lease, LeaseTakenError, find, take
from kempnerforge.checkpoint.runtime.lease_watch import LeaseWatch, WatchVerdict
from kempnerforge.checkpoint.runtime.lock import DirectoryAccess, acquire
from kempnerforge.checkpoint.runtime.processes import Life, Process
from kempnerforge.checkpoint.runtime.storage import LocalStorage

ROOT = Path(__file__).parents[2]
HERE = Process.this()
ELSEWHERE = replace(HERE, host="node17", boot="0b7f1c9e", namespace="pid:[1]", pid=4711)


class Time:
    """A clock that only waiting moves, and a disk that takes its time."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.probe_s = 0.01
        self.looked = 0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def probe(self, root: Path) -> None:
        del root
        self.looked += 1
        self.now += self.probe_s

    def watch(self, root: Path) -> LeaseWatch:
        return LeaseWatch(root, clock=self.monotonic, probe=self.probe)


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def shared(monkeypatch: pytest.MonkeyPatch, time: Time) -> Time:
    """Every directory is on a file system whose locks reach nobody knows how far."""
    monkeypatch.setattr(lock, "mount_of", lambda _: Mount(type="fuse.sshfs"))
    monkeypatch.setattr(lock, "time", SimpleNamespace(monotonic=time.monotonic, sleep=time.sleep))
    monkeypatch.setattr(lock, "LeaseWatch", time.watch)
    return time


def left_by(process: Process, root: Path, *, renewed: int = 1, generation: int = 1) -> FoundLease:
    """A lease file as that process leaves it."""
    since = "2026-01-02T03:04:05+00:00"
    content = lease._encode("00c0ffee00c0ffee", process, since=since, beats=renewed)
    (root / f".lease-{generation}").write_bytes(content)
    found = find(root)
    assert found is not None
    return found


def names_in(root: Path) -> list[str]:
    return sorted(path.name for path in root.iterdir())


def test_of_takers_that_come_at_once_one_has_it(tmp_path: Path) -> None:
    for number in range(300):
        root = tmp_path / str(number)
        root.mkdir()
        dead = left_by(ELSEWHERE, root) if number % 2 else None
        barrier = threading.Barrier(4)
        had: list[Lease] = []

        def race(root: Path, dead: FoundLease | None, barrier: threading.Barrier) -> None:
            barrier.wait()
            with suppress(LeaseTakenError):
                had.append(take(root, instead_of=dead))  # noqa: B023  # joined below

        threads = [threading.Thread(target=race, args=(root, dead, barrier)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(had) == 1
        assert names_in(root) == [".lease-2" if number % 2 else ".lease-1"]
        assert had.pop().loss() is None


def test_who_ends_in_order_leaves_nothing_and_the_next_one_starts_at_once(
    tmp_path: Path, shared: Time
) -> None:
    held = acquire(tmp_path)
    assert names_in(tmp_path) == [".lease-1", ".lock"]
    del held
    assert names_in(tmp_path) == [".lock"]
    began = shared.now
    assert acquire(tmp_path).root == tmp_path
    assert shared.now == began


def test_the_lease_of_a_process_of_this_host_that_is_gone_is_taken_over_at_once(
    tmp_path: Path, shared: Time, caplog: pytest.LogCaptureFixture
) -> None:
    with subprocess.Popen(["true"]) as process:
        pid = process.pid
    left_by(replace(HERE, pid=pid), tmp_path)
    began = shared.now
    held = acquire(tmp_path)
    assert shared.now == began
    assert names_in(tmp_path) == [".lease-2", ".lock"]
    expected = f"process {pid} on {HERE.host} since 2026-01-02T03:04:05+00:00, and is taken over"
    assert f"was left by a dead job, {expected}" in caplog.text
    del held


def test_a_process_that_nobody_has_waited_for_is_gone_and_one_that_is_stopped_is_not() -> None:
    with ExitStack() as stack:
        command = [sys.executable, "-c", "input()"]
        process = stack.enter_context(subprocess.Popen(command, stdin=subprocess.PIPE))
        stack.callback(process.kill)
        started = int(lease_stat(process.pid)[19])
        child = replace(HERE, pid=process.pid, started=started)
        assert child.life(seen_by=HERE) is Life.alive
        os.kill(process.pid, 19)
        os.waitid(os.P_PID, process.pid, os.WSTOPPED)
        assert child.life(seen_by=HERE) is Life.alive
        assert replace(child, started=started - 1).life(seen_by=HERE) is Life.gone
        assert replace(child, boot="another").life(seen_by=HERE) is Life.unknown
        assert replace(child, namespace="pid:[1]").life(seen_by=HERE) is Life.unknown
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert child.life(seen_by=HERE) is Life.gone


def lease_stat(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def test_a_holder_elsewhere_counts_as_dead_after_thirty_quiet_seconds(
    tmp_path: Path, time: Time
) -> None:
    left_by(ELSEWHERE, tmp_path)
    watch = time.watch(tmp_path)
    watch.look()
    began = time.now
    while watch.look() is WatchVerdict.watching:
        time.sleep(1.0)
    assert watch.look() is WatchVerdict.dead
    assert 30.0 <= time.now - began < 32.0


def test_a_holder_elsewhere_that_renews_is_refused_as_soon_as_that_is_seen(
    tmp_path: Path, shared: Time, monkeypatch: pytest.MonkeyPatch
) -> None:
    left_by(ELSEWHERE, tmp_path)
    began = shared.now

    def sleep(seconds: float) -> None:
        beats_before = (shared.now - began) // 5
        shared.now += seconds
        if (shared.now - began) // 5 > beats_before:
            left_by(ELSEWHERE, tmp_path, renewed=2)

    monkeypatch.setattr(lock, "time", SimpleNamespace(monotonic=shared.monotonic, sleep=sleep))
    with pytest.raises(DirectoryInUseError) as caught:
        acquire(tmp_path, patience_s=3.0, watch_s=90.0)
    assert "process 4711 on node17 since 2026-01-02T03:04:05+00:00 (.lease-1)" in str(caught.value)
    assert "abandoned" not in str(caught.value)
    assert 5.0 <= shared.now - began < 7.0
    assert names_in(tmp_path) == [".lease-1", ".lock"]


def test_a_dead_holder_elsewhere_is_taken_over_after_the_time(tmp_path: Path, shared: Time) -> None:
    left_by(ELSEWHERE, tmp_path)
    began = shared.now
    held = acquire(tmp_path, patience_s=10.0, watch_s=90.0)
    assert 30.0 <= shared.now - began < 33.0
    held.confirm()
    assert names_in(tmp_path) == [".lease-2", ".lock"]


def test_a_lease_that_was_never_written_is_watched_as_any_other(
    tmp_path: Path, shared: Time
) -> None:
    (tmp_path / ".lease-7").touch()
    with pytest.raises(DirectoryInUseError, match="an unidentified process"):
        acquire(tmp_path, patience_s=10.0)
    held = acquire(tmp_path, watch_s=90.0)
    assert names_in(tmp_path) == [".lease-8", ".lock"]
    del held


@pytest.mark.parametrize("probe_s", [5.5, 40.0])
def test_on_slow_storage_nobody_counts_as_dead(tmp_path: Path, time: Time, probe_s: float) -> None:
    left_by(ELSEWHERE, tmp_path)
    watch = time.watch(tmp_path)
    time.probe_s = probe_s
    for _ in range(200):
        assert watch.look() is WatchVerdict.watching
        time.sleep(1.0)
    time.probe_s = 0.01  # from now on it counts
    began = time.now - 1.0  # when the last slow look had ended
    while watch.look() is WatchVerdict.watching:
        time.sleep(1.0)
    assert 30.0 <= time.now - began < 33.0


def test_while_storage_fails_nobody_counts_as_dead(tmp_path: Path, time: Time) -> None:
    left_by(ELSEWHERE, tmp_path)
    fails = False

    def probe(root: Path) -> None:
        if fails:
            raise OSError(5, "Input/output error")
        time.probe(root)

    watch = LeaseWatch(tmp_path, clock=time.monotonic, probe=probe)
    watch.look()
    fails = True
    for _ in range(200):
        time.sleep(1.0)
        assert watch.look() is WatchVerdict.watching
    fails = False
    time.sleep(1.0)
    assert watch.look() is WatchVerdict.watching
    assert watch.still_s < 2.0


def test_a_watcher_that_was_stopped_itself_begins_anew(tmp_path: Path, time: Time) -> None:
    left_by(ELSEWHERE, tmp_path)
    watch = time.watch(tmp_path)
    for _ in range(20):
        watch.look()
        time.sleep(1.0)
    time.sleep(3600.0)
    assert watch.look() is WatchVerdict.watching
    assert watch.still_s == 0.0


def test_on_slow_storage_a_save_is_refused_and_says_why(tmp_path: Path, shared: Time) -> None:
    left_by(ELSEWHERE, tmp_path)
    shared.probe_s = 8.0
    with pytest.raises(DirectoryInUseError) as caught:
        DirectoryAccess(tmp_path).require()
    expected = (
        "its lease has not been renewed for 0 s of watching, and counts as abandoned after 30"
    )
    assert expected in str(caught.value)
    assert names_in(tmp_path) == [".lease-1", ".lock"]


def test_what_was_seen_since_the_load_counts_in_the_first_save(
    tmp_path: Path, shared: Time
) -> None:
    left_by(ELSEWHERE, tmp_path)
    access = DirectoryAccess(tmp_path)
    began = shared.now
    with access.briefly() as mine:
        assert not mine
    assert shared.now - began < 1.0  # a load does not wait
    assert access._watch is not None
    while access._watch.look() is WatchVerdict.watching:
        shared.sleep(1.0)
    began = shared.now
    assert access.require()
    assert shared.now - began < 1.0
    access.confirm()


def taken_over_from(held: Lease | lock.DirectoryLock, root: Path) -> Lease:
    found = find(root)
    assert found is not None
    held_ids, lease._held = lease._held, set()  # as another process does
    try:
        return take(root, instead_of=found)
    finally:
        lease._held = held_ids


def test_who_was_taken_for_dead_changes_nothing_and_saves_no_more(
    tmp_path: Path, shared: Time
) -> None:
    access = DirectoryAccess(tmp_path)
    assert access.require()
    assert not access.require()
    assert access._lock is not None
    other = taken_over_from(access._lock, tmp_path)
    (tmp_path / "step_1").mkdir()
    storage = guarded(LocalStorage(), access.confirm)
    for change in (
        lambda: storage.rename(tmp_path / "step_1", tmp_path / "step_2"),
        lambda: storage.exchange(tmp_path / "step_1", tmp_path / "step_2"),
        lambda: storage.make_link(tmp_path / "latest", "step_1"),
        lambda: storage.unlink(tmp_path / ".lease-2"),
        lambda: storage.remove_tree(tmp_path / "step_1"),
        access.require,
    ):
        with pytest.raises(DirectoryInUseError, match=r"on .* since .* has taken it over"):
            change()
    assert names_in(tmp_path) == [".lease-2", ".lock", "step_1"]
    other.end()
    with pytest.raises(DirectoryInUseError):  # what the other one did is not known here
        access.require()
    access.forget_loss()
    assert access.require()


def test_what_a_load_has_for_a_moment_can_be_taken_over_too(tmp_path: Path, shared: Time) -> None:
    access = DirectoryAccess(tmp_path)
    with access.briefly() as mine:
        assert mine
        assert access._brief is not None
        access.confirm_brief()
        other = taken_over_from(access._brief, tmp_path)
        with pytest.raises(DirectoryInUseError, match="has taken it over"):
            access.confirm_brief()
    access.confirm_brief()  # there is nothing left to confirm
    other.end()
    assert access.require()


def test_a_lease_that_a_person_removed_is_lost(tmp_path: Path, shared: Time) -> None:
    access = DirectoryAccess(tmp_path)
    access.require()
    (tmp_path / ".lease-1").unlink()
    with pytest.raises(DirectoryInUseError, match="its file was removed"):
        access.confirm()


def test_a_lease_is_lost_as_soon_as_the_next_one_is_made(tmp_path: Path, shared: Time) -> None:
    access = DirectoryAccess(tmp_path)
    access.require()
    left_by(ELSEWHERE, tmp_path, generation=2)  # by who died before it removed the first one
    with pytest.raises(DirectoryInUseError, match=r"process 4711 on node17 .* has taken it over"):
        access.confirm()
    assert names_in(tmp_path) == [".lease-2", ".lock"]


def test_a_taker_that_judged_a_lease_of_long_ago_withdraws(tmp_path: Path) -> None:
    judged = left_by(ELSEWHERE, tmp_path)
    (tmp_path / ".lease-1").unlink()
    other = take(tmp_path, instead_of=None)
    with pytest.raises(LeaseTakenError):
        take(tmp_path, instead_of=judged)
    assert names_in(tmp_path) == [".lease-1"]
    assert other.loss() is None


def test_a_taker_that_saw_nothing_long_ago_withdraws_before_a_later_holder(tmp_path: Path) -> None:
    left_by(ELSEWHERE, tmp_path, generation=3)
    with pytest.raises(LeaseTakenError):
        take(tmp_path, instead_of=None)
    assert names_in(tmp_path) == [".lease-3"]


def test_renewing_never_brings_a_file_back_and_never_writes_to_anothers(tmp_path: Path) -> None:
    held = take(tmp_path, instead_of=None)
    before = held.path.read_bytes()
    held._kept._beat()
    after = held.path.read_bytes()
    assert after != before
    assert len(after) == len(before)
    held.path.unlink()
    with pytest.raises(FileNotFoundError):
        held._kept._beat()
    found = left_by(ELSEWHERE, tmp_path)
    held._kept._beat()
    assert find(tmp_path) == found
    assert held.loss() == "process 4711 on node17 since 2026-01-02T03:04:05+00:00 has taken it over"
    held.end()
    assert find(tmp_path) == found


def test_the_thread_that_renews_ends_with_the_lease(tmp_path: Path) -> None:
    held = take(tmp_path, instead_of=None)
    thread = held._kept._thread
    assert thread.is_alive()
    del held
    assert not thread.is_alive()


USE = """
import os, sys, threading
from pathlib import Path
from kempnerforge.checkpoint.runtime import lock
from kempnerforge.checkpoint.runtime.file_systems import Mount
lock.mount_of = lambda _: Mount(type="fuse.sshfs")
held = lock.acquire(Path(sys.argv[1]))
held.confirm()
"""


@pytest.mark.parametrize(
    ("end", "status"),
    [
        ("", 0),
        ("sys.exit(3)", 3),
        ("raise KeyError", 1),
        ("if os.fork() == 0: sys.exit()\nos.wait(); held.confirm()", 0),
        ("os.execv(sys.executable, [sys.executable, '-c', *sys.orig_argv[2:]])", 0),
    ],
)
def test_a_program_that_ends_leaves_no_lease(tmp_path: Path, end: str, status: int) -> None:
    code = USE + (
        f"if not os.environ.get('AGAIN'):\n os.environ['AGAIN'] = '1'\n {end}" if end else ""
    )
    code = code.replace("\nos.wait", "\n os.wait")
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, check=False, capture_output=True
    )
    assert done.returncode == status, done.stderr
    assert names_in(tmp_path) == [".lock"]


def test_a_program_that_is_killed_leaves_its_lease_to_the_next_one_at_once(
    tmp_path: Path, shared: Time
) -> None:
    code = USE + "os.kill(os.getpid(), 9)"
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, check=False)
    assert names_in(tmp_path) == [".lease-1", ".lock"]
    began = shared.now
    held = acquire(tmp_path)
    assert shared.now == began
    del held
    assert names_in(tmp_path) == [".lock"]


def test_where_locks_are_known_to_keep_everybody_out_there_is_no_file(tmp_path: Path) -> None:
    held = acquire(tmp_path)
    assert names_in(tmp_path) == []
    del held


def test_a_lease_is_respected_where_a_lock_would_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, time: Time
) -> None:
    monkeypatch.setattr(lock, "LeaseWatch", time.watch)
    left_by(ELSEWHERE, tmp_path)
    with pytest.raises(DirectoryInUseError, match="process 4711 on node17"):
        acquire(tmp_path)


@pytest.mark.parametrize(
    ("mount", "names"),
    [
        (Mount(type="nfs4", options=frozenset({"rw", "local_lock=none"})), [".lock"]),
        (
            Mount(type="nfs", options=frozenset({"local_lock=none", "nolock"})),
            [".lease-1", ".lock"],
        ),
        (Mount(type="nfs", options=frozenset({"local_lock=all"})), [".lease-1", ".lock"]),
        (Mount(type="nfs", options=frozenset({"local_lock=flock"})), [".lease-1", ".lock"]),
        (Mount(type="nfs"), [".lease-1", ".lock"]),
        (Mount(type="lustre", options=frozenset({"flock"})), [".lease-1", ".lock"]),
        (Mount(type="fuse.bindfs"), [".lease-1", ".lock"]),
        (Mount(type="virtiofs"), [".lease-1", ".lock"]),
        (Mount(type=""), [".lease-1", ".lock"]),
        (Mount(type="overlay"), []),
        (Mount(type="xfs"), []),
    ],
)
def test_each_kind_of_mount_gets_what_keeps_other_hosts_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mount: Mount, names: list[str]
) -> None:
    monkeypatch.setattr(lock, "mount_of", lambda _: mount)
    held = acquire(tmp_path)
    assert names_in(tmp_path) == names
    del held
