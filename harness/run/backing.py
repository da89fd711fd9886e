"""The backing storage of a checkpoint directory: a folder, or a disk whose power can be cut.

If the plan has mounts, ranks see `checkpoints/` through the harness's own file system, one mount
for each host (`fuse`, `host.py`), and the supervisor acts for them through the same mount; judges
look at the directory itself. If the plan has a power cut, an image is mounted at `checkpoints/` of
the run directory, in a mount namespace that only this scenario sees. Records, logs and traces are
outside of it: they are evidence, and survive. When the scenario is over, the directory holds what
was left on the disk.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from harness.evidence.cut import cut_operation, read_entries
from harness.evidence.evidence import Cut
from harness.evidence.operation import OPERATOR
from harness.evidence.write import list_entries, write_cut
from harness.plan.model import CHECKPOINTS, Plan
from harness.run.disk import DiskImage
from harness.run.fuse.behaviour import Behaviour
from harness.run.fuse.mount import mounted
from harness.run.trace import Trace
from harness.system.errors import HarnessError
from harness.system.host import Host
from harness.system.mounts import MountError, own_mounts


class Backing(Protocol):
    """The storage under the checkpoint directory."""

    @property
    def mounts(self) -> str | None:
        """The namespace whose mounts the ranks need in order to see the directory, if any."""

    @property
    def hosts(self) -> Mapping[str, Host]:
        """The hosts that mount it, by name; none if ranks see it directly."""

    def cut(self, journal: str) -> None:
        """Cut the power at this instant."""

    def end_run(self, trace: Trace, folder: Path) -> None:
        """After all processes have ended: restore power if it was cut, and record what was left."""


@dataclass(slots=True, kw_only=True)
class Folder:
    """A plain directory, or one that hosts mount."""

    mounts: str | None = None
    hosts: Mapping[str, Host] = field(default_factory=dict)

    def cut(self, journal: str) -> None:
        """Raises HarnessError: there is no power to cut."""
        raise HarnessError(f"no power to cut ({journal}): the directory is not on a disk image")

    def end_run(self, trace: Trace, folder: Path) -> None:
        """Has nothing to record."""


class ImageBacking:
    """A file system on an image."""

    def __init__(self, disk: DiskImage, mounts: str) -> None:
        self.mounts: str | None = mounts
        self.hosts: Mapping[str, Host] = {}
        self._disk = disk
        self._cut: Cut | None = None

    def cut(self, journal: str) -> None:
        """Record what is there, and let nothing more reach the disk."""
        if self._cut is not None:
            return  # the power is already off
        before = list_entries(self._disk.root)
        self._cut = Cut(
            filesystem=self._disk.filesystem,
            journal=journal,
            how=self._disk.cut(journal),
            before=before,
        )

    def end_run(self, trace: Trace, folder: Path) -> None:
        """Restart the disk, and add its contents to the trace."""
        if self._cut is None:
            return
        self._disk.restart()
        entries = read_entries(self._disk.root, trace.written)
        cut = cut_operation(
            entries,
            trace.written,
            index=len(trace.operations),
            rank=OPERATOR,
            time_s=trace.seconds(),
        )
        trace.operations.append(cut)
        write_cut(folder, self._cut)
        self._cut = None


_SOONER_S = 5.0
"""For an unmount that nothing depends on. In an interrupted session, ranks can hold the disk until
the session ends."""


@contextmanager
def stand(plan: Plan, directory: Path) -> Iterator[Backing]:
    """Provide the backing storage of a prepared run directory. Raises MountError."""
    if plan.hosts:
        with _mounted(plan, directory) as backing:
            yield backing
        return
    if plan.filesystem is None:
        yield Folder()
        return
    root, left = directory / CHECKPOINTS, directory / "left"
    with own_mounts() as mounts:
        disk = DiskImage(plan.filesystem, directory / "disk.image", root)
        try:
            disk.format()
            disk.mount()
            yield ImageBacking(disk, mounts)
            shutil.copytree(root, left, symlinks=True)
        finally:
            # The mounts disappear with the last process anyway; this only makes it sooner.
            with suppress(MountError):
                disk.unmount(patience_s=_SOONER_S)
            disk.remove()
    root.rmdir()
    left.rename(root)


@contextmanager
def _mounted(plan: Plan, directory: Path) -> Iterator[Backing]:
    """Mount the directory once for each host. Raises MountError."""
    root, folder = directory / CHECKPOINTS, directory / "hosts"
    settings = {} if plan.mount is None else plan.mount.model_dump()
    hosts = {
        name: Host(name=name, place=folder / name, shown=root, boot_id=folder / f"{name}.boot_id")
        for name in plan.hosts
    }
    with own_mounts() as mounts, ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        for host in hosts.values():
            host.prepare()
            stack.enter_context(mounted(root, host.place, Behaviour(**settings)))
        yield Folder(mounts=mounts, hosts=hosts)
