"""Defines which errors a system can answer to which operations."""

from __future__ import annotations

from harness.words import READS

_NEEDS_ROOM = frozenset({"open", "write", "truncate", "mkdir", "symlink", "link"})
_CHANGES_NAMES = frozenset(
    {"open", "truncate", "mkdir", "rmdir", "unlink", "rename", "exchange", "symlink", "link"}
)
_TOUCHES_DISK = _NEEDS_ROOM | _CHANGES_NAMES | {"fsync", *READS}

_MEETS = {
    "ENOSPC": _NEEDS_ROOM,
    "EDQUOT": _NEEDS_ROOM,
    "EIO": _TOUCHES_DISK,
    "EROFS": _CHANGES_NAMES,
    "EACCES": _CHANGES_NAMES | {"open_read"},
    "ESTALE": _TOUCHES_DISK,
    # A file system's answer if it cannot swap two names.
    "EINVAL": frozenset({"exchange"}),
    # Not from the file system, but from the kernel below any of its calls.
    "ENOMEM": _TOUCHES_DISK,
    # The process has no descriptor left; a file that is already open needs none.
    "EMFILE": frozenset({"open", "open_read"}),
}


def meets(error: str, kind: str) -> bool:
    """Whether a file system can answer this error to an operation of this kind."""
    return kind in _MEETS[error]


def fitting(kinds: tuple[str, ...]) -> tuple[str, ...]:
    """Returns the errors that can be the answer to one of these operations."""
    return tuple(error for error in _MEETS if any(meets(error, kind) for kind in kinds))
