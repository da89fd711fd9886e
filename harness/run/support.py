"""Finds out whether this machine can run jobs under the supervisor, and if not, why."""

from __future__ import annotations

import functools
import os
import sys
import tempfile
from pathlib import Path

from harness.plan.model import Plan
from harness.run.fuse.mount import missing_fuse
from harness.run.machine import this_machine
from harness.system.attempt import in_a_child


@functools.cache
def missing() -> str | None:
    """Returns None if scenarios can run, else the reason."""
    if sys.platform != "linux":
        return f"scenarios need Linux (seccomp user notification); this is {sys.platform}"
    from harness.system.seccomp import architecture

    if architecture() is None:
        return f"no system-call table for {os.uname().machine}; known are x86_64 and aarch64"
    number = _probe()
    if number == 0:
        return None
    return (
        "this kernel or container refuses seccomp user notification with WAIT_KILLABLE_RECV "
        f"(Linux 5.19 or newer): {os.strerror(number)}"
    )


@functools.cache
def missing_mounts() -> str | None:
    """Acts like `missing`, with what commands need in addition: mounts of their own."""
    if (reason := missing()) is not None:
        return reason
    with tempfile.TemporaryDirectory() as name:
        reason = in_a_child(lambda: _try_mounts(name))
    if not reason:
        return None
    who = (
        "root, and this container refuses them"
        if os.geteuid() == 0
        else (
            "root, or a kernel that gives user namespaces to every user (user.max_user_namespaces "
            "above 0, kernel.apparmor_restrict_unprivileged_userns, where there is one, 0)"
        )
    )
    return f"each start needs mounts of its own, which need {who}: {reason}"


def missing_for(plan: Plan) -> str | None:
    """Acts like `missing`, with what this plan needs in addition."""
    from harness.run.launch import cluster
    from harness.system import network, wall_clock

    spread = any(plan.workload_of(number).world.nodes > 1 for number in range(len(plan.runs)))
    apart = any(one.fault.clock_ahead_s is not None for run in plan.runs for one in run.strikes)
    if plan.launcher.kind == "slurm" and (reason := cluster.missing()) is not None:
        return reason
    return (
        missing()
        or (network.missing() if spread else None)
        or (wall_clock.missing() if apart else None)
        or (missing_fuse() if plan.hosts else None)
        or (missing_mounts() if plan.command is not None else None)
        or this_machine().lacks(plan)
    )


@functools.cache
def missing_disk(filesystem: str | None) -> str | None:
    """Returns None if the power of a file system can be cut, else the reason; tries it out.

    Nothing is missing if no power is to be cut.
    """
    if filesystem is None:
        return None
    if os.geteuid() != 0:
        return f"a power cut on {filesystem} needs root, to mount an image"
    with tempfile.TemporaryDirectory() as name:
        reason = in_a_child(lambda: _try_disk(filesystem, Path(name)))
    return f"a power cut on {filesystem} is not possible here: {reason}" if reason else None


def _try_mounts(place: str) -> str:
    from harness.system.mounts import MountError, show

    try:
        show(place, place)
    except MountError as error:
        return str(error)
    return ""


def _try_disk(filesystem: str, folder: Path) -> str:
    """Cut the power of an empty file system; returns why that failed, or an empty string."""
    from harness.run.disk import DiskImage
    from harness.system.mounts import MountError, take_own_mounts

    root = folder / "mounted"
    try:
        root.mkdir()
        take_own_mounts()
        disk = DiskImage(filesystem, folder / "image", root)
        disk.format()
        disk.mount()
        disk.cut("lost")
    except (MountError, OSError) as error:
        return str(error).replace(f"{folder}/", "")  # the folder varies, and reasons are compared
    return ""


def _probe() -> int:
    """Install the filter in a child that does nothing else; returns 0, or the errno."""
    from harness.system.seccomp import install_filter

    pid = os.fork()
    if pid == 0:
        try:
            install_filter(reads=False)
        except OSError as error:
            os._exit((error.errno or 1) & 0xFF)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
