"""Carries out the exceptions of a scenario in the training loop, and ends its interpreter."""

from __future__ import annotations

import atexit
import sys
import threading
from collections import Counter
from collections.abc import Iterable
from typing import NoReturn

from harness.evidence.record import Entered, Struck
from harness.faults.base import LeavingFault
from harness.faults.strike import Strike
from harness.jobs.training.event_log import EventLog


class Interruptions:
    """The strikes that one rank carries out on itself, and the records at which all others can."""

    def __init__(self, strikes: Iterable[Strike], *, rank: int, event_log: EventLog) -> None:
        self._strikes = [
            one for one in strikes if isinstance(one.fault, LeavingFault) and rank in one.ranks
        ]
        self._event_log = event_log
        self._entered: Counter[str] = Counter()

    def enter(self, period: str, step: int = 0) -> None:
        """Record that the rank enters a period of its life, and raise what is due there."""
        self._event_log.record(Entered(period=period, step=step))
        self._entered[period] += 1
        for strike in self._strikes:
            if (strike.point.during, strike.point.nth) == (period, self._entered[period]):
                self._raise(strike, f"during {period}")

    def after_step(self, step: int) -> None:
        """Raise what is due now."""
        for strike in self._strikes:
            if strike.point.step == step:
                self._raise(strike, f"at step {step}")

    def _raise(self, strike: Strike, where: str) -> NoReturn:
        """Raise the error of a strike; the record before it is what makes the strike fire."""
        self._event_log.record(Struck(strike=strike.id))
        assert isinstance(strike.fault, LeavingFault), "the others do not end a loop"
        error = strike.fault.leaves()
        raise error() if error is SystemExit else error(f"struck {where}")


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
