"""Lets jobs of all workers and sessions run together if they fit on this machine, and never more.

Each job holds a *lease* while it runs: a file in a shared folder that says what the job takes,
locked with `flock` by the process that runs it. A process that wants a lease waits in a queue,
which is one more lock. The first in the queue looks at all leases, waits until what it wants is
free, and writes its own. So

- no GPU is leased to more jobs than allowed, and ranks and memory never add up to more than there
  are;
- a holder that dies by SIGKILL gives back what it had, because the kernel drops its lock: a lease
  without a lock is removed by the next process that finds it;
- small jobs do not starve a large one: while it waits at the head of the queue, no other job is
  served. The price is that processors idle for a moment;
- a job that wants more ranks or memory than there are runs alone. A job that wants more GPUs than
  there are cannot run.

The folder belongs to one user on one machine. Out of scope: jobs of other users, programs that hold
no lease, and the instants in which the processes of a killed holder are still ending.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from harness.plan.place import Need
from harness.run.machine import Machine
from harness.system.errors import HarnessError

_LOOK_EVERY_S = 0.01
"""Only the head of the queue polls; a job lasts a hundred times as long."""
_WHOLE = 100
"""Percent, because three thirds do not add up to one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ResourceLease:
    """The resources leased to a job. `gpus` are names for `CUDA_VISIBLE_DEVICES`.

    `gpu_percent` is the part of each GPU.
    """

    ranks: int
    memory_mib: int
    gpus: tuple[str, ...]
    gpu_percent: int


class Broker:
    """Leases what a machine has. Each process has its own broker; they meet in the folder."""

    def __init__(self, folder: Path, machine: Machine) -> None:
        self.folder, self.machine = folder, machine

    @contextmanager
    def lease(self, need: Need) -> Iterator[ResourceLease]:
        """Wait for the resources, and hold them. Raises HarnessError if they never are free."""
        machine = self.machine
        if need.gpus > len(machine.gpus):
            raise HarnessError(
                f"the job needs {need.gpus} GPUs, this machine has {len(machine.gpus)}"
            )
        ranks, memory_mib = min(need.ranks, machine.ranks), min(need.memory_mib, machine.memory_mib)
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with FileLock(self.folder / "queue", poll_interval=_LOOK_EVERY_S):
            while (gpus := self._free(ranks, memory_mib, need.gpus)) is None:
                time.sleep(_LOOK_EVERY_S)
            percent = _WHOLE // machine.gpu_jobs
            lease = ResourceLease(
                ranks=ranks, memory_mib=memory_mib, gpus=gpus, gpu_percent=percent
            )
            path, descriptor = self._write(lease)
        try:
            yield lease
        finally:
            path.unlink(missing_ok=True)
            os.close(descriptor)

    def _held(self) -> tuple[ResourceLease, ...]:
        """Returns the leases of all live holders; removes those of the dead."""
        return tuple(
            lease
            for path in self.folder.glob("*.lease")
            if (lease := _read_living(path)) is not None
        )

    def _free(self, ranks: int, memory_mib: int, gpus: int) -> tuple[str, ...] | None:
        """Returns the least used GPUs to take, or None if something is not free."""
        held = self._held()
        if sum(one.ranks for one in held) + ranks > self.machine.ranks:
            return None
        if sum(one.memory_mib for one in held) + memory_mib > self.machine.memory_mib:
            return None
        return choose_gpus(self.machine, held, gpus)

    def _write(self, lease: ResourceLease) -> tuple[Path, int]:
        """Call only at the head of the queue: before it is locked, the file looks abandoned."""
        path = self.folder / f"{os.getpid()}-{secrets.token_hex(4)}.lease"
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        fields = {name: getattr(lease, name) for name in ResourceLease.__slots__}
        os.write(descriptor, json.dumps(fields).encode())
        return path, descriptor


def choose_gpus(
    machine: Machine, held: Sequence[ResourceLease], wanted: int
) -> tuple[str, ...] | None:
    """Returns the least used GPUs that have room; None if there are fewer than wanted."""
    used: Counter[str] = Counter()
    for one in held:
        for name in one.gpus:
            used[name] += one.gpu_percent
    share = _WHOLE // machine.gpu_jobs
    free = sorted((used[name], place) for place, name in enumerate(machine.gpus))
    fitting = [place for taken, place in free if taken + share <= _WHOLE]
    if len(fitting) < wanted:
        return None
    return tuple(machine.gpus[place] for place in sorted(fitting[:wanted]))


def _read_living(path: Path) -> ResourceLease | None:
    """Returns the lease that a live process has locked; removes the file of a dead one."""
    with suppress(FileNotFoundError), path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            fields = json.loads(file.read())
            return ResourceLease(**{**fields, "gpus": tuple(fields["gpus"])})
        path.unlink(missing_ok=True)
    return None


def lease_folder() -> Path:
    """Returns the folder that all sessions of this user share, whatever their TMPDIR."""
    memory = Path("/dev/shm")
    base = memory if memory.is_dir() and os.access(memory, os.W_OK) else tempfile.gettempdir()
    default = Path(base, f"kempnerforge-leases-{os.getuid() if hasattr(os, 'getuid') else 'user'}")
    return Path(os.environ.get("KEMPNERFORGE_LEASES", default))
