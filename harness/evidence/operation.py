"""One file-system call of one rank, as the supervisor performed it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

OPERATOR = -1
"""The rank of operations that no rank made."""


class Operation(NamedTuple):
    """One operation below the checkpoint directory, in the one total order of the run.

    `path` and `target` are relative to the checkpoint directory ("." is the directory itself);
    `target` is the new name of a rename, exchange or link, and the text of a symlink. `error` is
    an errno, 0 if the call succeeded. The bytes of a write begin at `data` in the run's
    `written.bin`. `opened` distinguishes open files, whatever their names have become; it is None
    for a call by path. `save` is the ordinal of the save in this run to which the operation
    belongs.

    A named tuple: the supervisor makes one for each call of a rank, and a frozen dataclass with so
    many fields takes four times as long.
    """

    index: int  # type: ignore[assignment] # tuple.index is not used
    time_s: float
    rank: int
    thread: int
    kind: str
    path: str
    target: str | None = None
    offset: int = 0
    size: int = 0
    data: int | None = None
    opened: int | None = None
    creates: bool = False
    truncates: bool = False
    error: int = 0
    save: int | None = None
    phase: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Fired:
    """A strike that happened: which one, and after how many operations of the run.

    `then` is set for a consequence of the strike: the ranks were `killed` because they were alive
    when their grace was over, the error was `healed`, or the second job had `ended`.
    """

    strike: str
    index: int
    time_s: float
    ranks: tuple[int, ...]
    then: Literal["killed", "healed", "ended", "signalled"] | None = None
