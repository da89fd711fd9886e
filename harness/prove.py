"""The whole flow for one plan: run it, judge what it left, and save a failure."""

from __future__ import annotations

import dataclasses
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

from harness.judge.comparison import Answer, compare, describe_answer, know
from harness.judge.judge import Judgement
from harness.judge.outcome import Outcome
from harness.layouts.registry import DEFAULT
from harness.plan.model import Implementation, Plan
from harness.promises import ALL, DOCUMENTED, describe_promises
from harness.report.failure import write_failure
from harness.report.head import FailureHead, read_head
from harness.report.text import describe
from harness.scenario.source import Source
from harness.trial import Bench, Trial, try_plan


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """The outcome. `replay` and `text` are empty if it is PASS.

    `broken` names the violated properties and failed guards, `left_out` says what was not judged.
    `answer` is set if the scenario was a failure file, and `summary` puts it in one line.
    """

    outcome: Outcome
    text: str = ""
    replay: str = ""
    broken: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    answer: Answer | None = None
    summary: str = ""


def prove(bench: Bench, plan: Plan, source: Source) -> Proof:
    """Run a plan and judge it; its run directory is removed if it passed."""
    return settle(try_plan(bench, plan), source)


def settle(trial: Trial, source: Source) -> Proof:
    """Drop a trial that passed; save one that failed.

    A failure is saved as its file, which replays `source`, its run directory, and its report. If
    `source` is the file of another failure, that one stays as it is.
    """
    plan, judgement = trial.evidence.plan, trial.judgement
    proof = Proof(outcome=judgement.outcome, broken=judgement.broken, left_out=judgement.left_out)
    proof = _answer(proof, plan, source, judgement)
    if trial.passed:
        trial.drop()
        return proof
    differs = proof.answer in (Answer.OTHER, Answer.INVALID)
    suffix = f"-{str(proof.answer).lower()}" if differs else ""
    failures = trial.workspace.failures
    failure = write_failure(failures, source, judgement, plan.chosen, suffix)
    kept = trial.keep(failure.stem)
    replay = replay_command(failure, plan.chosen)
    text = describe(
        dataclasses.replace(trial.evidence, directory=from_here(kept)),
        judgement,
        source=source,
        replay=replay,
    )
    text = f"{proof.summary}\n{text}" if proof.summary else text
    return dataclasses.replace(proof, text=text, replay=replay)


def _answer(proof: Proof, plan: Plan, source: Source, judgement: Judgement) -> Proof:
    """Returns the proof with its answer about the failure whose file `source` is."""
    head = read_head(source.text)
    if head is None:
        return proof
    now = know(judgement)
    summary = describe_answer(head.known, now) + _other_code(head, plan.chosen)
    return dataclasses.replace(proof, answer=compare(head.known, now), summary=summary)


def _other_code(head: FailureHead, implementation: Implementation) -> str:
    """Returns a warning if a failure of one implementation is replayed with another."""
    if head.implementation == implementation.name:
        return ""
    return f" (the failure was that of {head.implementation}, this is {implementation.name})"


def replay_command(failure: Path, implementation: Implementation) -> str:
    """Returns the command that reproduces the failure from the current directory."""
    words = [interpreter(), "-m", "pytest", from_here(failure)]
    return shlex.join([*words, *implementation_words(implementation)])


def implementation_words(implementation: Implementation) -> list[str]:
    """Returns the options that choose the implementation on a command line."""
    words: list[str] = []
    if implementation.name != Implementation().name:
        words += ["--implementation", implementation.name]
    if implementation.layout != DEFAULT:
        words += ["--layout", implementation.layout]
    if implementation.path is not None:
        words += ["--implementation-path", from_here(Path(implementation.path))]
    if implementation.promises != (DOCUMENTED if implementation.is_foreign else ALL):
        words += ["--promises", describe_promises(implementation.promises)]
    return words


def interpreter() -> str:
    """Returns the Python that runs here: a virtual environment need not be active."""
    return from_here(Path(sys.executable))


def from_here(path: Path) -> str:
    """Returns a path as short as it can be typed in the current directory."""
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)
