"""A rank's own event log: records appended to one file, each with exactly one write."""

from __future__ import annotations

import os
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from harness.evidence.record import Drained, Raised, Record

_TRACE_LIMIT = 12_000
"""Characters of a traceback that are kept, from its end, to keep records short."""


class EventLog:
    """Writes the records of one rank, and knows which call is under way."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        self._doing = "start"

    def record(self, record: Record) -> None:
        """Append one record. A short write would split it into two lines, so it is an error."""
        line = (record.to_line() + "\n").encode()
        written = os.write(self._file, line)
        if written != len(line):
            raise OSError(f"wrote {written} of the {len(line)} bytes of a {record.kind} record")

    @contextmanager
    def during(self, call: str) -> Iterator[None]:
        """Name the call inside. After an exception the name stays, for `record_raised`."""
        before, self._doing = self._doing, call
        yield
        self._doing = before

    def raised_during(self, call: str, error: BaseException) -> None:
        """Record an exception after which the loop continues."""
        self._doing = call
        self.record_raised(error)
        self._doing = "step"

    @contextmanager
    def draining(self, call: str) -> Iterator[None]:
        """Acts like `during`; when it exits, every save begun so far is durable."""
        with self.during(call):
            yield
        self.record(Drained(call=call))

    def record_raised(self, error: BaseException) -> None:
        """Record an exception that left a call, and which call it was."""
        trace = "".join(traceback.format_exception(error))
        self.record(
            Raised(
                during=self._doing,
                type=type(error).__qualname__,
                message=_text(str(error)),
                trace=_text(trace[-_TRACE_LIMIT:]),
            )
        )


def _text(said: str) -> str:
    """With escapes for the bytes of a file name that are no text."""
    return said.encode(errors="backslashreplace").decode()
