"""A hand from outside that changes the checkpoint directory at an instant of a run.

Fault model: what can happen between two runs happens at a point while the job lives, all of it
before anything else that the ranks do, and is durable at once. Each change is told as an operation
of rank -1 in the trace of the run. A deed that finds nothing to hit, or changes nothing, is not
done: its strike does not land.

What must survive: what the hand did not damage, and the job, which goes on saving. Out of scope: a
hand that changes what a save in flight has written so far, and one that changes two things between
which the job does something.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from harness.plan.model import Strike
from harness.run.at_rest import do_at_rest
from harness.run.trace import Trace


@dataclass(frozen=True, slots=True, kw_only=True)
class LateHand:
    """Does the deeds of one run to its directory, and tells them in its trace."""

    root: Path
    trace: Trace

    def act(self, strike: Strike) -> None:
        """Do the deed of this strike; it lands if that changed something."""
        assert strike.deed is not None, "only such strikes are carried out by hand"
        self.trace.written.settle()
        found = do_at_rest((strike.deed,), self.root, self.trace.operations)
        if found.done[0].problem is not None:
            return
        self.trace.strike(strike.id, ())
        place = self.trace.written.add(found.written)
        for one in found.done[0].operations:
            self.trace.operations.append(
                replace(
                    one,
                    index=len(self.trace.operations),
                    time_s=self.trace.seconds(),
                    data=None if one.data is None else one.data + place,
                )
            )
