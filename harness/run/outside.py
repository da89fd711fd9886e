"""Changes of the processes of a run outside of the watched directory.

The kernel carries these calls out itself, so only what is there afterwards shows whether they did
anything. A file that was made and removed again is passed over, and so is what no later run can
find changed: devices, the kernel's own files, and compiled Python.
"""

from __future__ import annotations

import os
import stat
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath

_PASSED_OVER = ("/dev/", "/proc/", "/sys/")
_STORAGE = "/dev/shm/"
_CACHE = "__pycache__"
_MOST = 4
"""Folders that one sentence names."""


@dataclass(slots=True)
class Outside:
    """Paths outside of the directory that were to be changed; `own` is the folder of the run."""

    own: str
    began_ns: int = field(default_factory=time.time_ns)
    _before: dict[str, bool] = field(default_factory=dict)
    """Whether something was there before the first call that was to change it."""

    def note(self, path: str) -> None:
        """Note that a process is about to change what is at a path."""
        if path not in self._before and self._counts(path):
            self._before[path] = os.path.lexists(path)

    def changed(self) -> tuple[str, ...]:
        """Returns the paths at which something is new, other, or gone."""
        return tuple(sorted(path for path in self._before if self._has_changed(path)))

    def _counts(self, path: str) -> bool:
        if path.startswith(_PASSED_OVER) and not path.startswith(_STORAGE):
            return False
        return not path.startswith(f"{self.own}/") and _CACHE not in path

    def _has_changed(self, path: str) -> bool:
        before = self._before[path]
        try:
            now = os.lstat(path)
        except OSError:
            return before
        return not before or (not stat.S_ISDIR(now.st_mode) and now.st_ctime_ns >= self.began_ns)


def describe(paths: Sequence[str]) -> str:
    """Returns in which folders the paths are, named as exactly as a few names can."""
    folders = [Path(path).parent.parts for path in paths]
    for depth in range(max(map(len, folders)), 0, -1):
        groups = Counter(str(PurePath(*parts[:depth])) for parts in folders)
        if len(groups) <= _MOST:
            break
    return ", ".join(f"{number} in {folder}" for folder, number in groups.most_common())
