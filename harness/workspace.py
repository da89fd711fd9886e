"""Where runs happen: a folder for the session, in memory if there is room, and what it leaves.

    <base>/kempnerforge-harness-<user>-<process>-<random>/
        shared/           the references and the server's log, for all workers of the session
        async-kill-.../   one run directory for each scenario, gone once the scenario has passed

The run directory of a scenario that did not pass is moved beside its failure file, unless the user
chose the place of the runs: then it stays there.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

_PREFIX = "kempnerforge-harness"
_MEMORY = Path("/dev/shm")
_ROOM_BYTES = 1 << 30
"""A run directory holds some 5 MB; the shared memory of a container is often only 64 MB."""
_STALE_S = 3600


@dataclass(frozen=True, slots=True, kw_only=True)
class Workspace:
    """The folder of one session, shared by its workers. It is created on first use."""

    root: Path
    failures: Path
    """Where the files of failed scenarios go."""
    keep_passed: bool = False
    moves_failed: bool = True

    @property
    def shared(self) -> Path:
        """The folder for whatever the workers share."""
        return self.root / "shared"

    def new_run(self, name: str) -> Path:
        """Returns an unused path for a run directory that does not exist yet."""
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        return self.root / f"{name}-{secrets.token_hex(4)}"

    def drop(self, directory: Path) -> None:
        """Remove the run directory of a scenario that passed."""
        if not self.keep_passed:
            shutil.rmtree(directory, ignore_errors=True)

    def keep(self, directory: Path, name: str) -> Path:
        """Move the run directory of a scenario that did not pass to its final place, and return
        that.

        Among the failures it replaces the last one of the same name.
        """
        if not self.moves_failed or self.keep_passed or not directory.exists():
            return directory
        target = self.failures / name
        target.parent.mkdir(parents=True, exist_ok=True)
        near = target.with_name(f".{name}-{secrets.token_hex(4)}")
        shutil.move(directory, near)
        _take_place(near, target)
        return target

    @contextmanager
    def on_disk(self) -> Iterator[Workspace]:
        """Yields a workspace for runs of this session that are too large for memory."""
        base = Path(tempfile.gettempdir()).resolve()
        if base == self.root.parent:
            yield self
            return
        with closing(replace(self, root=base / self.root.name)) as other:
            yield other

    def close(self) -> None:
        """End the session: remove what is shared, and the folder too if no run was kept in it."""
        shutil.rmtree(self.shared, ignore_errors=True)
        with suppress(OSError):
            self.root.rmdir()


def open_workspace(
    *, failures: Path, chosen: Path | None = None, keep_passed: bool = False
) -> Workspace:
    """Opens a workspace for a new session; `chosen` is the user's place for it."""
    base = choose_base() if chosen is None else chosen
    for place in {base, Path(tempfile.gettempdir())}:
        for stale in _stale(place):
            shutil.rmtree(stale, ignore_errors=True)
    name = f"{_PREFIX}-{_user()}-{os.getpid()}-{secrets.token_hex(4)}"
    return Workspace(
        root=base.resolve() / name,
        failures=failures,
        keep_passed=keep_passed,
        moves_failed=chosen is None,
    )


def choose_base() -> Path:
    """Returns shared memory if it has room, because an fsync on a disk takes long."""
    if _is_tmpfs(_MEMORY) and os.access(_MEMORY, os.W_OK):
        room = shutil.disk_usage(_MEMORY).free
        if room >= _ROOM_BYTES:
            return _MEMORY
    return Path(tempfile.gettempdir())


def _take_place(directory: Path, target: Path) -> None:
    """Rename a directory over another, which is removed. Several workers can do this at once."""
    while True:
        try:
            directory.rename(target)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            old = target.with_name(f"{directory.name}-old")
            with suppress(FileNotFoundError):  # another worker was faster
                target.rename(old)
            shutil.rmtree(old, ignore_errors=True)
        else:
            return


def slug(text: str) -> str:
    """Returns a text as a short file name."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:60].strip("-") or "scenario"


def _is_tmpfs(path: Path) -> bool:
    try:
        mounts = Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines()
    except OSError:
        return False
    fields = [line.split() for line in mounts]
    return any(len(f) > 2 and f[1] == str(path) and f[2] == "tmpfs" for f in fields)


def _stale(base: Path) -> Iterator[Path]:
    """Yields folders of sessions ended by SIGKILL: not closed, no process, an hour old."""
    for folder in base.glob(f"{_PREFIX}-{_user()}-*"):
        pid = folder.name.split("-")[-2]
        with suppress(OSError):
            old = time.time() - folder.stat().st_mtime > _STALE_S
            if old and pid.isdecimal() and (folder / "shared").exists() and not _lives(int(pid)):
                yield folder


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _user() -> str:
    return str(os.getuid()) if hasattr(os, "getuid") else "user"
