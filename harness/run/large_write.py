"""Carries a write from a rank's memory into its file, one piece at a time.

Each piece stays in the processor's cache between the two copies, and the bytes are not kept a
second time: see `written.py`. While one piece is written, the next one is read.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field

import xxhash

from harness.system.memory import Span
from harness.system.read_ahead import ReadAhead


@dataclass(slots=True, kw_only=True)
class LargeWrite:
    """A write of `thread` that goes through the supervisor's descriptor `own`.

    `position` is None if the write uses the offset of the open file. `digest` covers the bytes that
    were written.
    """

    thread: int
    spans: Sequence[Span]
    own: int
    position: int | None
    ahead: ReadAhead
    digest: xxhash.xxh3_128 = field(default_factory=xxhash.xxh3_128)

    def __call__(self) -> int:
        """Write; returns how many bytes, like write(2). Raises OSError if none was written."""
        done = 0
        with closing(self.ahead.pieces(self.thread, self.spans)) as pieces:
            try:
                for piece, digest in pieces:
                    taken = self._write(piece, done)
                    done += taken
                    if taken < len(piece):
                        self.digest.update(piece[:taken])
                        break
                    self.digest = digest
            except OSError:
                if not done:
                    raise
        return done

    def _write(self, piece: memoryview, done: int) -> int:
        if self.position is None:
            return os.write(self.own, piece)
        return os.pwrite(self.own, piece, self.position + done)


def can_be_read(own: int) -> bool:
    """Whether the supervisor can open this file once more, to read from it."""
    return os.access(f"/proc/self/fd/{own}", os.R_OK)
