"""Every fault there is. A new one is a module of this package and a line here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.faults.base import Fault
from harness.faults.cut_link import CutLink
from harness.faults.delay import Delay
from harness.faults.exit_ import Exit
from harness.faults.fail import Fail
from harness.faults.hang import Hang
from harness.faults.interrupt import Interrupt
from harness.faults.kill import Kill
from harness.faults.operator import Operator
from harness.faults.power_cut import PowerCut
from harness.faults.raise_ import Raise
from harness.faults.retransmit import Retransmit
from harness.faults.second_job import SecondJob
from harness.faults.short_write import ShortWrite
from harness.faults.sigterm import Sigterm
from harness.faults.slow_link import SlowLink
from harness.faults.starve import Starve
from harness.faults.stop import Stop
from harness.faults.time_limit import TimeLimit
from harness.faults.worded import one_of

KINDS: tuple[type[Fault], ...] = (
    Kill,
    Sigterm,
    Stop,
    Fail,
    ShortWrite,
    Retransmit,
    Delay,
    Hang,
    Starve,
    Raise,
    Exit,
    PowerCut,
    SecondJob,
    Operator,
    CutLink,
    SlowLink,
    TimeLimit,
    Interrupt,
)

FAULTS = tuple(kind.word for kind in KINDS)
"""Their keys; each entry of `faults` has one of them."""


if TYPE_CHECKING:
    AnyFault = Fault
else:
    AnyFault = one_of(KINDS, "fault", entry="faults")
"""One of them, as a field of a model."""
