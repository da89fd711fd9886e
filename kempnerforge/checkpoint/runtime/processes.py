"""Identifies a process so that other processes, on any host, can tell whether it still lives."""

import os
import socket
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

__all__ = ["Life", "Process"]

_BOOT = Path("/proc/sys/kernel/random/boot_id")
_NAMESPACE = Path("/proc/self/ns/pid")
# Field of /proc/PID/stat, counted from the state, which follows the name in parentheses.
_STATE, _THREADS, _STARTED = 0, 17, 19


class Life(StrEnum):
    """Whether a process is alive."""

    alive = "alive"
    gone = "gone"
    unknown = "unknown"
    """It is on another host, in another container, or hidden from this one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """Identifies one process among all that ever ran on any host."""

    host: str
    boot: str
    """Boot id, drawn by the kernel when it starts; the same in all containers of a host."""
    namespace: str
    """Namespace that the process number belongs to."""
    pid: int
    started: int
    """Start time in ticks since boot, because process numbers are reused."""

    @classmethod
    def this(cls) -> "Process":
        """Returns the calling process."""
        pid = os.getpid()
        found = _stat(pid)
        return cls(
            host=socket.gethostname()[:64],
            boot=_text(_BOOT),
            namespace=_target(_NAMESPACE),
            pid=pid,
            started=int(found[_STARTED]) if found else 0,
        )

    def life(self, *, seen_by: "Process") -> Life:
        """Returns whether this process is alive, as far as ``seen_by`` can know.

        A process stopped by a signal or a debugger is alive.
        """
        numbered_alike = (self.boot, self.namespace) == (seen_by.boot, seen_by.namespace)
        if not self.boot or not self.namespace or not numbered_alike:
            return Life.unknown
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return Life.gone
        except OSError:  # it belongs to another user
            pass
        found = _stat(self.pid)
        if not found:
            return Life.unknown
        if int(found[_STARTED]) != self.started:
            return Life.gone
        # The main thread can end before the others, which continue to write.
        ended = found[_STATE] in "ZX" and int(found[_THREADS]) <= 1
        return Life.gone if ended else Life.alive


def _stat(pid: int) -> list[str]:
    """Returns the fields of ``/proc/PID/stat`` from the state on; none if it cannot be read."""
    return _text(Path(f"/proc/{pid}/stat")).rpartition(")")[2].split()


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""


def _target(path: Path) -> str:
    try:
        return str(path.readlink())
    except OSError:
        return ""
