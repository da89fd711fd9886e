"""The state that earlier runs of a scenario have certainly left, whatever struck them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from harness.faults.actions import Foreign
from harness.faults.delay import Delay
from harness.faults.fail import Fail
from harness.faults.hang import Hang
from harness.faults.operator import Operator
from harness.faults.registry import AnyFault
from harness.faults.second_job import SecondJob
from harness.faults.short_write import ShortWrite
from harness.faults.stop import Stop
from harness.scenario.possible import save_steps
from harness.scenario.schema import Checkpoint, Run

_HARMLESS = Delay | Stop | ShortWrite | SecondJob | Operator


@dataclass(frozen=True, slots=True, kw_only=True)
class Past:
    """`latest_start` is the latest step from which the next run can resume.

    `certain` are steps whose checkpoints exist: those that a run saved without any possible
    obstacle and that are retained, after the last time that an operator changed any. `reached` is
    the last step of all runs so far, `foreign` are the names that operators have created.
    """

    checkpoint: Checkpoint
    latest_start: int = 0
    reached: int = 0
    certain: tuple[int, ...] = ()
    foreign: frozenset[str] = frozenset()

    def after(self, run: Run) -> Past:
        """Returns the past of the next run."""
        if run.refused is not None:
            return replace(self, foreign=self.foreign | foreign_names(run))
        start = self.latest_start if run.load_step is None else run.load_step
        then = replace(
            self,
            latest_start=max(start, run.until_step),
            reached=max(self.reached, run.until_step),
            certain=(),
            foreign=self.foreign | foreign_names(run),
        )
        if ends_run(run.faults, goes_on=self.checkpoint.on_error == "go_on"):
            return then
        if not all(isinstance(one, _HARMLESS) or is_of_load(one) for one in run.faults):
            return then
        saved = save_steps(self.checkpoint, after=start, until=run.until_step)
        newest = saved[-1] if saved else then.latest_start
        touched = _touched(run, saved)
        kept = tuple(step for step in self._kept(saved) if step >= touched)
        return replace(then, latest_start=newest, certain=kept)

    def _kept(self, saved: tuple[int, ...]) -> tuple[int, ...]:
        """Milestones are kept in addition, so at least this many of the last ones exist."""
        keep = self.checkpoint.keep_last_n
        return saved if keep <= 0 else saved[-keep:]


def foreign_names(run: Run) -> frozenset[str]:
    """Returns names that operators put beside the checkpoints before a run and during it."""
    late = [one.action for one in run.faults]
    return frozenset(one.foreign.path for one in (*run.before, *late) if isinstance(one, Foreign))


def _touched(run: Run, saved: tuple[int, ...]) -> int:
    """Returns the first step whose checkpoint, and later `latest`, no operator can have changed."""
    steps = [
        saved[(one.at.save or 1) - 1] if one.at.is_operation else one.at.step or 0
        for one in run.faults
        if one.action is not None and not isinstance(one.action, Foreign)
    ]
    return max(steps, default=0)


def ends_run(faults: Sequence[AnyFault], *, goes_on: bool) -> bool:
    """Whether a run with these faults may end before its last step."""
    return any(
        one.ends_run or (not goes_on and isinstance(one, Fail | Hang) and not is_of_load(one))
        for one in faults
    )


def is_of_load(fault: AnyFault) -> bool:
    """Whether an error is one that a load meets: drawn errors of a load are temporary."""
    return isinstance(fault, Fail) and fault.at.phase == "load"
