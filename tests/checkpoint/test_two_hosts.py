"""Jobs on two hosts that share a directory but no lock."""

from __future__ import annotations

import os
import select
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from kempnerforge.checkpoint import DirectoryInUseError
from kempnerforge.checkpoint.runtime.lease import FoundLease, Lease, LeaseTakenError, find, take
from kempnerforge.checkpoint.runtime.lock import acquire
from tests.checkpoint.mounts import two_hosts
from tests.checkpoint.test_lease import ELSEWHERE, left_by

ROOT = Path(__file__).parents[2]
# Leases as ever, and a hundredth of the time.
JOB = """
import logging, sys
from pathlib import Path
from kempnerforge.checkpoint import DirectoryInUseError
from kempnerforge.checkpoint.runtime import lease, lease_watch, lock
lease.BEAT_S, lease_watch.LEASE_S, lease_watch.LOOK_S = 0.05, 1.0, 0.02
lock.LOOK_S, lock._PATIENCE_S = 0.02, 0.1
from tests.checkpoint.training import Job
logging.basicConfig(level="WARNING")
job = Job(Path(sys.argv[1]), 0, seed=1, keep_last_n=2)
def answer(command, step):
    try:
        if command == "load":
            return f"loaded {job.load()[0]}"
        job.save(step)
        return f"saved {step}"
    except DirectoryInUseError as error:
        return f"refused: {error}"
print("ready", flush=True)
for line in sys.stdin:
    command, _, step = line.strip().partition(" ")
    print(answer(command, int(step or 0)), flush=True)
"""


class Host:
    """A job on a host of its own: its processes have numbers of their own, and its own mount."""

    def __init__(self, directory: Path) -> None:
        self._process = subprocess.Popen(
            ["unshare", "--pid", "--fork", "--kill-child", sys.executable, "-c", JOB, directory],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._is_ready = False

    @property
    def job(self) -> int:
        """Number of the job's process, as this process counts."""
        pid = self._process.pid
        return int(Path(f"/proc/{pid}/task/{pid}/children").read_text())

    def tell(self, command: str) -> None:
        if not self._is_ready:
            assert self._line() == "ready"
            self._is_ready = True
        assert self._process.stdin is not None
        self._process.stdin.write(command + "\n")
        self._process.stdin.flush()

    def do(self, command: str) -> str:
        self.tell(command)
        return self._line()

    def _line(self) -> str:
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], 60.0)
        assert ready, "no answer in time"
        return self._process.stdout.readline().strip()

    def end(self) -> None:
        """As a program ends."""
        self._process.communicate()

    def kill(self) -> None:
        if self._process.poll() is None:
            os.kill(self.job, signal.SIGKILL)
            self._process.communicate()


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[tuple[Path, Path]]:
    if shutil.which("unshare") is None:
        pytest.skip("unshare is not installed")
    with two_hosts(tmp_path) as found:
        yield found


def names_in(hosts: tuple[Path, Path]) -> list[str]:
    return sorted(path.name for path in (hosts[0].parent / "real" / "checkpoints").iterdir())


def test_a_second_mount_on_the_same_host_is_refused_at_once(hosts: tuple[Path, Path]) -> None:
    held = acquire(hosts[0])
    with pytest.raises(DirectoryInUseError, match=f"process {os.getpid()} on "):
        acquire(hosts[1])
    del held
    assert acquire(hosts[1]).root == hosts[1]


def test_of_takers_on_two_mounts_one_has_it(hosts: tuple[Path, Path]) -> None:
    for number in range(100):
        had = race_for(hosts, f"free{number}")
        assert len(had) == 1
        had.pop().end()
        assert had_by_both(hosts, f"free{number}") == []
        dead = left_by(ELSEWHERE, made(hosts, f"dead{number}"))
        had = race_for(hosts, f"dead{number}", instead_of=dead)
        assert len(had) == 1
        assert had[0].loss() is None
        assert had_by_both(hosts, f"dead{number}") == [".lease-2"]


def test_a_lease_that_was_just_given_back_on_another_host_is_in_nobodys_way(
    hosts: tuple[Path, Path],
) -> None:
    later = hosts[0] / ".lease-2"
    for _ in range(20):
        (hosts[1] / ".lease-2").write_bytes(b"")
        assert os.path.lexists(later)
        (hosts[1] / ".lease-2").unlink()
        assert os.path.lexists(later)  # for a second, as this host sees it
        lease = take(hosts[0], instead_of=None)
        assert lease.loss() is None
        lease.end()


def made(hosts: tuple[Path, Path], name: str) -> Path:
    (hosts[0] / name).mkdir()
    return hosts[0] / name


def had_by_both(hosts: tuple[Path, Path], name: str) -> list[str]:
    one, other = (sorted(path.name for path in (host / name).iterdir()) for host in hosts)
    assert one == other
    return one


def race_for(
    hosts: tuple[Path, Path], name: str, *, instead_of: FoundLease | None = None
) -> list[Lease]:
    if instead_of is None:
        made(hosts, name)
    barrier = threading.Barrier(4)
    had: list[Lease] = []

    def race(root: Path) -> None:
        found = None if instead_of is None else find(root)
        barrier.wait()
        with suppress(LeaseTakenError):
            had.append(take(root, instead_of=found))

    threads = [threading.Thread(target=race, args=(host / name,)) for host in hosts * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return had


def test_a_mount_and_the_directory_below_it_exclude_each_other(hosts: tuple[Path, Path]) -> None:
    real = hosts[0].parent / "real"
    for one, other in ((real, hosts[0]), (hosts[0], real)):
        held = acquire(one)
        with pytest.raises(DirectoryInUseError, match=f"process {os.getpid()} on "):
            acquire(other)
        del held
        assert acquire(other).root == other


def test_a_job_on_a_second_host_is_refused_until_the_first_one_ends(
    hosts: tuple[Path, Path],
) -> None:
    one, other = Host(hosts[0]), Host(hosts[1])
    try:
        assert one.do("save 1") == "saved 1"
        staging = hosts[0] / "checkpoints" / ".staging-step_2-00c0ffee00c0ffee"
        staging.mkdir()
        assert other.do("load") == "loaded 1"
        assert other.do("save 2").startswith("refused: saving step 2 to ")
        assert "in use by another job: process 1 on " in other.do("save 2")
        assert names_in(hosts) == [".lease-1", ".lock", staging.name, "latest", "step_1"]
        assert one.do("save 2") == "saved 2"
        one.end()
        assert other.do("save 2").startswith("refused: ")  # of which it did not go on
        assert other.do("save 3") == "saved 3"
        assert names_in(hosts) == [".lease-1", ".lock", "latest", "step_1", "step_2", "step_3"]
        assert other.do("load") == "loaded 3"
        assert other.do("save 4") == "saved 4"
        other.end()
        assert names_in(hosts) == [".lock", "latest", "step_3", "step_4"]
    finally:
        one.kill()
        other.kill()


def test_a_job_takes_over_from_one_that_died_on_another_host(hosts: tuple[Path, Path]) -> None:
    one, other = Host(hosts[0]), Host(hosts[1])
    try:
        assert one.do("save 1") == "saved 1"
        one.kill()
        assert other.do("load") == "loaded 1"
        assert other.do("save 2") == "saved 2"
        assert names_in(hosts) == [".lease-2", ".lock", "latest", "step_1", "step_2"]
    finally:
        one.kill()
        other.kill()


def test_a_job_that_wakes_up_after_another_took_over_publishes_and_deletes_nothing(
    hosts: tuple[Path, Path],
) -> None:
    one, other = Host(hosts[0]), Host(hosts[1])
    try:
        for step in (1, 2):
            assert one.do(f"save {step}") == f"saved {step}"
        stopped = one.job
        os.kill(stopped, signal.SIGSTOP)
        assert other.do("load") == "loaded 2"
        assert other.do("save 3") == "saved 3"
        expected = names_in(hosts)
        assert expected == [".lease-2", ".lock", "latest", "step_2", "step_3"]
        one.tell("save 4")
        os.kill(stopped, signal.SIGCONT)
        answer = one._line()
        assert answer.startswith("refused: ")
        assert "has taken it over" in answer
        assert names_in(hosts) == expected
        assert other.do("save 4") == "saved 4"
        other.end()
        assert one.do("save 5").startswith("refused: ")  # what the other one did is not known to it
        assert names_in(hosts) == [".lock", "latest", "step_3", "step_4"]
        assert one.do("load") == "loaded 4"
        assert one.do("save 5") == "saved 5"
    finally:
        one.kill()
        other.kill()


def test_of_jobs_that_start_on_two_hosts_at_once_one_is_refused(hosts: tuple[Path, Path]) -> None:
    (hosts[0] / "checkpoints").mkdir()
    one, other = Host(hosts[0]), Host(hosts[1])
    try:
        one.tell("save 1")
        other.tell("save 1")
        answers = sorted(host._line().partition(":")[0] for host in (one, other))
        assert answers == ["refused", "saved 1"]
        assert names_in(hosts) == [".lease-1", ".lock", "latest", "step_1"]
    finally:
        one.kill()
        other.kill()
