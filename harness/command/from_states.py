"""Starts a command from states of its directory, several at once, as long as there is time."""

from __future__ import annotations

import re
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from harness.command.shared_files import LARGE_BYTES, SharedFiles
from harness.command.states import LeftState
from harness.run.command.starting import Ended, Starts, prepared

_SAME_PORT = re.compile(r"EADDRINUSE|address already in use", re.IGNORECASE)


@dataclass(slots=True, kw_only=True)
class StateStarts:
    """Starts from states, `at_once` at a time: each in a folder below `folder`, none after
    `until_s`. One at a time, as soon as two have asked for the same port. A start that has changed
    a file of other states is made again."""

    starts: Starts
    folder: Path
    at_once: int
    limit_s: float
    until_s: float
    large_bytes: int = LARGE_BYTES
    """States share files that are as large."""
    _waiting: deque[LeftState] = field(init=False)
    _running: dict[Path, LeftState] = field(default_factory=dict)
    _shared: SharedFiles = field(init=False)

    def __post_init__(self) -> None:
        self._shared = SharedFiles(self.folder / "shared", large_bytes=self.large_bytes)

    def run(self, states: Sequence[LeftState]) -> Iterator[tuple[LeftState, Ended]]:
        """Yields the ends as they come; their folders are removed afterwards."""
        self._waiting = deque(states)
        with closing(self._shared):
            yield from self._run()

    def _run(self) -> Iterator[tuple[LeftState, Ended]]:
        while self._waiting and time.monotonic() < self.until_s:
            at_once = self.at_once
            for ended in self.starts.run_all(
                self._folders(at_once), at_once=at_once, limit_s=self.limit_s
            ):
                state = self._running.pop(ended.folder)
                if self._shared.is_void(ended.directory):
                    self._waiting.appendleft(state)
                elif at_once > 1 and ended.failed and _asked_for_a_port(ended):
                    self.at_once = 1
                    self._waiting.appendleft(state)
                else:
                    yield state, ended
                ended.remove()

    def _folders(self, at_once: int) -> Iterator[Path]:
        while self._waiting and at_once == self.at_once and time.monotonic() < self.until_s:
            state = self._waiting.popleft()
            place = f"{state.kind}{state.place}-{len(self._waiting)}"
            folder = prepared(self.folder / place, self._filler(state))
            self._running[folder] = state
            yield folder

    def _filler(self, state: LeftState) -> Callable[[Path], None] | None:
        if state.operation is None:
            return None
        return lambda root: self._shared.fill(state.parts, state.tree, root)


def _asked_for_a_port(ended: Ended) -> bool:
    return any(_SAME_PORT.search(ended.log(rank)) for rank in range(len(ended.statuses)))
