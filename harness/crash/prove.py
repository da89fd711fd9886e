"""The whole flow for the evidence of one scenario: explore its crash states, resume, report."""

from __future__ import annotations

from dataclasses import dataclass

from harness.crash.describe import describe_exploration, shown_hits
from harness.crash.explore import explore
from harness.crash.reproduce import reproduce
from harness.crash.resume import resume_all
from harness.disk.profiles import ProfileName
from harness.evidence.evidence import Evidence
from harness.judge.outcome import Outcome, worst
from harness.trial import Bench


@dataclass(frozen=True, slots=True, kw_only=True)
class CrashOptions:
    """The task: at most `limit` starts of the job, and the file systems on which hits are tried."""

    profile: ProfileName
    seed: int
    limit: int
    filesystems: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class CrashProof:
    """The outcome."""

    outcome: Outcome
    text: str


def prove(bench: Bench, evidence: Evidence, asked: CrashOptions) -> CrashProof:
    """Explore, start the job from some of the states, and try the hits on real file systems."""
    found = explore(evidence, profile=asked.profile, seed=asked.seed)
    resumptions = tuple(resume_all(bench, found, evidence, limit=asked.limit))
    bench.workspace.root.mkdir(mode=0o700, parents=True, exist_ok=True)
    attempts = reproduce(
        shown_hits(found.hits),
        found,
        evidence,
        filesystems=asked.filesystems,
        base=bench.workspace.root,
    )
    outcome = found.outcome
    if outcome is Outcome.PASS:
        words = [one.judgement.outcome for one in resumptions]
        outcome = worst(
            failed_guards=[one for one in words if one is not Outcome.PASS], violated=[], unknown=0
        )
    text = describe_exploration(evidence.plan, found, resumptions, outcome, attempts)
    return CrashProof(outcome=outcome, text=text)
