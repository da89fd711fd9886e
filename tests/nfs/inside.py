"""The checks that run on the machine that has NFS, and how each gets its mounts and ranks.

A rank is a host as far as one machine has several: it sees the same directory by a mount of its
own, which shares no cache with the others (``nosharecache``), under the same path (a mount
namespace).
"""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch.distributed as dist

from kempnerforge.checkpoint import CheckpointError
from tests.checkpoint.ranks import run_ranks
from tests.checkpoint.training import Job

_SERVED = Path("/mnt/served")
_HERE = Path("/mnt/here")
_CLONE_NEWNS = 0x00020000
# A soft mount gives up after a second, where a hard one waits for ever.
_SOFT = "soft,timeo=5,retrans=1"
VERSIONS = ("3", "4.2")
_RANKS_S = 300.0


class Mounts:
    """Of the served directory: one for each of two hosts, below a folder of this check."""

    def __init__(self, name: str, version: str, options: str = "nosharecache") -> None:
        self.served = _SERVED / name
        self.served.mkdir()
        self.views = [Path("/mnt") / f"{name}-{number}" for number in range(2)]
        source = "127.0.0.1:" + ("/mnt/served" if version == "3" else "/")
        for view in self.views:
            view.mkdir()
            given = f"vers={version},nosharecache,{options}"
            _call("mount", "-t", "nfs", "-o", given, f"{source.rstrip('/')}/{name}", view)


def _call(*command: object) -> None:
    subprocess.run([str(word) for word in command], check=True, stdin=subprocess.DEVNULL)


def _on_host(view: str) -> Path:
    """Make this process one of the host that sees the directory by ``view``."""
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.unshare(_CLONE_NEWNS) == 0, os.strerror(ctypes.get_errno())
    _call("mount", "--make-rprivate", "/")
    _HERE.mkdir(exist_ok=True)
    _call("mount", "--bind", view, _HERE)
    return _HERE


def _ranks(job: Callable[..., Any], mounts: Mounts, *args: Any) -> list[Any]:
    views = [str(view) for view in mounts.views]
    return run_ranks(
        job, Path("/dev/shm") / mounts.served.name, views, *args, world=2, timeout_s=_RANKS_S
    )


def _outcome(call: Callable[[], object]) -> str:
    try:
        return str(call())
    except CheckpointError as error:
        return f"{type(error).__name__}: {error}"


def _names(directory: Path) -> list[str]:
    """Without those of locks and leases."""
    return sorted(path.name for path in directory.iterdir() if path.name[:2] != ".l")


# What each rank does.


def _save_and_resume(rank: int, _: Path, views: list[str], mode: str) -> Any:
    here = _on_host(views[rank])
    job = Job(here, rank, seed=1, sharded=True, keep_last_n=2, async_mode=mode)
    for step in (1, 2, 3, 3):  # the last one replaces, where NFS exchanges no names
        job.train(1)
        job.save(step)
    job.manager.wait()
    digest = job.digest()
    dist.barrier()
    again = Job(here, rank, seed=9, sharded=True, keep_last_n=2)
    step = again.load()[0]
    return [step, again.digest() == digest, _names(here / "checkpoints")]


def _save_on(rank: int, _: Path, views: list[str], disturb: str, mend: str) -> Any:
    """A save before, one while the storage is disturbed, and one after it is mended."""
    here = _on_host(views[rank])
    job = Job(here, rank, seed=1, sharded=True, commit_timeout_s=40)
    job.save(1)
    said = []
    for step, command in ((2, disturb), (3, mend)):
        dist.barrier()
        if rank == 0:
            _call("bash", "-c", command)
        dist.barrier()
        said.append(_outcome(lambda step=step: job.save(step)))  # type: ignore[misc]
    return [*said, _names(here / "checkpoints")]


def _follow(rank: int, _: Path, views: list[str], served: str) -> Any:
    """Both ranks look, and keep for a minute what they saw; then there is a newer step."""
    here = _on_host(views[rank])
    job = Job(here, rank, seed=1, sharded=True)
    for step in (1, 2):
        job.save(step)
    said = []
    for moved, latest in (("step_2 ..", "step_1"), ("../step_2 .", "step_2")):
        dist.barrier()
        if rank == 0:  # on the server, of which no client hears
            _call("bash", "-c", f"cd {served}/checkpoints; mv {moved}; ln -sfn {latest} latest")
        dist.barrier()
        said.append(_outcome(lambda: Job(here, rank, seed=9, sharded=True).load()[0]))
    return said


def _host(name: str, view: Path, call: Callable[[Path], Any]) -> Any:
    """The result of ``call`` in a forked child on the host that sees the directory by ``view``."""
    results = Path("/dev/shm") / f"{name}-{time.monotonic_ns()}"
    child = os.fork()
    if child == 0:
        try:
            results.write_text(json.dumps(call(_on_host(str(view)))))
        except BaseException:  # noqa: BLE001  # told by the parent
            results.write_text(json.dumps(traceback.format_exc()))
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    return json.loads(results.read_text())


def _job_alone(here: Path, **options: Any) -> Job:
    return Job(here, 0, seed=1, **options)


# The checks.


def saves_and_resumes(name: str, version: str, mode: str) -> Any:
    return _ranks(_save_and_resume, Mounts(name, version), mode)


def second_job(name: str, version: str, options: str) -> Any:
    """A job on one host saves while one on another has the directory, and after that has ended."""
    mounts = Mounts(name, version, options)
    said: list[str] = []

    def first(here: Path) -> list[str]:
        job = _job_alone(here)
        job.save(1)
        found = _host(name, mounts.views[1], lambda there: _outcome(_saving(there, 2)))
        return [found, *_names(here / "checkpoints")]

    said += _host(name, mounts.views[0], first)
    said.append(_host(name, mounts.views[1], lambda there: _outcome(_saving(there, 3))))
    return said


def _saving(here: Path, step: int) -> Callable[[], object]:
    return lambda: _job_alone(here).save(step)


def stale_view(name: str, version: str) -> Any:
    """A host that has looked a moment ago, and keeps what it saw for a minute, resumes."""
    mounts = Mounts(name, version, "actimeo=60")

    def second(there: Path) -> Any:
        before = _job_alone(there).load()[0]
        _host(name, mounts.views[0], lambda here: _outcome(_saving(here, 2)))
        return [before, _job_alone(there).load()[0]]

    _host(name, mounts.views[0], lambda here: _outcome(_saving(here, 1)))
    return _host(name, mounts.views[1], second)


def follows(name: str, version: str) -> Any:
    mounts = Mounts(name, version, "actimeo=60")
    return _ranks(_follow, mounts, str(mounts.served))


def full(name: str, version: str) -> Any:
    filler = _SERVED / "filler"
    return _ranks(
        _save_on,
        Mounts(name, version),
        f"head -c 60M /dev/zero >{filler}; head -c 60M /dev/zero >>{filler}; true",
        f"rm {filler}",
    )


def read_only(name: str, version: str) -> Any:
    """The server exports it for reading only; a mount cannot be changed while a lock is open."""
    export = "exportfs -o {},no_root_squash,fsid=0,insecure,no_subtree_check,sync '*:/mnt/served'"
    how = f"{export}; exportfs -f; sleep 1"
    return _ranks(_save_on, Mounts(name, version, "noac"), how.format("ro"), how.format("rw"))


def squashed(name: str, version: str) -> Any:
    """The server takes root for nobody, who may not write there."""
    export = "exportfs -o rw,{},fsid=0,insecure,no_subtree_check,sync '*:/mnt/served'; sleep 1"
    where = f"chmod 755 {_SERVED / name}; "
    return _ranks(
        _save_on,
        Mounts(name, version, "noac"),
        where + export.format("root_squash"),
        where + export.format("no_root_squash"),
    )


def server_stops(name: str, version: str) -> Any:
    return _ranks(_save_on, Mounts(name, version, _SOFT), "rpc.nfsd 0", "rpc.nfsd 4; sleep 3")


def _checks() -> Iterator[tuple[str, Callable[[str], Any]]]:
    for version in VERSIONS:
        short = f"v{version.partition('.')[0]}"
        for mode in ("disabled", "async"):
            yield f"saves-{mode}-{short}", partial(saves_and_resumes, version=version, mode=mode)
        yield f"second-job-{short}", partial(second_job, version=version, options="hard")
        for check in (stale_view, follows, full, read_only, squashed, server_stops):
            yield f"{check.__name__}-{short}", partial(check, version=version)
    yield "second-job-nolock", partial(second_job, version="3", options="nolock")


CHECKS = dict(_checks())


def main() -> None:
    """Run every check; what one raises is its result."""
    folder, found = Path(sys.argv[1]), {}
    for name in sys.argv[2:] or CHECKS:
        check = CHECKS[name]
        began = time.monotonic()
        try:
            found[name] = check(name)
        except BaseException:  # noqa: BLE001  # told by the test
            found[name] = traceback.format_exc()
        sys.stdout.write(f"{name}: {time.monotonic() - began:.0f} s, {found[name]}\n")
        sys.stdout.flush()
    (folder / "results.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main()
