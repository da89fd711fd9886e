"""The descriptors that the supervisor has put into ranks, by their number in the ranks.

The supervisor keeps one of its own for each, because a write is made through it. A filter does not
see `close`, so an open file would outlive the rank's last descriptor of it, and with it any lock
that the rank had on the file. Before a file is opened again, the descriptors that no process of the
rank still has are closed here, too.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from harness.run.request import Opened
from harness.run.written import Inode
from harness.system.clock import descendants
from harness.system.seccomp import FIRST_DESCRIPTOR


@dataclass(slots=True)
class Descriptors:
    """Open files by their number in the ranks; no two files share a number."""

    _table: dict[int, Opened] = field(default_factory=dict)
    _numbers: dict[Inode, list[int]] = field(default_factory=dict)
    _next: int = FIRST_DESCRIPTOR

    def add(self, opened: Opened) -> int:
        """Keep an open file; returns its number."""
        number = self._next
        self._next += 1
        self.put(number, opened)
        return number

    def put(self, number: int, opened: Opened) -> None:
        """Let a number that a rank has chosen refer to an open file from now on."""
        self._table[number] = opened
        self._numbers.setdefault(opened.inode, []).append(number)

    def get(self, number: int) -> Opened | None:
        """Returns the file behind a descriptor number."""
        return self._table.get(number)

    def let_go(self, inode: Inode | None) -> None:
        """Close the descriptors of a file that the processes that opened them have closed."""
        for number in self._numbers.pop(inode, ()) if inode is not None else ():
            opened = self._table[number]
            if _has(opened.process, number):
                self._numbers.setdefault(opened.inode, []).append(number)
                continue
            del self._table[number]
            if all(other.own != opened.own for other in self._table.values()):
                os.close(opened.own)

    def close(self) -> None:
        """Close all of them."""
        for own in {opened.own for opened in self._table.values()}:
            os.close(own)
        self._table.clear()
        self._numbers.clear()


def _has(process: int, number: int) -> bool:
    """Whether a process, or one that it has started, has a descriptor of this number."""
    family = (process, *descendants(process))
    return any(os.path.lexists(f"/proc/{one}/fd/{number}") for one in family)
