"""What a rank does to itself in its training loop: it raises, or it exits.

Fault model: right after a training step, before the save that may be due, an exception that nobody
catches leaves the loop of one rank, or `sys.exit()` is called on one rank or on all. Then the
interpreter ends as it always does: `sys.excepthook` shows the exception, threads that are no
daemons are waited for, and the exit handlers run. So does that of a rank that raises because it
lost the one that was struck. Process groups are not destroyed first, as in a script that has no
`finally`.

What must survive: what the job was told is durable; and where every rank comes to its end, a save
under way is finished or said to have failed, never dropped in silence. No rank may hang. Out of
scope: an exception between the operations of a save, an exit in another thread, and what a module
does when it is torn down after the exit handlers, which a forked rank never comes to.
"""

from __future__ import annotations

import atexit
import builtins
import sys
import threading
from collections.abc import Iterable

from harness.evidence.record import Struck
from harness.job.story import Story
from harness.plan.model import Strike
from harness.words import IN_THE_LOOP


class Interruptions:
    """The strikes that one rank carries out on itself."""

    def __init__(self, strikes: Iterable[Strike], *, rank: int, story: Story) -> None:
        self._strikes = [one for one in own_strikes(strikes) if rank in one.ranks]
        self._story = story

    def after_step(self, step: int) -> None:
        """Raise what is due now; the record before it is what makes the strike land."""
        for strike in self._strikes:
            if strike.point.step == step:
                self._story.tell(Struck(strike=strike.id))
                if strike.fault == "exit":
                    sys.exit()
                raise getattr(builtins, str(strike.error))(f"the loop is struck at step {step}")


def own_strikes(strikes: Iterable[Strike]) -> list[Strike]:
    """Those of a run's strikes that ranks carry out on themselves."""
    return [one for one in strikes if one.fault in IN_THE_LOOP]


def end_uncaught(error: BaseException) -> int:
    """End as an interpreter does whose program let this error out; the exit status."""
    if not isinstance(error, SystemExit):
        sys.excepthook(type(error), error, error.__traceback__)
    end_like_an_interpreter()
    return 0 if isinstance(error, SystemExit) and not error.code else 1


def end_like_an_interpreter() -> None:
    """Do what an interpreter does at its end, which a forked process never reaches.

    First all threads that are no daemons end, then the exit handlers run: code under test may
    finish a save in either.
    """
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
