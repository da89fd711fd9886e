"""Finds the rank that a process, a thread or a sub-process belongs to.

The ranks that the harness starts are known. Those that a launcher of the job's own starts below its
process are found when they first ask for something: by the number that the launcher wrote into
their environment, which their children inherit.
"""

from __future__ import annotations

from collections.abc import Mapping

from harness.jobs.command.program import read_rank
from harness.run.signals import Signals
from harness.system.membership import membership


class RankFinder:
    """The ranks of the threads of one run; `signals` gets the processes that are found."""

    def __init__(self, signals: Signals) -> None:
        self._signals = signals
        self._known: dict[int, int] = {}

    def began(self, processes: Mapping[int, int]) -> None:
        """Note the processes of ranks that the harness has started."""
        self._known |= {process: rank for rank, process in processes.items()}

    def of(self, thread: int) -> int | None:
        """Returns the rank of a thread; None if it belongs to none.

        What a launcher asks for itself counts as rank 0. Raises OSError if the thread is gone.
        """
        if thread in self._known:
            return self._known[thread]
        if not self._signals.launched:
            return self._above(thread)
        rank = self._named(membership(thread).process)
        if rank is None:
            # Not kept: a process gets its number when it executes the program of the rank.
            return self._above(thread, keep=False)
        self._known[thread] = rank
        return rank

    def _above(self, thread: int, *, keep: bool = True) -> int | None:
        process = thread
        while process > 1:
            found = membership(process)
            # A process whose parents are gone still has the process group of its rank.
            for known in (found.process, found.group):
                if known in self._known:
                    if keep:
                        self._known[thread] = self._known[known]
                    return self._known[known]
            process = found.parent
        return None

    def _named(self, process: int) -> int | None:
        """Returns the rank that the environment of a process names."""
        rank = read_rank(process)
        if rank is None or rank >= self._signals.launched:
            return None
        if process not in self._known:
            self._known[process] = rank
            self._note(process, rank)
        return rank

    def _note(self, process: int, rank: int) -> None:
        """Note the first process of a rank, unless the one that is known still lives."""
        before = self._signals.below.get(rank)
        first = self._first(process, rank)
        if first is not None and (before is None or read_rank(before) != rank):
            self._signals.below[rank] = first

    def _first(self, process: int, rank: int) -> int | None:
        """Returns the first process of a rank; None if its launcher is not above this one."""
        first = process
        while process > 1:
            parent = membership(process).parent
            if parent in self._signals.pids.values():
                return first
            process = parent
            first = process if read_rank(process) == rank else first
        return None
