"""Two mounts of one directory that share no lock: they stand for two hosts."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest


def why_not() -> str | None:
    """Why there can be no such mounts here, or None."""
    if shutil.which("bindfs") is None:
        return "bindfs is not installed"
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        return "/dev/fuse cannot be opened"
    if os.getuid() != 0:
        return "mounting needs root"
    return None


@contextmanager
def two_hosts(directory: Path) -> Iterator[tuple[Path, Path]]:
    """One directory as two hosts see it; skips the test where that cannot be."""
    reason = why_not()
    if reason is not None:
        pytest.skip(reason)
    real = directory / "real"
    real.mkdir()
    with ExitStack() as stack:
        hosts = directory / "host1", directory / "host2"
        for host in hosts:
            host.mkdir()
            subprocess.run(["bindfs", real, host], check=True)
            stack.callback(_unmount, host)
        yield hosts


def _unmount(host: Path) -> None:
    subprocess.run(["umount", "-l", host], check=True)
