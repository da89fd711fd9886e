"""Mounts the harness's FUSE file system in the mounts of the calling thread. Needs root.

The server is a process of its own, because the kernel asks it while this one waits in a call. It
dies with the thread that mounted, and the mount is useless from then on; in a private mount
namespace (`harness/system/mounts.py`) it disappears with the namespace.
"""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path

from harness.run.fuse.behaviour import Behaviour
from harness.system.attempt import in_a_child
from harness.system.mounts import MountError, mount, take_own_mounts, unmount

_DEVICE = "/dev/fuse"
_PATIENCE_S = 5.0
"""For a server whose mount is gone: it has nothing left to do."""


@contextmanager
def mounted(below: Path, place: Path, behaviour: Behaviour) -> Iterator[None]:
    """Show the directory `below` at the directory `place`. Raises MountError."""
    try:
        device = os.open(_DEVICE, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise MountError(f"{_DEVICE}: {error.strerror}") from error
    options = f"fd={device},rootmode=40000,user_id=0,group_id=0,allow_other,default_permissions"
    server: subprocess.Popen[bytes] | None = None
    try:
        try:
            mount("harness", str(place), "fuse.harness", options)
            server = _start(device, below, behaviour)
        finally:
            # Only the server has it: if the server dies, the kernel gives every waiting caller an
            # error.
            os.close(device)
        place.stat()
        yield
    finally:
        with suppress(MountError):
            unmount(str(place))
        _end(server)


def _start(device: int, below: Path, behaviour: Behaviour) -> subprocess.Popen[bytes]:
    arguments = (str(os.getpid()), str(device), str(below), json.dumps(asdict(behaviour)))
    return subprocess.Popen(
        [sys.executable, "-m", "harness.run.fuse", *arguments],
        pass_fds=[device],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
        cwd=Path(__file__).parents[3],
    )


def _end(server: subprocess.Popen[bytes] | None) -> None:
    if server is None:
        return
    try:
        server.wait(timeout=_PATIENCE_S)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()


@functools.cache
def missing_fuse() -> str | None:
    """Returns None if such a file system can be mounted, else the reason; tries it out."""
    if os.geteuid() != 0:
        return "the harness's FUSE file system needs root"
    reason = in_a_child(_try)
    return f"a FUSE file system cannot be mounted here: {reason}" if reason else None


def _try() -> str:
    """Mount an empty directory; returns why that failed, or an empty string."""
    try:
        take_own_mounts()
        with tempfile.TemporaryDirectory() as name:
            below, place = Path(name, "below"), Path(name, "place")
            below.mkdir()
            place.mkdir()
            with mounted(below, place, Behaviour()):
                (place / "name").touch()
    except (MountError, OSError) as error:
        return str(error)
    return ""
