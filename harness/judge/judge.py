"""Judges a scenario: replays it, asks every property, checks the guards, finds the outcome."""

from __future__ import annotations

import traceback
from dataclasses import dataclass, replace

from harness.evidence.evidence import Evidence, RunEvidence
from harness.judge.event_logs import describe_step, resumed_steps
from harness.judge.guards import Guard, check
from harness.judge.history import History, replay
from harness.judge.lacking import lacks
from harness.judge.outcome import Outcome, worst
from harness.judge.properties import JUDGES, PROMISES
from harness.judge.verdict import Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """The outcome of the scenario, and everything that led to it.

    `resumed` says where each run after the first resumed.
    """

    outcome: Outcome
    verdicts: tuple[Verdict, ...]
    guards: tuple[Guard, ...]
    resumed: tuple[str, ...] = ()

    @property
    def broken(self) -> tuple[str, ...]:
        """Names of the guards that failed and of the properties that are violated."""
        guards = tuple(one.name for one in self.guards if not one.passed)
        return guards + tuple(one.property for one in self.verdicts if one.state == "violated")

    @property
    def left_out(self) -> tuple[str, ...]:
        """The verdicts and guards that leave something out, and why: one line each."""
        judged = [one.left_out() for one in self.verdicts]
        checked = [one.left_out() for one in self.guards]
        return tuple(line for line in (*judged, *checked) if line is not None)


def judge(evidence: Evidence) -> Judgement:
    """Judges the evidence of one scenario; only the properties that it names count."""
    wanted = evidence.plan.expect.properties
    names = tuple(JUDGES) if wanted == "all" else tuple(name for name in JUDGES if name in wanted)
    history, problem = _history(evidence)
    promises = evidence.plan.implementation.promises
    verdicts = tuple(_ask(name, evidence, history, problem).within(promises) for name in names)
    guards = check(evidence, history, tuple(one for one in verdicts if _had_evidence(one)))
    outcome = worst(
        failed_guards=[one.outcome for one in guards if not one.passed and one.spoils],
        violated=[one.outcome for one in verdicts if one.state == "violated"],
        unknown=sum(one.state == "unknown" for one in verdicts)
        + sum(not one.passed and not one.spoils for one in guards),
    )
    resumed = tuple(_describe_resume(run) for run in evidence.runs[1:])
    return Judgement(outcome=outcome, verdicts=verdicts, guards=guards, resumed=resumed)


def _describe_resume(run: RunEvidence) -> str:
    """Describes where the ranks of a run resumed: one step if they agree.

    Of a command, only the step of its first line is known.
    """
    if run.result is not None:
        first = run.result.first_step
        return "no step line" if first is None else f"first line of step {first}"
    steps = set(resumed_steps(run))
    texts = sorted(describe_step(step) for step in steps)
    return " and ".join(texts) or "no step"


def _history(evidence: Evidence) -> tuple[History | None, tuple[str, ...]]:
    try:
        return replay(evidence), ()
    # Whatever is wrong with the evidence or with the replay becomes an answer: unknown.
    except Exception:  # noqa: BLE001 - a judge that throws has no verdict
        return None, _lines("the operations could not be replayed")


def _ask(
    name: str, evidence: Evidence, history: History | None, problem: tuple[str, ...]
) -> Verdict:
    promise = PROMISES[name]
    if missing := lacks(evidence, promise.needs):
        return promise.does_not_apply(f"no evidence of: {', '.join(missing)}")
    if history is None:
        return promise.unknown(*problem)
    try:
        verdict = JUDGES[name](evidence, history)
    # Unknown, with the traceback as the reason.
    except Exception:  # noqa: BLE001 - a judge that throws has no verdict
        return promise.unknown(*_lines("the judge threw"))
    if not verdict.applies():
        return verdict
    return replace(verdict, lacks=(*verdict.lacks, *lacks(evidence, promise.uses)))


def _had_evidence(verdict: Verdict) -> bool:
    """Whether the property was judged on any of the evidence that it declares."""
    promise = PROMISES[verdict.property]
    return verdict.applies() and any(
        kind not in verdict.lacks for kind in (*promise.needs, *promise.uses)
    )


def _lines(head: str) -> tuple[str, ...]:
    return (head, *traceback.format_exc().rstrip().splitlines()[-6:])
