"""The whole flow for the evidence of one scenario: explore its crash states, resume, report."""

from __future__ import annotations

from dataclasses import dataclass

from harness.crash.explore import Exploration, explore
from harness.crash.profiles import ProfileName
from harness.crash.resume import resume_all
from harness.crash.tell import tell
from harness.evidence.evidence import Evidence
from harness.judge.outcome import Outcome, worst
from harness.run.services import Services
from harness.workspace import Workspace


@dataclass(frozen=True, slots=True, kw_only=True)
class CrashProof:
    """What came out."""

    outcome: Outcome
    exploration: Exploration
    text: str


def prove(
    evidence: Evidence,
    *,
    profile: ProfileName,
    seed: int,
    limit: int,
    services: Services,
    workspace: Workspace,
) -> CrashProof:
    """Explore, and start the job again from at most `limit` of the states; 0 starts nothing."""
    found = explore(evidence, profile=profile, seed=seed)
    resumptions = tuple(
        resume_all(found, evidence, services=services, workspace=workspace, limit=limit)
    )
    outcome = found.outcome
    if outcome is Outcome.PASS:
        words = [one.judgement.outcome for one in resumptions]
        outcome = worst(
            failed_guards=[one for one in words if one is not Outcome.PASS], violated=[], unknown=0
        )
    text = tell(evidence.plan, found, resumptions, outcome)
    return CrashProof(outcome=outcome, exploration=found, text=text)
