"""Checks that the checkpoint directory can be listed, or does not exist yet.

A directory that does not exist yet is a clean start. A path that leads nowhere is not: a link whose
storage is not mounted would otherwise count as empty, and the run would start from scratch.
"""

import errno
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from kempnerforge.checkpoint.errors import (
    CheckpointError,
    RankFailure,
    Refusal,
    UnreachableDirectoryError,
    describe,
    naming,
)
from kempnerforge.checkpoint.protocol.effects import Runtime
from kempnerforge.checkpoint.protocol.steps import Round, Steps, accepted, call
from kempnerforge.checkpoint.protocol.storage import Storage

__all__ = ["failure_to_confirm", "require_reachable", "require_reachable_by_all"]

# Fractions of the deadline: a rank must have looked before rank 0 stops waiting for it, and the
# others wait for rank 0 longer than that.
_LOOK_SHARE = 0.3
_VOTE_SHARE = 0.5

# Errors that do not change with another attempt; any other error is a problem of the storage.
_FINAL = frozenset(
    {errno.ENOTDIR, errno.ELOOP, errno.EACCES, errno.EPERM, errno.ENAMETOOLONG, errno.EINVAL}
)


def require_reachable(root: Path, storage: Storage) -> None:
    """Refuses a checkpoint directory that exists but cannot be listed; not collective.

    Raises:
        UnreachableDirectoryError: ``root``, or its nearest existing parent, is a link that leads
            nowhere or back to itself, is not a directory, or may not be entered.
        OSError: Storage failed.
    """
    try:
        if not storage.names(root):
            _require_nothing_in_the_way(root, storage)
    except OSError as error:
        if error.errno not in _FINAL:
            raise
        raise _unreachable(root, os.strerror(error.errno)) from error


@dataclass(frozen=True, slots=True, kw_only=True)
class _Seen:
    """The vote of a rank that has looked, or failed to."""

    failure: RankFailure | None


def require_reachable_by_all(
    root: Path, look: Callable[[], object], runtime: Runtime, *, timeout_s: float
) -> Steps[None]:
    """Makes every rank check the checkpoint directory; the same error on all. Collective.

    Args:
        root: The directory.
        look: The check, like :func:`require_reachable`; it may never return.
        runtime: The runtime of this rank.
        timeout_s: Time limit for checks and agreement together.

    Raises:
        UnreachableDirectoryError: A rank cannot list it; its machine may lack the mount.
        StorageTimeoutError: Storage did not respond to a rank.
        PeerLostError: A rank did not vote.
    """
    doing = f"looking into the checkpoint directory {root}"
    failure = None
    try:
        yield from call(look, timeout_s=_LOOK_SHARE * timeout_s, doing=doing)
    except Exception as error:  # noqa: BLE001  # becomes the error of every rank
        failure = describe(error, runtime.rank)
    agreement: Round[_Seen, None] = Round(
        votes=_Seen,
        doing=doing,
        refusal=Refusal(failures=(), doing=doing, default=CheckpointError, path=str(root)),
        vote_s=_VOTE_SHARE * timeout_s,
        answer_s=timeout_s,
    )
    with naming(doing, path=str(root)):
        reply = yield from agreement.hold(_Seen(failure=failure), _let_go_on)
    accepted(reply)


def _let_go_on(seen: Sequence[_Seen]) -> Steps[Sequence[None]]:
    yield from ()
    return [None] * len(seen)


def failure_to_confirm(runtime: Runtime, *, timeout_s: float) -> Steps[RankFailure | None]:
    """Returns the failure of :meth:`Identity.confirm` on this rank, for all ranks to raise.

    Args:
        runtime: The runtime of this rank.
        timeout_s: The deadline of the whole operation, of which this uses a fraction.
    """
    try:
        yield from call(
            lambda: runtime.identity.confirm(runtime.storage),
            timeout_s=_LOOK_SHARE * timeout_s,
            doing="looking at the checkpoint directory",
        )
    except Exception as error:  # noqa: BLE001  # becomes the error of every rank
        return describe(error, runtime.rank)
    return None


def _require_nothing_in_the_way(root: Path, storage: Storage) -> None:
    for path in (root, *root.parents):
        real = storage.resolve(path)
        if real is not None:
            if not storage.is_directory(real):
                raise _unreachable(root, f"{path} is not a directory")
            return
        target = storage.read_link(path)
        if target is not None:
            raise _unreachable(
                root, f"{path} is a link to {target}, which leads nowhere; is its storage mounted?"
            )


def _unreachable(root: Path, reason: str) -> UnreachableDirectoryError:
    return UnreachableDirectoryError(
        f"the checkpoint directory {root} cannot be listed: {reason}", path=str(root)
    )
