"""What earlier runs of a scenario have left, as far as that is certain whatever struck them."""

from __future__ import annotations

from dataclasses import dataclass, replace

from harness.generate.faults import ends_run
from harness.scenario.possible import save_steps
from harness.scenario.schema import Checkpoint, Delay, Run, ShortWrite, Stop


@dataclass(frozen=True, slots=True, kw_only=True)
class Past:
    """`latest_start` is the latest step from which the next run can resume.

    `certain` are steps whose checkpoints are there: those that a run saved which nothing could keep
    from it and which retention keeps. `reached` is the last step of all runs so far.
    """

    checkpoint: Checkpoint
    latest_start: int = 0
    reached: int = 0
    certain: tuple[int, ...] = ()

    def after(self, run: Run) -> Past:
        """The past of the run that comes next."""
        if run.refused is not None:
            return self
        start = self.latest_start if run.load_step is None else run.load_step
        reached = max(self.reached, run.until_step)
        if ends_run(run.faults, goes_on=self.checkpoint.on_error == "go_on"):
            return replace(
                self, latest_start=max(start, run.until_step), reached=reached, certain=()
            )
        harmless = all(isinstance(one, Delay | Stop | ShortWrite) for one in run.faults)
        saved = save_steps(self.checkpoint, after=start, until=run.until_step)
        kept = self._kept(saved) if harmless else ()
        newest = saved[-1] if saved and harmless else max(start, run.until_step)
        return replace(self, latest_start=newest, reached=reached, certain=kept)

    def next_saves(self, until: int) -> tuple[int, ...]:
        """The steps that a run until then saves, wherever it resumes."""
        return save_steps(self.checkpoint, after=self.latest_start, until=until)

    def _kept(self, saved: tuple[int, ...]) -> tuple[int, ...]:
        """Milestones are kept besides, so this many of the last ones are there at least."""
        keep = self.checkpoint.keep_last_n
        return saved if keep <= 0 else saved[-keep:]
