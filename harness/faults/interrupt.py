"""SIGINT, as Ctrl-C sends it to every process of a terminal.

Fault model: at the point each rank gets the signal; a rank that waits in an intercepted call gets
it when that call returns. The main thread then raises `KeyboardInterrupt` wherever it is, possibly
in the middle of a save, and the interpreter shuts down as always.

What must survive: everything that was acknowledged to the job. No rank hangs. Out of scope: a
second, impatient Ctrl-C, and the SIGTERM and SIGKILL with which launchers follow it up.
"""

from __future__ import annotations

import signal
from typing import ClassVar

from harness.faults.base import Fault, Target
from harness.faults.effects import Effects, PlannedStrike


class Interrupt(Fault):
    """Ctrl-C: the main thread of a rank raises `KeyboardInterrupt` where it is."""

    word: ClassVar[str] = "interrupt"
    area: ClassVar[str | None] = "signals"
    does: ClassVar[tuple[str, str]] = ("gets Ctrl-C", "get Ctrl-C")
    drawn_at: ClassVar[tuple[str, ...]] = ()
    ends_run: ClassVar[bool] = True
    ends_interpreter: ClassVar[bool] = True
    interrupt: Target

    def carry_out(self, strike: PlannedStrike, effects: Effects) -> None:
        effects.send(strike, signal.SIGINT)
