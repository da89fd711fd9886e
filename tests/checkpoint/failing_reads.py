"""Makes read system calls fail for reasons that say nothing about the data."""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

PASSING = (
    errno.ENOMEM,
    errno.EMFILE,
    errno.ENFILE,
    errno.EACCES,
    errno.EPERM,
    errno.EAGAIN,
    errno.EINTR,
    errno.ENOTCONN,
    errno.ETIMEDOUT,
    errno.ESTALE,
    errno.EIO,
    errno.EBUSY,
    errno.EHOSTDOWN,
    errno.ECONNRESET,
)
NO_MEMORY = -1
"""In place of an error number: Python itself has no memory left."""

_READS = ((io, "open"), (os, "open"), (os, "stat"), (os, "lstat"), (os, "readlink"))
_LISTS = ((os, "listdir"), (os, "scandir"))


def name_of(code: int) -> str:
    return "MemoryError" if code == NO_MEMORY else errno.errorcode[code]


def error(code: int, path: object) -> Exception:
    if code == NO_MEMORY:
        return MemoryError()
    return OSError(code, os.strerror(code), str(path))


class Failing:
    """How often a call has failed, and whether it still does.

    Args:
        code: Error number.
        times: How often the call fails.
        hit: Which paths it fails for; given what the call was given.
    """

    def __init__(self, code: int, times: float, hit: Callable[[str], bool]) -> None:
        self.code, self.times, self.hit, self.count = code, times, hit, 0

    def before(self, path: object) -> None:
        if isinstance(path, int) or not self.hit(os.fsdecode(os.fspath(path))):  # type: ignore[call-overload]
            return
        if self.count < self.times:
            self.count += 1
            raise error(self.code, path)


@contextmanager
def failing_paths(failing: Failing, *, listing: bool = False) -> Iterator[Failing]:
    """Calls that open, look at or (``listing``) list a path that is hit fail within."""
    with ExitStack() as stack:
        for module, name in _LISTS if listing else _READS:
            genuine = getattr(module, name)

            def call(
                path: Any, *args: Any, genuine: Any = genuine, name: str = name, **options: Any
            ) -> Any:
                writes = name == "open" and _writes(args, options)
                if not writes:
                    failing.before(path)
                return genuine(path, *args, **options)

            stack.enter_context(patch.object(module, name, call))
        yield failing


def _writes(args: tuple[Any, ...], options: dict[str, Any]) -> bool:
    how = args[0] if args else options.get("mode", options.get("flags", "r"))
    return bool(how & (os.O_WRONLY | os.O_RDWR)) if isinstance(how, int) else "r" not in how


@contextmanager
def failing_contents(code: int, times: float) -> Iterator[Failing]:
    """``preadv``, by which shards are read, fails within."""
    genuine, failing = os.preadv, Failing(code, times, lambda _: True)

    def preadv(fd: int, *args: Any) -> int:
        failing.before("a shard")
        return genuine(fd, *args)

    with patch.object(os, "preadv", preadv):
        yield failing


PLACES = {
    "manifest": "step_3/manifest.json",
    "metadata": "step_3/.metadata",
    "train state": "step_3/train_state.pt",
    "rank's own file": "step_3/ranks/rank_0000{rank}.pt",
    "shard": "step_3/__{rank}_0.distcp",
    "description": "step_3/metadata.json",
    "link": "latest",
    "directory": "",
    "contents": None,
}
"""What is read of a checkpoint of step 3; the directory is listed, the contents are of a shard."""


@contextmanager
def failing_at(
    place: str, root: Path, code: int, *, times: float = float("inf"), rank: int = 0
) -> Iterator[Failing]:
    """The reads of one place fail within."""
    relative = PLACES[place]
    if relative is None:
        with failing_contents(code, times) as failing:
            yield failing
        return
    path = str(root / relative.format(rank=rank))
    with failing_paths(
        Failing(code, times, lambda read: read == path), listing=place == "directory"
    ) as failing:
        yield failing


def contents(root: Path) -> dict[str, bytes | None]:
    """Everything below a directory."""
    return {
        str(path.relative_to(root)): path.read_bytes() if path.is_file() else None
        for path in sorted(root.rglob("*"))
    }
