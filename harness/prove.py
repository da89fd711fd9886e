"""The whole flow for one plan: run it, judge what it left, and write down a failure."""

from __future__ import annotations

import dataclasses
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

from harness.evidence.evidence import Evidence
from harness.judge.judge import Judgement, judge
from harness.judge.outcome import Outcome
from harness.plan.model import Implementation, Plan
from harness.report.failure import write_failure
from harness.report.text import describe
from harness.run.execute import execute
from harness.run.services import Services
from harness.scenario.source import Source
from harness.workspace import Workspace, slug


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """What came out. `replay` and `text` are empty where the outcome is PASS."""

    outcome: Outcome
    text: str = ""
    replay: str = ""
    broken: tuple[str, ...] = ()
    """The properties that were violated, and the guards that failed."""


def prove(plan: Plan, source: Source, *, services: Services, workspace: Workspace) -> Proof:
    """Run a plan and judge it.

    What the run left is gone afterwards if it passed. Whatever else happens, it stays.
    """
    name = slug(plan.name)
    directory = workspace.new_run(name)
    try:
        evidence = execute(plan, directory, services)
        judgement = judge(evidence)
    except BaseException:
        workspace.keep(directory, name)
        raise
    if judgement.outcome is Outcome.PASS:
        workspace.drop(directory)
        return Proof(outcome=judgement.outcome)
    return report_failure(evidence, judgement, source, workspace=workspace)


def report_failure(
    evidence: Evidence, judgement: Judgement, source: Source, *, workspace: Workspace
) -> Proof:
    """Write down a failure: its file, which replays `source`, its run directory, its report."""
    plan, directory = evidence.plan, Path(evidence.directory)
    failure = write_failure(workspace.failures, source, judgement, plan.implementation)
    kept = workspace.keep(directory, failure.stem)
    replay = replay_command(failure, plan.implementation)
    text = describe(
        dataclasses.replace(evidence, directory=_from_here(kept)),
        judgement,
        source=source,
        replay=replay,
    )
    return Proof(outcome=judgement.outcome, text=text, replay=replay, broken=judgement.broken)


def replay_command(failure: Path, implementation: Implementation) -> str:
    """What to type in the current directory to see the failure again."""
    words = [_interpreter(), "-m", "pytest", _from_here(failure)]
    if implementation.name != Implementation().name:
        words += ["--implementation", implementation.name]
    if implementation.path is not None:
        words += ["--implementation-path", _from_here(Path(implementation.path))]
    return shlex.join(words)


def _interpreter() -> str:
    """The Python that runs here: a virtual environment need not be active."""
    return _from_here(Path(sys.executable))


def _from_here(path: Path) -> str:
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)
