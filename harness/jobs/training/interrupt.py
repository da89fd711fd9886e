"""Carries out the exceptions of a scenario in the training loop, and ends its interpreter."""

from __future__ import annotations

import atexit
import sys
import threading
from collections.abc import Iterable

from harness.evidence.record import Struck
from harness.faults.base import LeavingFault
from harness.faults.strike import Strike
from harness.jobs.training.event_log import EventLog


class Interruptions:
    """The strikes that one rank carries out on itself."""

    def __init__(self, strikes: Iterable[Strike], *, rank: int, event_log: EventLog) -> None:
        self._leaving = {
            one.point.step: (one.id, one.fault)
            for one in strikes
            if isinstance(one.fault, LeavingFault) and rank in one.ranks
        }
        self._event_log = event_log

    def after_step(self, step: int) -> None:
        """Raise what is due now; the record before it is what makes the strike fire."""
        if step in self._leaving:
            strike, fault = self._leaving[step]
            self._event_log.record(Struck(strike=strike))
            error = fault.leaves()
            raise error() if error is SystemExit else error(f"struck at step {step}")


def end_uncaught(error: BaseException) -> int:
    """End as an interpreter does when this error goes uncaught; returns the exit status."""
    if not isinstance(error, SystemExit):
        sys.excepthook(type(error), error, error.__traceback__)
    end_like_an_interpreter()
    return 0 if isinstance(error, SystemExit) and not error.code else 1


def end_like_an_interpreter() -> None:
    """Do what an interpreter does at its end, which a forked process never reaches.

    First all non-daemon threads are joined, then the exit handlers run: code under test can finish
    a save in either.
    """
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
