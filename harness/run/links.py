"""The links between a run's nodes: a cable is pulled and put back, or carries less.

Packets in flight are lost, connections stay open on both sides, and no process is notified.
"""

from __future__ import annotations

import fcntl
import os
import socket
import struct
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from harness.faults.effects import PlannedStrike
from harness.system.errors import HarnessError

_GET_FLAGS, _SET_FLAGS = 0x8913, 0x8914
_UP = 1
_SHAPE = ("burst", "32kbit", "latency", "400ms")
"""The burst size, and how long packets wait before they are dropped."""


@dataclass(slots=True, kw_only=True)
class Links:
    """The links of one run's nodes. `switch` is the namespace in which they meet."""

    switch: int
    control: socket.socket
    _heal_at: list[tuple[float, int, PlannedStrike]] = field(default_factory=list)

    def cut(self, strike: PlannedStrike, node: int, seconds: float | None) -> None:
        """Pull the cable of a node; it is put back after some seconds, if any."""
        self._set(node, up=False)
        if seconds is not None:
            self._heal_at.append((time.monotonic() + seconds, node, strike))

    def heal(self) -> Iterator[PlannedStrike]:
        """Put back the cables whose time has come; yields their strikes."""
        now = time.monotonic()
        for due in [one for one in self._heal_at if now >= one[0]]:
            self._heal_at.remove(due)
            _, node, strike = due
            self._set(node, up=True)
            yield strike

    def close(self) -> None:
        """Release the namespace; it is gone when the ranks are."""
        self.control.close()
        os.close(self.switch)

    def _set(self, node: int, *, up: bool) -> None:
        name = f"node{node}".encode()
        found = fcntl.ioctl(self.control, _GET_FLAGS, struct.pack("16sh22x", name, 0))
        flags = struct.unpack("16sh22x", found)[1]
        wanted = flags | _UP if up else flags & ~_UP
        fcntl.ioctl(self.control, _SET_FLAGS, struct.pack("16sh22x", name, wanted))

    def slow(self, node: int, kbit_s: int) -> None:
        """Limit the rate of a node's link."""
        place, rate = f"node{node}", f"{kbit_s}kbit"
        shaping = ("qdisc", "replace", "dev", place, "root", "tbf", "rate", rate, *_SHAPE)
        done = subprocess.run(
            ["nsenter", f"--net=/proc/self/fd/{self.switch}", "tc", *shaping],
            pass_fds=[self.switch],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise HarnessError(f"tc: {done.stderr.strip()}")
