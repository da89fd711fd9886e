"""Mounts for the storage matrix, each in the mounts of the calling process; none is left behind."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from harness.run.disk import DiskImage
from harness.run.fuse.behaviour import Behaviour
from harness.run.fuse.mount import missing_fuse, mounted
from harness.run.support import missing_disk

_PATIENCE_S = 30.0


class Kind(Protocol):
    """A file system that can be mounted in an empty folder."""

    def missing(self) -> str | None:
        """Why it cannot be mounted here, or None."""

    def views(self, folder: Path) -> AbstractContextManager[tuple[Path, Path]]:
        """One directory as two hosts see it, or twice the same path where one host can alone."""


@dataclass(frozen=True)
class Own:
    """The FUSE file system of the harness, once for each of two hosts."""

    settings: Mapping[str, Any]

    def missing(self) -> str | None:
        return missing_fuse()

    @contextmanager
    def views(self, folder: Path) -> Iterator[tuple[Path, Path]]:
        real, one, other = _folders(folder, "real", "one", "other")
        behaviour = Behaviour(**self.settings)
        with mounted(real, one, behaviour), mounted(real, other, behaviour):
            yield one, other


@dataclass(frozen=True)
class PassedOn:
    """A program that passes a directory on, once for each of two hosts."""

    program: str

    def missing(self) -> str | None:
        if shutil.which(self.program) is None:
            return f"{self.program} is not installed"
        return missing_fuse()

    @contextmanager
    def views(self, folder: Path) -> Iterator[tuple[Path, Path]]:
        real, one, other = _folders(folder, "real", "one", "other")
        with self._view(real, one), self._view(real, other):
            yield one, other

    @contextmanager
    def _view(self, real: Path, place: Path) -> Iterator[None]:
        # The kernel ends it with this process, and with it the mounts that it lives in.
        die = ("setpriv", "--pdeathsig", "KILL")
        with subprocess.Popen([*die, self.program, "-f", str(real), str(place)]) as server:
            deadline = time.monotonic() + _PATIENCE_S
            while not os.path.ismount(place) and time.monotonic() < deadline:
                if server.poll() is not None:
                    raise OSError(f"{self.program} ended with {server.returncode}")
            try:
                yield
            finally:
                subprocess.run(["umount", "-l", place], check=True)


@dataclass(frozen=True)
class Overlay:
    """An overlay over an empty directory and one with changes."""

    def missing(self) -> str | None:
        return "an overlay needs root" if os.geteuid() else None

    @contextmanager
    def views(self, folder: Path) -> Iterator[tuple[Path, Path]]:
        place, memory = _folders(folder, "place", "memory")
        # The upper directory must not lie on an overlay, as that of a container does.
        subprocess.run(["mount", "-t", "tmpfs", "none", memory], check=True)
        lower, upper, work = _folders(memory, "lower", "upper", "work")
        options = f"lowerdir={lower},upperdir={upper},workdir={work}"
        subprocess.run(["mount", "-t", "overlay", "none", "-o", options, place], check=True)
        yield place, place


@dataclass(frozen=True)
class Image:
    """A disk of its own, in a file."""

    filesystem: str

    def missing(self) -> str | None:
        return missing_disk(self.filesystem)

    @contextmanager
    def views(self, folder: Path) -> Iterator[tuple[Path, Path]]:
        (place,) = _folders(folder, "place")
        disk = DiskImage(self.filesystem, folder / "image", place)
        disk.format()
        disk.mount()
        yield place, place


def _folders(base: Path, *names: str) -> list[Path]:
    found = [base / name for name in names]
    for one in found:
        one.mkdir()
    return found
