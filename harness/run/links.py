"""What becomes of a node's link to the others: the strikes that hit the network.

Fault model: the cable of one node is pulled at an operation or after a training step, and put back
after some seconds or never; or the link carries so many kilobits a second from then on. Packets on
their way are lost, connections stay open on both sides, and nobody is told. The ranks of one node
still reach each other. The checkpoint directory is shared over a storage network of its own, which
is never cut.

What must survive: no rank waits beyond the manager's deadline; every rank is told that the save
failed, each side naming the other; no half of a save is committed; the job goes on once the cable
is back, and otherwise starts again. Out of scope: packets that are reordered, doubled or garbled,
one direction alone, and a cut after a save was decided on, whose last answer nobody can deliver.
"""

from __future__ import annotations

import fcntl
import functools
import os
import shutil
import socket
import struct
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from harness.plan.model import Strike
from harness.run.errors import HarnessError

_GET_FLAGS, _SET_FLAGS = 0x8913, 0x8914
_UP = 1
_TOOLS = ("ip", "tc", "nsenter", "unshare")
_SHAPE = ("burst", "32kbit", "latency", "400ms")
"""What may go at once, and how long packets wait for their turn before they are dropped."""


@functools.cache
def missing() -> str | None:
    """Why this machine has no nodes with a network of their own; None where it has."""
    if os.geteuid() != 0:
        return "nodes with a network of their own need root"
    tools = [name for name in _TOOLS if shutil.which(name) is None]
    if tools:
        return f"nodes with a network of their own need {', '.join(tools)}"
    probe = ["unshare", "--net", "ip", "link", "add", "probe", "type", "bridge"]
    found = subprocess.run(probe, capture_output=True, text=True, check=False)
    return None if found.returncode == 0 else f"no network namespaces here: {found.stderr.strip()}"


@dataclass(slots=True, kw_only=True)
class Links:
    """The links of one run's nodes. `switch` is the namespace in which they end."""

    switch: int
    control: socket.socket
    _heal_at: list[tuple[float, Strike]] = field(default_factory=list)

    def hit(self, strike: Strike) -> None:
        """Pull the cable of the strike's node, or let it carry less."""
        if strike.fault == "cut_link":
            self._set(strike, up=False)
            if strike.seconds is not None:
                self._heal_at.append((time.monotonic() + strike.seconds, strike))
        else:
            self._slow(strike)

    def heal(self) -> Iterator[Strike]:
        """Put back the cables whose time has come."""
        now = time.monotonic()
        for due in [one for one in self._heal_at if now >= one[0]]:
            self._heal_at.remove(due)
            self._set(due[1], up=True)
            yield due[1]

    def close(self) -> None:
        """Let go of the namespace; it is gone when the ranks are."""
        self.control.close()
        os.close(self.switch)

    def _set(self, strike: Strike, *, up: bool) -> None:
        name = f"node{strike.node}".encode()
        found = fcntl.ioctl(self.control, _GET_FLAGS, struct.pack("16sh22x", name, 0))
        flags = struct.unpack("16sh22x", found)[1]
        wanted = flags | _UP if up else flags & ~_UP
        fcntl.ioctl(self.control, _SET_FLAGS, struct.pack("16sh22x", name, wanted))

    def _slow(self, strike: Strike) -> None:
        place, rate = f"node{strike.node}", f"{strike.kbit_s}kbit"
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
